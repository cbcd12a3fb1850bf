"""Motion-compensated interpolation: optical flow between neighbouring slices and warping to the plane between them."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter
from skimage.registration import optical_flow_tvl1

from MedGSLib.progress import Reporter

FlowMethod = Literal["tvl1", "dis"]
Image = NDArray[np.float32]

SMALLEST_SIDE = 16
"""Below this many pixels a flow pyramid has nothing to match; the motion is then taken as zero."""
DIS_LARGEST_VALUE = 255


def optical_flow(fixed: Image, moving: Image, method: FlowMethod = "tvl1") -> Image:
    """Displacement f with ``fixed(x) = moving(x + f(x))``.

    :param fixed: (H, W), normalised intensities.
    :param moving: (H, W).
    :param method: ``tvl1`` (Wedel et al. 2009, as in scikit-image) or ``dis`` (Kroeger et al. 2016, as in OpenCV).
    :return: float32 (2, H, W), row and column displacement in px; zero where the slices are too small to match.
    """
    if min(fixed.shape) < SMALLEST_SIDE or np.ptp(fixed) == 0 or np.ptp(moving) == 0:
        return np.zeros((2, *fixed.shape), np.float32)
    if method == "tvl1":
        return np.asarray(optical_flow_tvl1(fixed, moving, attachment=15, tightness=0.3, num_warp=5, num_iter=10), np.float32)
    matcher = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    matcher.setFinestScale(0)
    matcher.setVariationalRefinementIterations(10)
    first, second = (np.rint(np.clip(image, 0, 1) * DIS_LARGEST_VALUE).astype(np.uint8) for image in (fixed, moving))
    column_row = matcher.calc(first, second, None)  # type: ignore[call-overload]
    return np.ascontiguousarray(column_row[..., ::-1].transpose(2, 0, 1), np.float32)


class SlicePair:
    """Two neighbouring slices and the motion between them, ready to be interpolated at any fraction of their distance.

    :param first: (H, W).
    :param second: (H, W).
    """

    def __init__(self, first: Image, second: Image, method: FlowMethod = "tvl1") -> None:
        self._splines = tuple(spline_filter(image, order=3, mode="mirror") for image in (first, second))
        self._forward = optical_flow(first, second, method)
        self._backward = optical_flow(second, first, method)
        self._grid = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)

    def at(self, fraction: float) -> Image:
        """The slice at ``fraction`` (0 = first, 1 = second) of the way.

        The flows seen from there follow the quadratic model of Super SloMo (Jiang et al. 2018, eq. 4).

        :return: float32 (H, W).
        """
        a = float(fraction)
        to_first = -(1 - a) * a * self._forward + a * a * self._backward
        to_second = (1 - a) ** 2 * self._forward - a * (1 - a) * self._backward
        return (1 - a) * self._warp(0, to_first) + a * self._warp(1, to_second)

    def _warp(self, which: int, displacement: Image) -> Image:
        positions = self._grid + displacement
        for axis in (0, 1):
            np.clip(positions[axis], 0, positions.shape[1 + axis] - 1, out=positions[axis])
        return map_coordinates(self._splines[which], positions, output=np.float32, order=3, mode="mirror", prefilter=False)


def flow_interpolate(
    slices: Image,
    coordinates: NDArray[np.float64],
    wanted: NDArray[np.float64],
    method: FlowMethod = "tvl1",
    reporter: Reporter | None = None,
) -> Image:
    """Slices at any coordinates by motion compensation between the two acquired neighbours.

    :param slices: (S, H, W), S >= 2.
    :param coordinates: (S,), increasing.
    :param wanted: (T,); outside the stack the nearest slice is repeated.
    :return: float32 (T, H, W).
    """
    gaps = np.clip(np.searchsorted(coordinates, wanted, side="right") - 1, 0, len(coordinates) - 2)
    fractions = np.clip((wanted - coordinates[gaps]) / (coordinates[gaps + 1] - coordinates[gaps]), 0, 1)
    out = np.empty((len(wanted), *slices.shape[1:]), np.float32)
    for done, gap in enumerate(np.unique(gaps)):
        inside = np.flatnonzero(gaps == gap)
        moving = inside[(fractions[inside] > 0) & (fractions[inside] < 1)]
        pair = SlicePair(slices[gap], slices[gap + 1], method) if len(moving) else None
        for index in inside:
            fraction = fractions[index]
            out[index] = pair.at(fraction) if pair is not None and 0 < fraction < 1 else slices[gap + int(fraction >= 1)]
        if reporter is not None:
            reporter.step(done + 1)
    return out
