"""Image interpolation between slices without learning, at any, also irregular, slice coordinates.

Every function takes slices (S, H, W), their increasing coordinates (S,) and the wanted coordinates (T,), and returns float32 (T, H, W).
Outside the stack the outermost slice is repeated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from MedGSLib.prior.flow import flow_interpolate
from MedGSLib.prior.profile import SliceProfile
from MedGSLib.prior.thick import back_project

Slices = NDArray[np.float32]
Coordinates = NDArray[np.float64]
Interpolator = Callable[[Slices, Coordinates, Coordinates], Slices]

BACK_PROJECTIONS = 10


def linear(slices: Slices, coordinates: Coordinates, wanted: Coordinates) -> Slices:
    """Linear blend of the two neighbours."""
    index = fractional_index(coordinates, wanted)
    lower = np.minimum(index.astype(np.int64), max(len(slices) - 2, 0))
    upper = np.minimum(lower + 1, len(slices) - 1)
    fraction = (index - lower).astype(np.float32)[:, None, None]
    return (1 - fraction) * slices[lower] + fraction * slices[upper]


def cubic(slices: Slices, coordinates: Coordinates, wanted: Coordinates) -> Slices:
    """Interpolating cubic B-spline along the stack, natural ends; of lower degree for fewer than four slices."""
    if len(slices) < 4:
        degree = len(slices) - 1
        spline = make_interp_spline(coordinates, slices, k=degree) if degree else None
    else:
        spline = make_interp_spline(coordinates, slices, k=3, bc_type="natural")
    if spline is None:
        return np.repeat(slices, len(wanted), axis=0)
    return spline(np.clip(wanted, coordinates[0], coordinates[-1])).astype(np.float32)


def sinc(slices: Slices, coordinates: Coordinates, wanted: Coordinates) -> Slices:
    """Lanczos-windowed sinc along the stack (SimpleITK); irregular gaps are first mapped to slice numbers."""
    count, height, width = slices.shape
    lines = sitk.GetImageFromArray(np.ascontiguousarray(slices.transpose(1, 2, 0)).reshape(height * width, count))
    out = np.empty((len(wanted), height, width), np.float32)
    for row, index in enumerate(fractional_index(coordinates, wanted)):
        column = sitk.Resample(
            lines, (1, height * width), sitk.Transform(), sitk.sitkLanczosWindowedSinc, (float(index), 0.0), (1.0, 1.0),
            (1.0, 0.0, 0.0, 1.0), 0.0, sitk.sitkFloat32,
        )  # fmt: skip
        out[row] = sitk.GetArrayFromImage(column).reshape(height, width)
    return out


def flow_tvl1(slices: Slices, coordinates: Coordinates, wanted: Coordinates) -> Slices:
    """Motion compensation with TV-L1 optical flow (scikit-image)."""
    return flow_interpolate(slices, coordinates, wanted, "tvl1")


def flow_dis(slices: Slices, coordinates: Coordinates, wanted: Coordinates) -> Slices:
    """Motion compensation with dense inverse search (OpenCV)."""
    return flow_interpolate(slices, coordinates, wanted, "dis")


INTERPOLATORS: dict[str, Interpolator] = {
    "linear": linear,
    "cubic": cubic,
    "sinc": sinc,
    "flow_tvl1": flow_tvl1,
    "flow_dis": flow_dis,
}


def cubic_back_projection(slices: Slices, factor: int, profile: SliceProfile) -> Slices:
    """Cubic interpolation of thick slices, then made consistent with them.

    :param slices: (S, H, W) averages over ``profile``.
    :return: float32 ((S - 1) * factor + 1, H, W), from the first slice's centre to the last one's.
    """
    return _back_projected(cubic, slices, factor, profile)


def flow_back_projection(slices: Slices, factor: int, profile: SliceProfile) -> Slices:
    """TV-L1 flow interpolation of thick slices, then made consistent with them; shapes as in :func:`cubic_back_projection`."""
    return _back_projected(flow_tvl1, slices, factor, profile)


def _back_projected(interpolate: Interpolator, slices: Slices, factor: int, profile: SliceProfile) -> Slices:
    coordinates = np.arange(len(slices), dtype=np.float64)
    wanted = np.arange((len(slices) - 1) * factor + 1) / factor
    return back_project(interpolate(slices, coordinates, wanted), slices, profile, factor, BACK_PROJECTIONS)


def fractional_index(coordinates: Coordinates, wanted: Coordinates) -> NDArray[np.float64]:
    """Slice number (fractional, 0..S-1) of each wanted coordinate."""
    return np.interp(wanted, coordinates, np.arange(len(coordinates), dtype=np.float64))
