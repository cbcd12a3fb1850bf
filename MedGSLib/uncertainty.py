"""How far to trust a result: 90 % bands of the image values and of the surface position, scaled by what the self-check measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.dense import way_to_slices
from MedGSLib.geometry import is_evenly_spaced, transform_points
from MedGSLib.mesh import POSITION_ARRAY
from MedGSLib.preparation import Preparation, gap_over_pixel
from MedGSLib.prior.image_config import Sampling
from MedGSLib.prior.thickness_check import noise_variance
from MedGSLib.self_check import SelfCheck, checked_part

USUAL_SIGNAL_SHARE = 0.5
"""Interpolation error at the distance of the acquired slices relative to that at twice the distance, where the self-check measures, of
stacks of which nothing else is known. Noise does not shrink with the distance."""
LEAST_SIGNAL_SHARE, SIGNAL_SHARE_OF_GROWTH = 0.2, 0.5
"""The same for stacks whose growth of the error can be seen, as a straight line in it: where slices have little in common with each
other any more, the error hardly grows. Fitted to 47 development and validation runs, of which 41 instead of 35 then had about 85 to 95 % of
the errors inside."""
RISE_ACROSS_WIDE_GAPS = 0.5
"""How far the share rises towards 1 where slices lie more than ten pixels apart: there half the distance is hardly better known than the
whole. In five development runs the bands are then 0.91 to 1.02 times as wide as they should be, 0.61 to 0.86 without it."""
FEWEST_SLICES = 6
NOISE_TOLERANCE = 0.05
"""Squared differences that exceed those of noise by less than this part are noise."""
NOISE_Q90 = 1.645
"""90 % quantile of the absolute value of unit normal noise."""
HALF_WAY = 0.9
POSITION_SHARE = 0.28
"""Position error of vertices between annotated slices, relative to the geometric mean of a pixel and of the error of contours that the
self-check measures at twice the distance. Found on six development runs: contours of surfaces that lie flat in a slice are far off where
the surface itself is not, so the error of the surface grows more slowly than that of its contours."""
PIXEL_SHARE = 0.25
"""Position uncertainty on an annotated slice, in pixels: what smoothing the staircase of a mask moves its surface by."""
UNCHECKED_DOUBT_FACTOR = 2.6
"""Band relative to the doubt where no self-check was made; it is not calibrated and reported as such."""
UNCHECKED_POSITION_SHARE = 0.15
"""Position uncertainty half-way between annotated slices, in slice gaps, where no self-check was made."""


def image_band(doubt: NDArray[np.float32], prepared: Preparation, check: SelfCheck | None) -> NDArray[np.float32]:
    """Half-width of the 90 % band of the normalised image, 0 on acquired slices.

    A voxel's doubt is compared with that of the other voxels half-way between slices, in the part of the image that was checked; the error
    that the self-check measured where doubt had the same rank is split into noise, which stays, and interpolation error, which shrinks.

    :param doubt: (T, H, W) on the output grid, see :class:`MedGSLib.self_check.LeftOutResult`.
    :return: float32 (T, H, W).
    """
    way = way_to_slices(prepared.grid.positions_mm, prepared.stack.positions_mm)
    if check is None or not check.doubt_bins:
        band = UNCHECKED_DOUBT_FACTOR * doubt
    else:
        assert prepared.slices is not None
        measured = np.interp(doubt, _doubt_of_ranks(doubt, way, prepared, len(check.error_bins)), check.error_bins)
        noise = NOISE_Q90 * noise_variance(np.clip(prepared.slices, 0.0, 1.0)) ** 0.5
        share = signal_share(prepared.slices, prepared.stack.coordinates)
        share += RISE_ACROSS_WIDE_GAPS * Sampling(1, gap_over_pixel(prepared.stack), prepared.profile).wideness * (1.0 - share)
        band = np.hypot(share * measured, (1.0 - share**2) ** 0.5 * np.minimum(measured, noise))
    if prepared.profile.kind != "point":
        way = np.ones_like(way)
    return (band * way[:, None, None]).astype(np.float32)


def signal_share(slices: NDArray[np.float32], coordinates: NDArray[np.float64]) -> float:
    """Interpolation error at the distance of the slices, relative to that at twice the distance, from how the slices themselves grow apart.

    :param slices: (S, H, W), normalised. :param coordinates: (S,) in gaps.
    :return: :data:`USUAL_SIGNAL_SHARE` for slices that are too few, unevenly spaced, or nothing but noise.
    """
    if len(slices) < FEWEST_SLICES or not is_evenly_spaced(coordinates):
        return USUAL_SIGNAL_SHARE
    seen = np.clip(slices, 0.0, 1.0)
    noise = 1.5 * noise_variance(seen)
    near, far = (_squared_bend(seen, step) for step in (1, 2))
    if far - noise <= NOISE_TOLERANCE * far:
        return USUAL_SIGNAL_SHARE
    growth = max(near - noise, 0.0) / (far - noise)
    return min(LEAST_SIGNAL_SHARE + SIGNAL_SHARE_OF_GROWTH * growth, 1.0)


def _squared_bend(slices: NDArray[np.float32], step: int) -> float:
    """Mean squared difference of a slice from the mean of those ``step`` before and behind it; white noise contributes 1.5 variances."""
    return float(np.mean((slices[step:-step] - (slices[: -2 * step] + slices[2 * step :]) / 2) ** 2))


def _doubt_of_ranks(doubt: NDArray[np.float32], way: NDArray[np.float64], prepared: Preparation, count: int) -> NDArray[np.float64]:
    """Medians of ``count`` equally filled bins of the doubt half-way between slices, in the part of the stack that the self-check takes."""
    slices, rows, columns = checked_part(prepared.stack)
    first, last = prepared.stack.positions_mm[[slices.start, slices.stop - 1]]
    inside = (prepared.grid.positions_mm >= first) & (prepared.grid.positions_mm <= last)
    chosen = inside & (way > HALF_WAY)
    seen = doubt[chosen if chosen.any() else inside][:, rows, columns]
    return np.quantile(seen, (np.arange(count) + 0.5) / count)


def position_error_mm(prepared: Preparation, label: str, check: SelfCheck | None) -> float:
    """The 90 % quantile of the surface's position error half-way between annotated slices, in mm."""
    measured = measured_error_mm(label, check)
    if measured is None:
        return UNCHECKED_POSITION_SHARE * float(np.median(np.diff(_annotated_mm(prepared)), axis=0)) if _several(prepared) else 0.0
    return POSITION_SHARE * float(np.sqrt(measured * max(prepared.stack.pixel_mm)))


def measured_error_mm(label: str, check: SelfCheck | None) -> float | None:
    """The 90 % quantile of the contour's error that the self-check measured, or None where it could not."""
    measured = None if check is None else check.masks.get(label, {}).get("contour_error_q90_mm")
    return measured if measured is not None and np.isfinite(measured) else None


def add_position_band(surface: vtkPolyData, prepared: Preparation, label: str, check: SelfCheck | None) -> NDArray[np.float64]:
    """Put the half-width of the 90 % band of the position, in mm, on each vertex as the point array ``PositionUncertaintyMm``.

    :param surface: RAS mm.
    :return: the values (N,).
    """
    points = vtk_to_numpy(surface.GetPoints().GetData())
    along_mm = transform_points(np.linalg.inv(prepared.stack.plane_to_ras), points)[:, 2]
    way = way_to_slices(along_mm, _annotated_mm(prepared))
    floor = PIXEL_SHARE * max(prepared.stack.pixel_mm)
    values = np.hypot(floor, position_error_mm(prepared, label, check) * way)
    array = numpy_to_vtk(values.astype(np.float32), deep=True)
    array.SetName(POSITION_ARRAY)
    surface.GetPointData().AddArray(array)
    return values


def _annotated_mm(prepared: Preparation) -> NDArray[np.float64]:
    return prepared.stack.positions_mm[prepared.stack.annotated]


def _several(prepared: Preparation) -> bool:
    return int(prepared.stack.annotated.sum()) > 1
