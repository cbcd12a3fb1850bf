"""What a classifier of this patient is shown of a slice between two annotated ones: carried masks, shape, and appearance."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude, uniform_filter

from MedGSLib.baselines.masks import interpolate_cubic, interpolate_linear
from MedGSLib.prior.mask_distance import SOFT_WIDTH_PX
from MedGSLib.prior.mask_motion import Carried, MotionChain
from MedGSLib.prior.mask_shape import interpolate_shape

Planes = NDArray[np.float32]

LIKELIHOOD_BAND_PX = 6.0
LIKELIHOOD_BINS = 32
VOTE_RADIUS_PX = 2
VOTE_PATCH_PX = 3
VOTE_LIMIT_PX = 6.0
VOTE_NOISE = 1e-4
"""Squared difference of patches that means nothing."""
CLOSENESS_POWER = 0.5
"""Distances are shown in units of their expected error, which grows with this power of the way to the nearest annotated slice."""


class Likelihood:
    """Log ratio of the intensity's frequency inside and outside the mask, near the surface of the annotated slices.

    :param image: (A, H, W), normalised; :param distances: (A, H, W) of the same slices, px.
    """

    def __init__(self, image: Planes, distances: Planes) -> None:
        near = np.abs(distances) < LIKELIHOOD_BAND_PX
        edges = np.linspace(0, 1, LIKELIHOOD_BINS + 1)
        self._centres = (edges[1:] + edges[:-1]) / 2
        values = np.clip(image, 0, 1)
        counts = [gaussian_filter(np.histogram(values[near & side], edges)[0] + 2.0, 1.0) for side in (distances > 0, distances <= 0)]
        self._ratio = np.log(counts[0] / counts[0].sum()) - np.log(counts[1] / counts[1].sum())

    def __call__(self, image: Planes) -> Planes:
        return np.interp(image, self._centres, self._ratio).astype(np.float32)


def patch_votes(image: Planes, carried: tuple[Carried, ...]) -> tuple[Planes, Planes]:
    """What the patches of carried slices that look most like those of ``image`` say: occupancy in -1..1, and distance in px.

    Each pixel asks all pixels of the carried slices near its own place, weighted by ``exp(-d / min d)`` of the squared difference d of
    their patches (patch-based segmentation, Coupe et al., NeuroImage 2011).

    :param image: (H, W).
    :return: two float32 (H, W).
    """
    height, width = image.shape
    unlike, opinions = [], []
    for slice_ in carried:
        seen = np.pad(slice_.image, VOTE_RADIUS_PX, mode="edge")
        said = np.pad(np.clip(slice_.distances, -VOTE_LIMIT_PX, VOTE_LIMIT_PX), VOTE_RADIUS_PX, mode="edge")
        for row, column in product(range(2 * VOTE_RADIUS_PX + 1), repeat=2):
            window = slice(row, row + height), slice(column, column + width)
            unlike.append(uniform_filter((seen[window] - image) ** 2, VOTE_PATCH_PX))
            opinions.append(said[window])
    difference = np.maximum(np.stack(unlike), 0.0)
    least = difference.min(axis=0)
    weight = np.exp((least - difference) / (least + VOTE_NOISE))
    weight /= weight.sum(axis=0)
    distances = np.stack(opinions)
    votes = [np.einsum("khw,khw->hw", weight, part) for part in (np.tanh(distances / SOFT_WIDTH_PX), distances)]
    return votes[0].astype(np.float32), votes[1].astype(np.float32)


class Predictor:
    """Features of a slice from the annotated slices before and after it.

    :param image: (S, H, W), normalised; :param chosen: (A,) indices of annotated slices; :param distances: (A, H, W) of those.
    :param coordinates: (S,), increasing; :param gap_over_pixel: distance of neighbouring slices over the pixel size, (row, column).
    """

    FLOW = 0
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
        self._distances = distances
        self._chain = chain
        known = coordinates[chosen]
        self._gap = float(np.median(np.diff(known))) if len(known) > 1 else 1.0
        self._shape = _shape_of_all(distances, known, coordinates, gap_over_pixel)
        self._shape[chosen] = _shape_left_out(distances, known, gap_over_pixel)
        self._likelihood = Likelihood(image[chosen], distances)

    def shape(self, target: int) -> Planes:
        """The distance (H, W) at a slice without the image; of an annotated one as its neighbours predict it."""
        return self._shape[target]

    def flow(self, target: int, before: int, after: int) -> Planes | None:
        """The mean (H, W) of the distances carried from annotated slices ``before`` and ``after``; None where no motion leads there."""
        carried = self._chain.carry(target, -1), self._chain.carry(target, 1)
        if carried[0] is None or carried[1] is None:
            return None
        share = self._share(target, before, after)
        return (1 - share) * carried[0].distances + share * carried[1].distances

    def features(self, target: int, before: int, after: int) -> Planes | None:
        """(H, W, F) at slice ``target`` from annotated slices number ``before`` and ``after``; None where no motion leads there."""
        earlier, later = self._chain.carry(target, -1), self._chain.carry(target, 1)
        if earlier is None or later is None:
            return None
        share = self._share(target, before, after)
        position = self._coordinates[[target]]
        used = self._chosen != target
        others = self._distances[used], self._coordinates[self._chosen[used]]
        vote, voted_distance = patch_votes(self._image[target], (earlier, later))
        distances = [
            (1 - share) * earlier.distances + share * later.distances,
            self._shape[target],
            interpolate_linear(*others, position)[0],
            interpolate_cubic(*others, position)[0],
            np.minimum(earlier.distances, later.distances),
            np.maximum(earlier.distances, later.distances),
            earlier.distances if share < 0.5 else later.distances,
            voted_distance,
        ]
        sureness = self._sureness(target, before, after)
        columns = [sureness * distance for distance in distances] + [vote] + self._appearance(target, earlier, later, share)
        return np.stack(columns, axis=-1).astype(np.float32)

    def _appearance(self, target: int, earlier: Carried, later: Carried, share: np.float32) -> list[Planes]:
        image = self._image[target]
        likelihood = self._likelihood(image)
        carried = (1 - share) * self._likelihood(earlier.image) + share * self._likelihood(later.image)
        beside = [self._image[min(max(target + step, 0), len(self._image) - 1)] for step in (-1, 1)]
        return [
            likelihood,
            gaussian_filter(likelihood, 1.0),
            gaussian_filter(likelihood, 2.0),
            *(gaussian_filter(self._likelihood(neighbour), 0.7) for neighbour in beside),
            image,
            gaussian_filter(image, 1.0),
            gaussian_gradient_magnitude(image, 1.0),
            np.abs(image - earlier.image),
            np.abs(image - later.image),
            likelihood - carried,
        ]

    def _share(self, target: int, before: int, after: int) -> np.float32:
        first, last = self._coordinates[self._chosen[[before, after]]]
        return np.float32((self._coordinates[target] - first) / (last - first))

    def _sureness(self, target: int, before: int, after: int) -> np.float32:
        first, last = self._coordinates[self._chosen[[before, after]]]
        nearest = min(self._coordinates[target] - first, last - self._coordinates[target])
        return np.float32((self._gap / nearest) ** CLOSENESS_POWER)


def _shape_of_all(
    distances: Planes, known: NDArray[np.float64], wanted: NDArray[np.float64], gap_over_pixel: tuple[float, float]
) -> Planes:
    """Shape interpolation by the slice network alone, which is quick."""
    return interpolate_shape(distances, known, wanted, gap_over_pixel, quick=True)


def _shape_left_out(distances: Planes, known: NDArray[np.float64], gap_over_pixel: tuple[float, float]) -> Planes:
    """Each annotated slice as the shape of its neighbours predicts it: every other slice is left out, then the others."""
    predicted = distances.copy()
    for kept in (0, 1):
        others = slice(1 - kept, None, 2)
        if len(distances[kept::2]) and len(distances[others]):
            predicted[others] = _shape_of_all(distances[kept::2], known[kept::2], known[others], gap_over_pixel)
    return predicted
