"""Masks that lie on another grid than their image."""

from __future__ import annotations

import logging
from typing import Sequence, Tuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix
from MedGSLib.io import images
from MedGSLib.io.labels import Segmentation
from MedGSLib.volume import Volume

logger = logging.getLogger(__name__)

SAME_PLACE = 0.02
"""Grids whose corners agree within this fraction of a voxel are the same."""


def onto_grid(segmentation: Segmentation, volume: Volume) -> Segmentation:
    """The segmentation on the voxels of ``volume``.

    A grid that is the same or shifted by whole voxels is copied exactly; another one that overlaps is resampled (each label linearly,
    the largest one wins; shares linearly), and a warning is logged.

    :raises InputError: if the grids, or the segments and the volume, do not overlap; the sentence names both grids.
    """
    layers = segmentation.layers
    if segmentation.positions_mm is not None and not _same_positions(segmentation, volume):
        raise InputError("The slices of the mask are spaced irregularly and are not those of the image; export it on the image's slices.")
    if _same_grid(layers.shape[1:], segmentation.ijk_to_ras, volume):
        return Segmentation(layers, volume.ijk_to_ras, segmentation.segments)
    if not _overlap(layers.shape[1:], segmentation.ijk_to_ras, volume):
        raise _apart("mask", segmentation, volume)
    shift = _whole_shift(segmentation.ijk_to_ras, volume)
    if shift is None:
        logger.warning(
            "The mask lies on another grid than the image (%s against %s) and was resampled onto that of the image.",
            describe_grid(layers.shape[1:], segmentation.ijk_to_ras),
            describe_grid(volume.voxels.shape, volume.ijk_to_ras),
        )
        moved = np.stack([_resampled(layer, segmentation.ijk_to_ras, volume) for layer in layers])
    else:
        moved = np.stack([_pasted(layer, shift, volume.voxels.shape) for layer in layers])
    if not moved.any():
        raise _apart("segment", segmentation, volume)
    if shift is not None and np.count_nonzero(moved) < np.count_nonzero(layers):
        lost = 1.0 - np.count_nonzero(moved) / np.count_nonzero(layers)
        logger.warning("%.1f %% of the mask lies outside the image and is left out.", 100.0 * lost)
    return Segmentation(moved, volume.ijk_to_ras, segmentation.segments)


def describe_grid(shape_kji: Sequence[int], matrix: Matrix) -> str:
    """Size, spacing and extent of a grid in words, in RAS mm."""
    corners = geometry.transform_points(matrix, _corners(shape_kji, 0.5))
    size = " x ".join(str(count) for count in reversed(shape_kji))
    step = " x ".join(f"{mm:.3g}" for mm in geometry.spacing(matrix))
    low, high = (", ".join(f"{mm:.0f}" for mm in bound) for bound in (corners.min(axis=0), corners.max(axis=0)))
    return f"{size} voxels of {step} mm from ({low}) to ({high}) mm RAS"


def _apart(part: str, segmentation: Segmentation, volume: Volume) -> InputError:
    return InputError(
        f"The {part} lies outside the image: the mask has {describe_grid(segmentation.layers.shape[1:], segmentation.ijk_to_ras)}, "
        f"the image {describe_grid(volume.voxels.shape, volume.ijk_to_ras)}."
    )


def _corners(shape_kji: Sequence[int], border: float) -> NDArray[np.float64]:
    """The 8 corners of a grid in i, j, k, ``border`` voxels outside the outer voxel centres."""
    ends = [(-border, count - 1 + border) for count in reversed(shape_kji)]
    return np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)


def _same_positions(segmentation: Segmentation, volume: Volume) -> bool:
    own, others = segmentation.positions_mm, volume.positions_mm
    if own is None or others is None or len(own) != len(others):
        return False
    return bool(np.abs(own - others).max() <= geometry.plane_tolerance(others))


def _same_grid(shape_kji: Sequence[int], matrix: Matrix, volume: Volume) -> bool:
    if tuple(shape_kji) != volume.voxels.shape:
        return False
    own = matrix
    if volume.positions_mm is not None:
        # A file cannot state irregular positions, so the slices of a mask drawn on them correspond one to one whatever its slice spacing.
        own = geometry.with_slice_gap(matrix, float(geometry.spacing(volume.ijk_to_ras)[2]))
    corners = _corners(shape_kji, 0.0)
    apart = geometry.transform_points(own, corners) - geometry.transform_points(volume.ijk_to_ras, corners)
    return bool(np.linalg.norm(apart, axis=1).max() <= SAME_PLACE * geometry.spacing(own).min())


def _plane_matrix(volume: Volume) -> Matrix:
    """4x4 from (i, j, mm along k) to RAS mm."""
    matrix = volume.ijk_to_ras.copy()
    matrix[:3, 2] /= np.linalg.norm(matrix[:3, 2])
    return matrix


def _positions(volume: Volume) -> NDArray[np.float64]:
    if volume.positions_mm is not None:
        return volume.positions_mm
    return np.arange(volume.voxels.shape[0]) * geometry.spacing(volume.ijk_to_ras)[2]


def _overlap(shape_kji: Sequence[int], matrix: Matrix, volume: Volume) -> bool:
    """Whether the box of the mask, brought into the axes of the image, meets the box of the image."""
    to_image = np.linalg.inv(_plane_matrix(volume)) @ matrix
    corners = geometry.transform_points(to_image, _corners(shape_kji, 0.5))
    rows, columns = volume.voxels.shape[1:]
    half = 0.5 * geometry.spacing(volume.ijk_to_ras)[2]
    low = np.array([-0.5, -0.5, -half])
    high = np.array([columns - 0.5, rows - 0.5, _positions(volume)[-1] + half])
    return bool(np.all(corners.max(axis=0) > low) and np.all(corners.min(axis=0) < high))


def _whole_shift(matrix: Matrix, volume: Volume) -> Tuple[int, int, int] | None:
    """First voxel (i, j, k) of the mask grid on the image grid, or None where it is not a shift by whole voxels."""
    if volume.positions_mm is not None:
        return None
    to_image = np.linalg.inv(volume.ijk_to_ras) @ matrix
    start = np.round(to_image[:3, 3])
    longest = max(volume.voxels.shape)
    if np.abs(to_image[:3, :3] - np.eye(3)).max() * longest > SAME_PLACE or np.abs(to_image[:3, 3] - start).max() > SAME_PLACE:
        return None
    return int(start[0]), int(start[1]), int(start[2])


def _pasted(layer: NDArray, start_ijk: Tuple[int, int, int], shape_kji: Sequence[int]) -> NDArray:
    target = np.zeros(tuple(shape_kji), dtype=layer.dtype)
    into, out_of = [], []
    for start, own, count in zip(reversed(start_ijk), layer.shape, shape_kji):
        first, last = max(start, 0), min(start + own, count)
        if last <= first:
            return target
        into.append(slice(first, last))
        out_of.append(slice(first - start, last - start))
    target[tuple(into)] = layer[tuple(out_of)]
    return target


def _resampled(layer: NDArray, matrix: Matrix, volume: Volume) -> NDArray:
    """One label map on the grid of ``volume``; slice by slice where the slices are irregular, as a grid of SimpleITK cannot be."""
    source = images.to_image(layer, matrix)
    if volume.positions_mm is None:
        return _linear(source, volume.voxels.shape, volume.ijk_to_ras)
    planes = _plane_matrix(volume)
    shape = (1, *volume.voxels.shape[1:])
    parts = [_linear(source, shape, geometry.shifted_origin(planes, (0.0, 0.0, position))) for position in volume.positions_mm]
    return np.concatenate(parts)


def _linear(source: sitk.Image, shape_kji: Sequence[int], matrix: Matrix) -> NDArray:
    reference = images.set_geometry(sitk.Image([int(count) for count in reversed(shape_kji)], sitk.sitkUInt8), matrix)
    method = sitk.sitkLinear if source.GetPixelID() == sitk.sitkFloat32 else sitk.sitkLabelLinear
    return sitk.GetArrayFromImage(sitk.Resample(source, reference, sitk.Transform(), method, 0, source.GetPixelID()))
