"""Where voxels lie in the patient: 4x4 float64 ijkToRas matrices, slice axes and the dense output grid.

Everything inside the library is RAS millimetres. Files are LPS; :func:`flip_ras_lps` is the only place where the two meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from MedGSLib.errors import InputError

Matrix = NDArray[np.float64]

AXIS_NAMES = ("i", "j", "k")
UNIFORM_TOLERANCE = 0.01
"""Spacings that differ by less than this fraction count as equal, and so do places that differ by this fraction of a gap."""
ROUNDED_MM = 0.1
"""How far a slice whose header is rounded to 0.1 mm may seem to lie from its place on a regular grid that starts at another such slice."""
LATTICE_TOLERANCE = 0.1
"""Slices within this fraction of a gap from the planes of a regular grid belong to it."""
LEAST_GAP_SHARE = 0.25
"""A smallest gap below this part of the median gap is a slice out of place and not the gap of the stack."""
MOST_SLICES = 100_000
"""More output slices than this are a slip of the pen."""
_ROUNDING_MM = 1e-6
"""Of sums of floating-point numbers."""


def flip_ras_lps(coordinates: NDArray[np.floating]) -> NDArray[np.float64]:
    """Convert between RAS and LPS; the conversion is its own inverse.

    :param coordinates: a 4x4 affine (index to mm), or points of shape ``(..., 3)`` in mm.
    :return: a float64 copy in the other frame.

    >>> flip_ras_lps(np.array([1.0, 2.0, 3.0]))
    array([-1., -2.,  3.])
    """
    flipped = np.array(coordinates, dtype=np.float64)
    if flipped.shape == (4, 4):
        flipped[:2] *= -1.0
    else:
        flipped[..., :2] *= -1.0
    return flipped


def transform_points(matrix: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Apply a 4x4 affine to points of shape ``(..., 3)``."""
    return np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def spacing(ijk_to_ras: Matrix) -> NDArray[np.float64]:
    """:return: the voxel spacing in mm along i, j, k, shape ``(3,)``."""
    return np.linalg.norm(ijk_to_ras[:3, :3], axis=0)


def with_slice_gap(ijk_to_ras: Matrix, gap_mm: float) -> Matrix:
    """The same grid with slices ``gap_mm`` apart along k; the first one stays."""
    matrix = ijk_to_ras.copy()
    matrix[:3, 2] *= gap_mm / spacing(ijk_to_ras)[2]
    return matrix


def shifted_origin(ijk_to_ras: Matrix, start_ijk: Sequence[float]) -> Matrix:
    """:return: the matrix of a crop that starts at voxel ``start_ijk`` of the given one."""
    moved = ijk_to_ras.copy()
    moved[:3, 3] = transform_points(ijk_to_ras, np.asarray(start_ijk, dtype=np.float64))
    return moved


def slice_axis(ijk_to_ras: Matrix, shape_ijk: Sequence[int], choice: str = "auto") -> int:
    """The array axis (0 = i, 1 = j, 2 = k) along which the slices are stacked.

    ``auto`` takes the axis of the largest spacing; equal spacings (within 1 %) mean k.

    :raises InputError: if ``choice`` is unknown or the axis has fewer than two slices.
    """
    if choice == "auto":
        if min(shape_ijk) < 2:
            size = " x ".join(str(count) for count in shape_ijk)
            raise InputError(f"The volume of {size} voxels is a single slice, and at least 2 are needed to reconstruct between.")
        mm = spacing(ijk_to_ras)
        axis = 2 if mm[2] >= mm.max() * (1.0 - UNIFORM_TOLERANCE) else int(np.argmax(mm))
    elif choice in AXIS_NAMES:
        axis = AXIS_NAMES.index(choice)
    else:
        raise InputError(f"The slice axis '{choice}' is none of auto, i, j, k.")
    if shape_ijk[axis] < 2:
        raise InputError(
            f"The volume has {shape_ijk[axis]} slice along {AXIS_NAMES[axis]}, and at least 2 are needed to reconstruct between."
        )
    return axis


def stack_order(axis: int) -> Tuple[int, int, int]:
    """Axes of a ``[k, j, i]`` array in the order (slice, row, column) for slices along ``axis`` (0 = i, 1 = j, 2 = k)."""
    return ((2, 0, 1), (1, 0, 2), (0, 1, 2))[axis]


def stack_columns(axis: int) -> Tuple[int, int, int]:
    """Columns of ijkToRas that belong to (column, row, slice) of a stack along ``axis``; the counterpart of :func:`stack_order`."""
    slice_kji, row_kji, column_kji = stack_order(axis)
    return 2 - column_kji, 2 - row_kji, 2 - slice_kji


@dataclass(frozen=True)
class OutputGrid:
    """The slices of a dense reconstruction.

    ``positions_mm`` (T,) lie at a regular ``spacing_mm`` along the stack, counted from the first acquired slice;
    ``acquired[s]`` is the output slice that lies on acquired slice s, or -1 where none does (irregular stacks only).
    """

    positions_mm: NDArray[np.float64]
    spacing_mm: float
    acquired: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions_mm)


def default_scale(gap_mm: float, pixel_mm: float, largest: int = 8) -> int:
    """The subdivision of a slice gap that comes closest to cubic voxels, from 1 to ``largest``."""
    return int(np.clip(round(gap_mm / pixel_mm), 1, largest))


def lattice(positions_mm: NDArray[np.float64]) -> Optional[Tuple[float, NDArray[np.int64]]]:
    """The gap of a regular grid on which slices lie, some perhaps missing, and the place (S,) of each on it.

    :param positions_mm: slice positions (S,), increasing from 0, at least 2.
    :return: None for slices that lie on no such grid within ``LATTICE_TOLERANCE``.
    """
    gaps = np.diff(positions_mm)
    if gaps.min() < LEAST_GAP_SHARE * float(np.median(gaps)):
        return None
    places = np.concatenate([[0], np.cumsum(np.round(gaps / gaps.min()).astype(np.int64))])
    gap = float(positions_mm[-1] / places[-1])
    apart = np.abs(positions_mm - places * gap)
    return (gap, places) if apart.max() <= LATTICE_TOLERANCE * gap + _ROUNDING_MM else None


def place_tolerance(gap_mm: float) -> float:
    """How far (mm) a slice may lie from a plane to count as lying on it: as much as the rounding in headers explains."""
    return max(UNIFORM_TOLERANCE * gap_mm, min(ROUNDED_MM, LATTICE_TOLERANCE * gap_mm)) + _ROUNDING_MM


def plane_tolerance(positions_mm: NDArray[np.float64]) -> float:
    """How far (mm) an output slice may lie from an acquired one and show it.

    :param positions_mm: of the acquired slices (S,), increasing from 0, at least 2.
    """
    found = lattice(positions_mm)
    return UNIFORM_TOLERANCE * float(np.median(np.diff(positions_mm))) + _ROUNDING_MM if found is None else place_tolerance(found[0])


def is_evenly_spaced(positions: NDArray[np.float64]) -> bool:
    """Whether each gap of slices at ``positions`` (S,), at least 2, in any unit, is the mean gap but for ``UNIFORM_TOLERANCE`` of it."""
    gaps = np.diff(positions)
    return bool(np.abs(gaps - gaps.mean()).max() <= UNIFORM_TOLERANCE * gaps.mean())


def regular_gap(positions_mm: NDArray[np.float64]) -> Optional[float]:
    """The gap (mm) of slices that are evenly spaced from the first to the last; None of others.

    :param positions_mm: slice positions (S,), increasing from 0, at least 2.
    """
    gap = float(positions_mm[-1] / (len(positions_mm) - 1))
    apart = np.abs(positions_mm - np.arange(len(positions_mm)) * gap)
    return gap if apart.max() <= place_tolerance(gap) else None


def output_grid(positions_mm: NDArray[np.float64], scale: Optional[int] = None, spacing_mm: Optional[float] = None) -> OutputGrid:
    """The regular grid of output slices that contains every acquired slice plane.

    With ``scale`` K, S uniform slices become (S-1)*K+1 and output slice i*K lies on acquired slice i. A wanted ``spacing_mm`` is
    met as closely as a whole number of subdivisions allows. Missing slices (gaps that are multiples of the smallest) stay on the
    grid too; other irregular stacks get the regular grid of the median gap, and the planes it misses are marked -1.

    :param positions_mm: acquired slice positions (S,), increasing, the first 0.
    :raises InputError: if neither or both of scale and spacing are given, or one is not positive.
    """
    if (scale is None) == (spacing_mm is None):
        raise InputError("Give either a scale or a slice spacing for the output.")
    found = lattice(positions_mm)
    base = float(np.median(np.diff(positions_mm))) if found is None else found[0]
    if spacing_mm is not None:
        if spacing_mm <= 0:
            raise InputError(f"The output spacing must be positive, not {spacing_mm:g} mm.")
        scale = max(1, round(base / spacing_mm))
    assert scale is not None
    if scale < 1:
        raise InputError(f"The output scale must be a whole number of at least 1, not {scale}.")
    step = base / scale
    if positions_mm[-1] / step >= MOST_SLICES:
        raise InputError(f"The result would have {positions_mm[-1] / step:.0f} slices; choose a smaller scale or a wider spacing.")
    count = int(np.floor(positions_mm[-1] / step + UNIFORM_TOLERANCE)) + 1
    grid = np.arange(count, dtype=np.float64) * step
    nearest = np.clip(np.round(positions_mm / step).astype(np.int64), 0, count - 1)
    on_grid = np.abs(grid[nearest] - positions_mm) <= plane_tolerance(positions_mm)
    return OutputGrid(grid, step, np.where(on_grid, nearest, -1))
