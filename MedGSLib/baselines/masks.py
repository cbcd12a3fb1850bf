"""Mask interpolation that a user would pick instead: nearest slice, signed distances, morphological contour interpolation.

All take ``occupancy`` bool (S, H, W) at increasing ``coordinates`` (S,), regular or not, and return a float32 field (T, H, W) at the
``wanted`` positions (T,); positions beyond the first or last slice get that slice. The surface lies at :data:`ISO_LEVELS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from MedGSLib.baselines.contour_process import interpolate_contours
from MedGSLib.errors import InputError
from MedGSLib.prior.mask_distance import slice_signed_distances

Field = NDArray[np.float32]
MaskMethod = Callable[[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]], Field]

_LARGEST_GRID = 4096


def nearest(occupancy: NDArray[np.bool_], coordinates: NDArray[np.float64], wanted: NDArray[np.float64]) -> Field:
    """The nearest slice as it is, 0 or 1; of two equally near ones the later."""
    coordinates = np.asarray(coordinates, np.float64)
    borders = (coordinates[:-1] + coordinates[1:]) / 2
    return (np.asarray(occupancy)[np.searchsorted(borders, wanted, side="right")] >= 0.5).astype(np.float32)


def sdf_linear(
    occupancy: NDArray[np.bool_],
    coordinates: NDArray[np.float64],
    wanted: NDArray[np.float64],
    pixel_mm: Sequence[float] = (1.0, 1.0),
) -> Field:
    """Linear interpolation of the slices' signed distances in px (shape-based interpolation, Raya and Udupa 1990)."""
    return interpolate_linear(slice_signed_distances(occupancy, pixel_mm=pixel_mm), coordinates, wanted)


def sdf_cubic(
    occupancy: NDArray[np.bool_],
    coordinates: NDArray[np.float64],
    wanted: NDArray[np.float64],
    pixel_mm: Sequence[float] = (1.0, 1.0),
) -> Field:
    """Natural cubic spline through the slices' signed distances in px; linear where there are only two slices."""
    return interpolate_cubic(slice_signed_distances(occupancy, pixel_mm=pixel_mm), coordinates, wanted)


def interpolate_linear(distances: Field, coordinates: NDArray[np.float64], wanted: NDArray[np.float64]) -> Field:
    """Linear interpolation along the stack of ``distances`` (S, H, W) given at ``coordinates`` (S,)."""
    if len(coordinates) == 1:
        return np.repeat(distances, len(wanted), axis=0)
    inside = np.clip(wanted, coordinates[0], coordinates[-1])
    before = np.clip(np.searchsorted(coordinates, inside, side="right") - 1, 0, len(coordinates) - 2)
    share = ((inside - coordinates[before]) / (coordinates[before + 1] - coordinates[before])).astype(np.float32)[:, None, None]
    return (1 - share) * distances[before] + share * distances[before + 1]


def interpolate_cubic(distances: Field, coordinates: NDArray[np.float64], wanted: NDArray[np.float64]) -> Field:
    """Natural cubic spline along the stack through ``distances`` (S, H, W) given at ``coordinates`` (S,)."""
    if len(coordinates) < 3:
        return interpolate_linear(distances, coordinates, wanted)
    inside = np.clip(wanted, coordinates[0], coordinates[-1])
    return CubicSpline(coordinates, distances, axis=0, bc_type="natural")(inside).astype(np.float32)


def morphological(occupancy: NDArray[np.bool_], coordinates: NDArray[np.float64], wanted: NDArray[np.float64]) -> Field:
    """ITK morphological contour interpolation, 0 or 1: what "Fill between slices" of the Segment Editor does.

    The slices are put on a regular grid fine enough for both the given and the wanted positions.

    :raises InputError: if the ``itk-morphologicalcontourinterpolation`` package is not installed.
    """
    coordinates, wanted = np.asarray(coordinates, np.float64), np.asarray(wanted, np.float64)
    step = _grid_step(coordinates, wanted)
    places = np.rint((coordinates - coordinates[0]) / step).astype(int)
    masks = np.asarray(occupancy) >= 0.5
    # the filter finds the annotated slices by their being non-empty, and fails on volumes with fewer than two of them
    grid = np.zeros((places[-1] + 1, *masks.shape[1:]), np.uint8)
    grid[places] = masks
    if np.count_nonzero(masks.any(axis=(1, 2))) >= 2:
        filled = interpolate_contours(grid)
        if filled is None:
            raise InputError(
                "Morphological contour interpolation needs the package itk-morphologicalcontourinterpolation "
                "(pip install medgs[benchmark])."
            )
        grid = filled
    index = np.clip(np.rint((wanted - coordinates[0]) / step).astype(int), 0, len(grid) - 1)
    return (grid[index] > 0).astype(np.float32)


def _grid_step(coordinates: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """The largest step, a whole fraction of the smallest distance of two positions, whose grid meets all positions; else a fine one."""
    positions = np.unique(np.concatenate([coordinates, np.clip(wanted, coordinates[0], coordinates[-1])]).round(6))
    offsets = positions - coordinates[0]
    gaps = np.diff(positions)
    smallest = float(gaps[gaps > 1e-4].min())
    for parts in range(1, 9):
        step = smallest / parts
        if np.abs(offsets / step - np.rint(offsets / step)).max() < 0.02:
            return step
    return max(float(np.diff(coordinates).min()) / 8, float(offsets[-1]) / _LARGEST_GRID)


METHODS: dict[str, MaskMethod] = {
    "nearest": nearest,
    "sdf_linear": sdf_linear,
    "sdf_cubic": sdf_cubic,
    "morphological": morphological,
}
ISO_LEVELS = {"nearest": 0.5, "sdf_linear": 0.0, "sdf_cubic": 0.0, "morphological": 0.5}
"""The level of each method's field at which its surface lies."""
