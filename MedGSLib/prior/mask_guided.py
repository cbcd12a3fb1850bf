"""Fills mask slices between annotated ones where the image is known there: motion of the image, refined by a classifier of this patient.

The classifier learns on the annotated slices themselves: each is left out in turn, predicted from its two annotated neighbours, and
compared with the truth. The same left-out slices decide, in two halves, whether it is better than motion alone, or than the shape
alone, in which case the image should not guide.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.ensemble import HistGradientBoostingClassifier

from MedGSLib.baselines.masks import interpolate_cubic, interpolate_linear
from MedGSLib.prior.mask_distance import signed_distance_2d
from MedGSLib.prior.mask_motion import MotionChain
from MedGSLib.prior.mask_shape import interpolate_shape
from MedGSLib.progress import Reporter

Planes = NDArray[np.float32]

BAND_PX = 5.0
LIKELIHOOD_BAND_PX = 6.0
LIKELIHOOD_BINS = 32
SMOOTHING_PX = 0.8
"""Blur of the classifier's probabilities: pixels are classified one by one, and a surface is smooth."""
FEWEST_ANNOTATED = 4
FEWEST_SAMPLES = 400
GUIDANCE_GAIN = 0.75
"""The image guides only if it brings the error on left-out slices below this share of that without it: leaving a slice out doubles the
gap, which costs the shape most."""
SEED = 0


@dataclass(frozen=True)
class GuidedMask:
    """All slices of a mask.

    :ivar distances: float32 (S, H, W) in px, the annotated slices as given.
    :ivar method: how the others were found: ``fused`` (classifier), ``flow`` (motion alone) or ``shape`` (without the image).
    :ivar errors: share of wrong pixels of each method near the surface of left-out slices.
    """

    distances: Planes
    method: str
    errors: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Sample:
    """One left-out annotated slice: features (P, F) of the pixels in the band, and which are truly inside (P,)."""

    features: NDArray[np.float32]
    inside: NDArray[np.bool_]


class _Likelihood:
    """Log ratio of the intensity's frequency inside and outside the mask, near the surface of the annotated slices."""

    def __init__(self, image: Planes, distances: Planes) -> None:
        near = np.abs(distances) < LIKELIHOOD_BAND_PX
        edges = np.linspace(0, 1, LIKELIHOOD_BINS + 1)
        self._centres = (edges[1:] + edges[:-1]) / 2
        values = np.clip(image, 0, 1)
        counts = [gaussian_filter(np.histogram(values[near & side], edges)[0] + 2.0, 1.0) for side in (distances > 0, distances <= 0)]
        self._ratio = np.log(counts[0] / counts[0].sum()) - np.log(counts[1] / counts[1].sum())

    def __call__(self, image: Planes) -> Planes:
        return np.interp(image, self._centres, self._ratio).astype(np.float32)


class _Predictor:
    """Features of a slice from the annotated slices before and after it."""

    FLOW, SHAPE = 0, 1
    IMAGELESS = slice(1, 4)

    def __init__(
        self,
        image: Planes,
        chosen: NDArray[np.int64],
        distances: Planes,
        coordinates: NDArray[np.float64],
        gap_over_pixel: tuple[float, float],
        chain: MotionChain,
    ) -> None:
        self._image = image
        self._chosen = chosen
        self._coordinates = coordinates
        self._shape = _shape_of_all(distances, coordinates[chosen], coordinates, gap_over_pixel)
        self._shape[chosen] = _shape_left_out(distances, coordinates[chosen], gap_over_pixel)
        self._distances = distances
        self._chain = chain
        self._likelihood = _Likelihood(image[chosen], distances)

    def features(self, target: int, before: int, after: int) -> Planes | None:
        """(H, W, F) at slice ``target`` from annotated slices number ``before`` and ``after``; None where no motion leads there."""
        earlier, later = self._chain.carry(target, -1), self._chain.carry(target, 1)
        if earlier is None or later is None:
            return None
        first, last = self._coordinates[self._chosen[[before, after]]]
        position = self._coordinates[[target]]
        share = np.float32((position[0] - first) / (last - first))
        used = self._chosen != target
        others = self._distances[used], self._coordinates[self._chosen[used]]
        image, likelihood = self._image[target], self._likelihood(self._image[target])
        carried_likelihood = (1 - share) * self._likelihood(earlier.image) + share * self._likelihood(later.image)
        columns = [
            (1 - share) * earlier.distances + share * later.distances,
            self._shape[target],
            interpolate_linear(*others, position)[0],
            interpolate_cubic(*others, position)[0],
            np.minimum(earlier.distances, later.distances),
            np.maximum(earlier.distances, later.distances),
            earlier.distances if share < 0.5 else later.distances,
            likelihood,
            gaussian_filter(likelihood, 1.0),
            image,
            gaussian_filter(image, 1.0),
            np.abs(image - earlier.image),
            np.abs(image - later.image),
            likelihood - carried_likelihood,
        ]
        return np.stack(columns, axis=-1).astype(np.float32)


def _shape_of_all(
    distances: Planes, known: NDArray[np.float64], wanted: NDArray[np.float64], gap_over_pixel: tuple[float, float]
) -> Planes:
    """Shape interpolation by the slice network alone, which is quick."""
    return interpolate_shape(distances, known, wanted, gap_over_pixel, with_rows=False)


def _shape_left_out(distances: Planes, known: NDArray[np.float64], gap_over_pixel: tuple[float, float]) -> Planes:
    """Each annotated slice as the shape of its neighbours predicts it: every other slice is left out, then the others."""
    predicted = distances.copy()
    for kept in (0, 1):
        others = slice(1 - kept, None, 2)
        if len(distances[kept::2]) and len(distances[others]):
            predicted[others] = _shape_of_all(distances[kept::2], known[kept::2], known[others], gap_over_pixel)
    return predicted


def guided_distances(
    image: Planes,
    annotated: NDArray[np.bool_],
    distances: Planes,
    gap_over_pixel: tuple[float, float],
    coordinates: NDArray[np.float64] | None = None,
    reporter: Reporter | None = None,
) -> GuidedMask:
    """Signed distances of all slices of a dense image from those of its annotated slices.

    Slices before the first or after the last annotated one take that slice, carried along the motion.

    :param image: (S, H, W), normalised intensities.
    :param annotated: bool (S,), at least one.
    :param distances: (A, H, W) of the annotated slices, positive inside, px; empty ones capped.
    :param gap_over_pixel: distance of neighbouring slices over the pixel size, (row, column).
    :param coordinates: (S,), increasing, of all slices; 0, 1, 2, ... by default.
    """
    chosen = np.flatnonzero(annotated)
    coordinates = np.arange(len(image), dtype=np.float64) if coordinates is None else coordinates
    chain = MotionChain(image, chosen, distances, reporter)
    predictor = _Predictor(image, chosen, distances, coordinates, gap_over_pixel, chain)
    samples = _left_out_samples(predictor, chosen, distances)
    errors = _held_out_errors(samples) if len(chosen) >= FEWEST_ANNOTATED else {}
    method = _best_method(errors)
    classifier = _fit(samples) if method == "fused" else None
    out = np.empty(image.shape, np.float32)
    for target in range(len(image)):
        out[target] = _slice_distances(target, chosen, distances, predictor, chain, classifier, method)
    return GuidedMask(out, method, errors)


def _best_method(errors: dict[str, float]) -> str:
    if not errors:
        return "flow"
    guided = min(("flow", "fused"), key=lambda name: errors.get(name, 1.0))
    imageless = min(errors["shape"], errors.get("blind", 1.0))
    return guided if errors[guided] < GUIDANCE_GAIN * imageless else "shape"


def _slice_distances(
    target: int,
    chosen: NDArray[np.int64],
    distances: Planes,
    predictor: _Predictor,
    chain: MotionChain,
    classifier: HistGradientBoostingClassifier | None,
    method: str,
) -> Planes:
    after = int(np.searchsorted(chosen, target))
    if after < len(chosen) and chosen[after] == target:
        return distances[after]
    if after in (0, len(chosen)):
        carried = chain.carry(target, 1 if after == 0 else -1)
        assert carried is not None
        return carried.distances
    features = predictor.features(target, after - 1, after)
    assert features is not None
    flow = features[..., _Predictor.FLOW]
    if classifier is None:
        return features[..., _Predictor.SHAPE] if method == "shape" else flow
    return _refined(flow, features, classifier)


def _refined(flow: Planes, features: Planes, classifier: HistGradientBoostingClassifier) -> Planes:
    """Distance to the classifier's surface in the band round the carried one, the carried distance elsewhere."""
    band = np.abs(flow) < BAND_PX
    if not band.any():
        return flow
    occupancy = (flow > 0).astype(np.float32)
    occupancy[band] = classifier.predict_proba(features[band])[:, 1]
    return np.where(band, signed_distance_2d(gaussian_filter(occupancy, SMOOTHING_PX)), flow).astype(np.float32)


def _left_out_samples(predictor: _Predictor, chosen: NDArray[np.int64], distances: Planes) -> list[_Sample]:
    samples = []
    for k in range(1, len(chosen) - 1):
        features = predictor.features(int(chosen[k]), k - 1, k + 1)
        if features is None:
            continue
        band = (np.abs(features[..., _Predictor.FLOW]) < BAND_PX) | (np.abs(distances[k]) < 2)
        if band.any():
            samples.append(_Sample(features[band], distances[k][band] > 0))
    return samples


def _fit(samples: list[_Sample]) -> HistGradientBoostingClassifier | None:
    """The classifier, or None where the samples cannot teach one."""
    inside = np.concatenate([sample.inside for sample in samples]) if samples else np.empty(0, bool)
    if len(inside) < FEWEST_SAMPLES or inside.all() or not inside.any():
        return None
    classifier = HistGradientBoostingClassifier(
        max_iter=80,
        max_leaf_nodes=8,
        learning_rate=0.1,
        l2_regularization=10,
        min_samples_leaf=100,
        early_stopping=False,
        random_state=SEED,
    )
    return classifier.fit(np.concatenate([sample.features for sample in samples]), inside)


def _held_out_errors(samples: list[_Sample]) -> dict[str, float]:
    """Share of wrong pixels of each method on left-out slices; a classifier is judged on the half it was not taught.

    ``blind`` is a classifier without the image: what it gains over the shape is owed to the double gap of left-out slices.
    """
    blind = [_Sample(sample.features[:, _Predictor.IMAGELESS], sample.inside) for sample in samples]
    guesses = {
        "shape": [sample.features[:, _Predictor.SHAPE] > 0 for sample in samples],
        "flow": [sample.features[:, _Predictor.FLOW] > 0 for sample in samples],
        "fused": _cross_predicted(samples),
        "blind": _cross_predicted(blind),
    }
    truth = np.concatenate([sample.inside for sample in samples]) if samples else np.empty(0, bool)
    return {name: float(np.mean(np.concatenate(guess) != truth)) for name, guess in guesses.items() if guess}


def _cross_predicted(samples: list[_Sample]) -> list[NDArray[np.bool_]]:
    """Each sample as a classifier taught by every other one sees it; empty where one cannot be taught."""
    halves = [_fit(samples[1::2]), _fit(samples[0::2])]
    predicted = []
    for number, sample in enumerate(samples):
        classifier = halves[number % 2]
        if classifier is None:
            return []
        predicted.append(classifier.predict(sample.features))
    return predicted
