"""Fills mask slices between annotated ones where the image is known there: motion of the image, refined by a classifier of this patient.

The classifier learns on the annotated slices themselves: each is left out in turn, predicted from its two annotated neighbours, and
compared with the truth. The same left-out slices, in two halves, tell its share in a blend with the shape alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.ensemble import HistGradientBoostingClassifier

from MedGSLib.metrics import best_share
from MedGSLib.prior.mask_areas import voxels_of_areas, with_promised_volume
from MedGSLib.prior.mask_distance import SOFT_WIDTH_PX, signed_distance_2d, soft_occupancy
from MedGSLib.prior.mask_features import Predictor
from MedGSLib.prior.mask_motion import MotionChain
from MedGSLib.progress import Reporter

Planes = NDArray[np.float32]

BAND_PX = 5.0
SMOOTHING_PX = 0.5
"""Blur of the occupancies, in three dimensions: pixels are classified one by one, and a surface is smooth."""
LARGEST_LEVEL_SHIFT = 0.2
"""How far from a half the occupancies may be cut, so that their volume is what the annotated areas promise."""
VOLUME_ERRORS = 1.0
"""Standard errors that the volume may be from that promise. The image shows volumes too; half and two were worse on the development set."""
CLASSIFIERS = 4
FEWEST_SAMPLES = 400
MOST_SAMPLES = 200_000
CAUTIOUS_SHARE = 0.5
CAUTION_SLICES = 2.0
"""The image's share is shrunk towards the cautious one, which weighs as much as this many left-out slices."""
END_SHARE = 0.5
"""Part of the image's share beside an empty annotated slice: no left-out slice teaches where the segment ends."""
LEAST_SHARE = 0.25
"""Below this share the image is not worth following."""
BLIND_GAIN = 0.9
"""Nor is it where a classifier has more than this part of the errors of one without the image, which also learns the double gap."""
SEED = 0


@dataclass(frozen=True)
class GuidedMask:
    """All slices of a mask.

    :ivar distances: float32 (S, H, W) in px, the annotated slices as given.
    :ivar method: how the others were found: ``fused`` (classifier), ``flow`` (motion alone) or ``shape`` (without the image).
    :ivar share: of the image in the blend with the shape alone, 0..1.
    :ivar errors: share of wrong pixels of each method near the surface of left-out slices.
    """

    distances: Planes
    method: str
    share: float = 1.0
    errors: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Sample:
    """One left-out annotated slice: of the pixels in the band features (P, F), which are truly inside (P,), and the shape's guess."""

    features: NDArray[np.float32]
    inside: NDArray[np.bool_]
    shape: NDArray[np.float32]


class _Classifiers:
    """The mean of boosted trees, each of which sees a random part of the features at each split."""

    def __init__(self, samples: list[_Sample], members: int = CLASSIFIERS) -> None:
        features = np.concatenate([sample.features for sample in samples])
        inside = np.concatenate([sample.inside for sample in samples])
        if len(inside) > MOST_SAMPLES:
            kept = np.random.default_rng(SEED).choice(len(inside), MOST_SAMPLES, replace=False)
            features, inside = features[kept], inside[kept]
        self._members = [
            HistGradientBoostingClassifier(
                max_iter=150,
                max_leaf_nodes=8,
                learning_rate=0.1,
                l2_regularization=10,
                min_samples_leaf=100,
                max_features=0.4,
                early_stopping=False,
                random_state=SEED + number,
            ).fit(features, inside)
            for number in range(members)
        ]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.mean([member.predict_proba(features)[:, 1] for member in self._members], axis=0).astype(np.float32)


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
    predictor = Predictor(image, chosen, distances, coordinates, gap_over_pixel, chain)
    out = np.empty(image.shape, np.float32)
    out[chosen] = distances
    for target in [*range(chosen[0]), *range(chosen[-1] + 1, len(image))]:
        carried = chain.carry(target, 1 if target < chosen[0] else -1)
        assert carried is not None
        out[target] = carried.distances
    samples = _left_out_samples(predictor, chosen, distances)
    between = np.setdiff1d(np.arange(chosen[0], chosen[-1]), chosen)
    if not samples:
        for target in between:
            out[target] = predictor.flow(target, *_around(target, chosen))
        return GuidedMask(out, "flow")
    classify = _taught(samples)
    share, errors = _share_of_image(samples)
    share = 0.0 if share < LEAST_SHARE else share
    method = "shape" if share == 0.0 else "flow" if classify is None else "fused"
    occupancy = (out > 0).astype(np.float32)
    for target in between:
        occupancy[target], out[target] = _blended(target, chosen, distances, predictor, classify, share)
    sigma = (SMOOTHING_PX / max(1.0, float(np.mean(gap_over_pixel))), SMOOTHING_PX, SMOOTHING_PX)
    smooth = gaussian_filter(occupancy, sigma, mode="nearest")
    promised = voxels_of_areas(np.count_nonzero(distances > 0, axis=(1, 2)), coordinates[chosen], coordinates[between])
    sure = with_promised_volume(smooth[between], LARGEST_LEVEL_SHIFT, promised, VOLUME_ERRORS)
    for target, plane in zip(between, sure, strict=True):
        out[target] = _distance(plane, out[target])
    return GuidedMask(out, method, share, errors)


def _around(target: int, chosen: NDArray[np.int64]) -> tuple[int, int]:
    """Numbers of the annotated slices before and after slice ``target``."""
    after = int(np.searchsorted(chosen, target))
    return after - 1, after


def _left_out_samples(predictor: Predictor, chosen: NDArray[np.int64], distances: Planes) -> list[_Sample]:
    samples = []
    for k in range(1, len(chosen) - 1):
        target = int(chosen[k])
        flow = predictor.flow(target, k - 1, k + 1)
        features = predictor.features(target, k - 1, k + 1)
        if features is None or flow is None:
            continue
        band = (np.abs(flow) < BAND_PX) | (np.abs(distances[k]) < 2)
        if band.any():
            samples.append(_Sample(features[band], distances[k][band] > 0, soft_occupancy(predictor.shape(target)[band])))
    return samples


def _taught(samples: list[_Sample], members: int = CLASSIFIERS) -> _Classifiers | None:
    """The classifiers, or None where the samples cannot teach them."""
    inside = np.concatenate([sample.inside for sample in samples]) if samples else np.empty(0, bool)
    return None if len(inside) < FEWEST_SAMPLES or inside.all() or not inside.any() else _Classifiers(samples, members)


def _share_of_image(samples: list[_Sample]) -> tuple[float, dict[str, float]]:
    """The share of least squared error in the blend with the shape on slices that the classifier was not taught, shrunk; and all errors."""
    truth = np.concatenate([sample.inside for sample in samples])
    shape = np.concatenate([sample.shape for sample in samples])
    flow = np.concatenate([sample.features[:, Predictor.FLOW] > 0 for sample in samples])
    errors = {"shape": float(np.mean((shape > 0.5) != truth)), "flow": float(np.mean(flow != truth))}
    guessed = _cross_predicted(samples, CLASSIFIERS)
    blind = _cross_predicted([replace(sample, features=sample.features[:, Predictor.IMAGELESS]) for sample in samples], 1)
    if guessed is None or blind is None:
        return CAUTIOUS_SHARE, errors
    errors |= {"fused": float(np.mean((guessed > 0.5) != truth)), "blind": float(np.mean((blind > 0.5) != truth))}
    if errors["fused"] > BLIND_GAIN * errors["blind"]:
        return 0.0, errors
    best = best_share(guessed, shape, truth, undecided=CAUTIOUS_SHARE)
    share = (CAUTION_SLICES * CAUTIOUS_SHARE + best * len(samples)) / (CAUTION_SLICES + len(samples))
    return float(np.clip(share, 0.0, 1.0)), errors


def _cross_predicted(samples: list[_Sample], members: int) -> NDArray[np.float32] | None:
    """All samples as classifiers taught by every other one see them; None where these cannot be taught."""
    halves = [_taught(samples[1::2], members), _taught(samples[0::2], members)]
    guesses = [half(sample.features) for number, sample in enumerate(samples) if (half := halves[number % 2]) is not None]
    return np.concatenate(guesses) if len(guesses) == len(samples) else None


def _blended(
    target: int, chosen: NDArray[np.int64], distances: Planes, predictor: Predictor, classify: _Classifiers | None, share: float
) -> tuple[Planes, Planes]:
    """The occupancy (H, W) of a slice between annotated ones, image and shape blended; and their distances blended likewise."""
    before, after = _around(target, chosen)
    shape, flow = predictor.shape(target), predictor.flow(target, before, after)
    if share == 0.0 or flow is None:
        return soft_occupancy(shape), shape
    own = np.float32(share if (distances[before] > 0).any() and (distances[after] > 0).any() else share * END_SHARE)
    seen = soft_occupancy(flow)
    if classify is not None:
        seen = (flow > 0).astype(np.float32)
        band = np.abs(flow) < BAND_PX
        features = predictor.features(target, before, after) if band.any() else None
        if features is not None:
            seen[band] = classify(features[band])
    return own * seen + (1 - own) * soft_occupancy(shape), own * flow + (1 - own) * shape


def _distance(occupancy: Planes, guess: Planes) -> Planes:
    """The signed distance (H, W) of a slice; of an empty one the guess, kept below 0 as far as the occupancy is below a half."""
    if (occupancy >= 0.5).any():
        return signed_distance_2d(occupancy)
    below = SOFT_WIDTH_PX * np.arctanh(np.clip(2 * occupancy - 1, -0.999, -1e-3))
    return np.minimum(guess, below).astype(np.float32)
