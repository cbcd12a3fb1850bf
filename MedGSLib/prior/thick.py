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
        self._grid = np.clip((np.arange(depth) - margin) / factor, 0, count - 1)

    def average(self, volume: Slices) -> Slices:
        """:param volume: (T, H, W) on the dense grid. :return: float32 (S, H, W), what the scanner would have acquired."""
        flat = self._matrix @ volume.reshape(len(volume), -1)
        return flat.reshape(-1, *volume.shape[1:]).astype(np.float32, copy=False)

    def spread(self, slices: Slices) -> Slices:
        """Smooth interpolation of (S, H, W) onto the dense grid by a natural cubic spline. :return: float32 (T, H, W)."""
        if len(slices) == 1:
            return np.repeat(slices, len(self._grid), axis=0)
        degree = 3 if len(slices) >= 4 else 1
        ends = "natural" if degree == 3 else None
        return make_interp_spline(np.arange(len(slices)), slices, k=degree, bc_type=ends)(self._grid).astype(np.float32)

    def consistent(self, volume: Slices, slices: Slices, iterations: int) -> Slices:
        """Back-projection V <- V + U(y - A V) (Irani and Peleg 1991) with the cubic spline as U. :return: float32 (T, H, W)."""
        for _ in range(iterations):
            volume = volume + self.spread(slices - self.average(volume))
        return volume


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
