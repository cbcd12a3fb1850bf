"""Thick slices: averaging a dense volume over the slice profile, and making images and masks consistent with what thick slices show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_matrix

from MedGSLib.prior.mask_distance import SOFT_WIDTH_PX
from MedGSLib.prior.profile import SliceProfile

Slices = NDArray[np.float32]

FILLING_SMOOTHNESS_PX = 1.0
"""In-plane sigma of each correction of a mask; without it noise of the shares roughens the surface (phantoms)."""
CERTAIN_WIDTHS = 5.0
"""Soft widths beyond which distances are not followed, so that a slab that is partly filled far from any contour can be reached."""


class ProfileOperator:
    """Average of a dense volume over the profile of each acquired slice, y_k = sum_j w_j V(c_k + j), c_k its centre.

    The dense grid has ``factor`` sub-slices per gap and reaches from ``margin`` sub-slices before the first slice centre to ``margin``
    behind the last one; where the profile reaches further, the outermost sub-slice is repeated.

    :param profile: of the acquired slices.
    :param count: number of acquired slices S.
    :param factor: sub-slices per gap.
    :param margin: sub-slices before the first and behind the last centre.
    :param centres: sub-slice of each slice's centre (S,), increasing, where slices are missing; by default every ``factor``-th.
    """

    def __init__(self, profile: SliceProfile, count: int, factor: int, margin: int = 0, centres: NDArray[np.int64] | None = None) -> None:
        offsets, weights = profile.weights(factor)
        centres = np.arange(count) * factor + margin if centres is None else centres
        depth = int(centres[-1]) + 1 + margin
        columns = np.clip(centres[:, None] + offsets[None, :], 0, depth - 1)
        rows = np.broadcast_to(np.arange(count)[:, None], columns.shape)
        values = np.broadcast_to(weights[None, :], columns.shape)
        self._matrix = csr_matrix((values.ravel(), (rows.ravel(), columns.ravel())), shape=(count, depth), dtype=np.float32)
        self._spline = self._spline_weights(np.clip(np.arange(depth), centres[0], centres[-1]), centres)

    def average(self, volume: Slices) -> Slices:
        """:param volume: (T, H, W) on the dense grid. :return: float32 (S, H, W), what the scanner would have acquired."""
        return _applied(self._matrix, volume)

    def spread(self, slices: Slices) -> Slices:
        """Smooth interpolation of (S, H, W) onto the dense grid by a natural cubic spline. :return: float32 (T, H, W)."""
        return _applied(self._spline, slices)

    def consistent(self, volume: Slices, slices: Slices, iterations: int) -> Slices:
        """Back-projection V <- V + U(y - A V) (Irani and Peleg 1991) with the cubic spline as U.

        All iterations are summed among the slices first, since the residual of the next one is (1 - A U) times that of the last.

        :return: float32 (T, H, W).
        """
        shrinking = np.eye(len(slices), dtype=np.float32) - self._matrix @ self._spline
        total = np.zeros_like(shrinking)
        power = np.eye(len(slices), dtype=np.float32)
        for _ in range(iterations):
            total += power
            power = power @ shrinking
        return volume + self.spread(_applied(total, slices - self.average(volume)))

    @staticmethod
    def _spline_weights(grid: NDArray[np.int64], centres: NDArray[np.int64]) -> NDArray[np.float32]:
        """(T, S) weights of the slices in the spline through them at ``grid``."""
        count = len(centres)
        if count == 1:
            return np.ones((len(grid), 1), np.float32)
        degree, ends = (3, "natural") if count >= 4 else (1, None)
        return make_interp_spline(centres, np.eye(count), k=degree, bc_type=ends)(grid).astype(np.float32)


def _applied(matrix: csr_matrix | NDArray[np.float32], stack: Slices) -> Slices:
    """A matrix along the first axis of (N, H, W)."""
    flat = matrix @ stack.reshape(len(stack), -1)
    return np.asarray(flat, np.float32).reshape(-1, *stack.shape[1:])


def back_project(
    volume: Slices,
    slices: Slices,
    profile: SliceProfile,
    factor: int,
    iterations: int = 10,
    centres: NDArray[np.int64] | None = None,
) -> Slices:
    """Make a dense volume reproduce the acquired thick slices when it is averaged over their profile.

    :param volume: (T, H, W), from the first slice's centre to the last one's.
    :param slices: (S, H, W) acquired averages.
    :param profile: of the acquired slices.
    :param factor: sub-slices per gap.
    :param iterations: 10 leave a residual far below image noise.
    :param centres: see :class:`ProfileOperator`.
    :return: float32 (T, H, W).
    """
    return ProfileOperator(profile, len(slices), factor, centres=centres).consistent(volume, slices, iterations)


def filled_as_annotated(
    distances: Slices, shares: Slices, annotated: NDArray[np.bool_], profile: SliceProfile, factor: int, iterations: int = 20
) -> Slices:
    """Make the signed distances of a segment fill the slab of each annotated slice to the share that its partial-volume mask shows.

    With the distance q in soft widths, a voxel is filled to c(q) = clip(1/2 + q, 0, 1). Back-projection as of images then is
    q <- q + G U(y - A c(q)), A the average over the profile, U the cubic spline of :class:`ProfileOperator`, G a narrow Gaussian in the
    plane; without G a step is Newton's where the contour runs through all sub-slices of a slab.

    :param distances: (T, H, W), T = (S - 1) * factor + 1, positive inside, in px.
    :param shares: (S, H, W), the filled share of each pixel's slab, 0..1.
    :param annotated: bool (S,), the slices whose shares are to be believed.
    :param profile: of the slices.
    :param factor: sub-slices per gap.
    :return: float32 (T, H, W), in px.
    """
    operator = ProfileOperator(profile, len(shares), factor)
    widths = np.clip(distances / SOFT_WIDTH_PX, -CERTAIN_WIDTHS, CERTAIN_WIDTHS).astype(np.float32)
    believed = annotated[:, None, None]
    for _ in range(iterations):
        missing = np.where(believed, shares - operator.average(np.clip(0.5 + widths, 0.0, 1.0)), np.float32(0.0))
        widths += operator.spread(gaussian_filter(missing, FILLING_SMOOTHNESS_PX, axes=(1, 2)))
    return widths * np.float32(SOFT_WIDTH_PX)
