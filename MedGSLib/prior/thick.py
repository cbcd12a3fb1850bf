"""Thick slices: the averaging of the dense volume over the slice profile, and making a volume consistent with the acquired averages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.sparse import csr_matrix

from MedGSLib.prior.profile import SliceProfile

Slices = NDArray[np.float32]


class ProfileOperator:
    """Average of a dense volume over the profile of each acquired slice, y_k = sum_j w_j V(k * factor + j).

    The dense grid has ``factor`` sub-slices per gap and reaches from ``margin`` sub-slices before the first slice centre to ``margin``
    behind the last one; where the profile reaches further, the outermost sub-slice is repeated.

    :param profile: of the acquired slices.
    :param count: number of acquired slices S.
    :param factor: sub-slices per gap.
    :param margin: sub-slices before the first and behind the last centre.
    """

    def __init__(self, profile: SliceProfile, count: int, factor: int, margin: int = 0) -> None:
        offsets, weights = profile.weights(factor)
        depth = (count - 1) * factor + 1 + 2 * margin
        centres = np.arange(count) * factor + margin
        columns = np.clip(centres[:, None] + offsets[None, :], 0, depth - 1)
        rows = np.broadcast_to(np.arange(count)[:, None], columns.shape)
        values = np.broadcast_to(weights[None, :], columns.shape)
        self._matrix = csr_matrix((values.ravel(), (rows.ravel(), columns.ravel())), shape=(count, depth), dtype=np.float32)
        self._spline = self._spline_weights(np.clip((np.arange(depth) - margin) / factor, 0, count - 1), count)

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
    def _spline_weights(grid: NDArray[np.float64], count: int) -> NDArray[np.float32]:
        """(T, S) weights of the slices in the spline through them at ``grid``."""
        if count == 1:
            return np.ones((len(grid), 1), np.float32)
        degree, ends = (3, "natural") if count >= 4 else (1, None)
        return make_interp_spline(np.arange(count), np.eye(count), k=degree, bc_type=ends)(grid).astype(np.float32)


def _applied(matrix: csr_matrix | NDArray[np.float32], stack: Slices) -> Slices:
    """A matrix along the first axis of (N, H, W)."""
    flat = matrix @ stack.reshape(len(stack), -1)
    return np.asarray(flat, np.float32).reshape(-1, *stack.shape[1:])


def back_project(volume: Slices, slices: Slices, profile: SliceProfile, factor: int, iterations: int = 10) -> Slices:
    """Make a dense volume reproduce the acquired thick slices when it is averaged over their profile.

    :param volume: (T, H, W), T = (S - 1) * factor + 1, from the first slice's centre to the last one's.
    :param slices: (S, H, W) acquired averages.
    :param profile: of the acquired slices.
    :param factor: sub-slices per gap.
    :param iterations: 10 leave a residual far below image noise.
    :return: float32 (T, H, W).
    """
    return ProfileOperator(profile, len(slices), factor).consistent(volume, slices, iterations)
