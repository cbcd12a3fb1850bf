"""From volumes and masks to the stack of slices that is reconstructed."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.io import frame_files
from MedGSLib.io.annotated import annotated_slices, looks_sparse
from MedGSLib.io.labels import LabelChoice, Segment, Segmentation, filled_share, inside_any, read_segmentation, segmentation_of, slices_with
from MedGSLib.io.resample import onto_grid
from MedGSLib.io.volumes import Positions, parse_positions, read_volume
from MedGSLib.volume import Label, SliceStack, Volume, header_thickness_mm

logger = logging.getLogger(__name__)

Window = Tuple[slice, slice, slice]


def load_stack(
    image: Optional[Path],
    mask: Optional[Path],
    *,
    labels: LabelChoice = None,
    axis: str = "auto",
    margin_mm: Optional[float] = 10.0,
    annotated: str = "auto",
    positions: Positions = None,
    slice_thickness_mm: Optional[float] = None,
) -> SliceStack:
    """Read an image, a mask, or both into a stack.

    :param labels: which labels of the mask, see :func:`MedGSLib.io.labels.select_labels`; None takes each that is not empty.
    :param axis: auto, i, j or k; the axis along which the slices are stacked.
    :param margin_mm: what to keep around the segments; None keeps the whole volume.
    :param annotated: see :func:`MedGSLib.io.annotated.annotated_slices`.
    :param positions: irregular slice positions in mm along k, see :func:`MedGSLib.io.volumes.read_volume`.
    :param slice_thickness_mm: overrides that of the header.
    :raises InputError: in one sentence, for whatever makes the input unusable.
    """
    volume = None if image is None else read_volume(Path(image), positions)
    if mask is None:
        segmentation = None
    elif image is not None and volume is not None and frame_files.is_mask_folder(Path(mask)):
        masks, drawn = frame_files.masks_on(Path(mask), Path(image), volume)
        segmentation = segmentation_of(masks, [frame_files.MASK_LABEL])
        if annotated == "auto" and len(drawn) < len(masks.voxels):
            annotated = "list:" + ",".join(str(number) for number in drawn)
    else:
        segmentation = read_segmentation(Path(mask))
        if volume is not None and positions is not None:
            segmentation = segmentation.with_slices_of(volume)
    if volume is None and segmentation is not None:
        wanted = parse_positions(positions)
        volume_of_mask = Volume(segmentation.layers[0], segmentation.ijk_to_ras, segmentation.positions_mm)
        grid = volume_of_mask if wanted is None else volume_of_mask.with_positions(wanted)
        return _assemble(None, grid, segmentation, labels, axis, margin_mm, annotated, slice_thickness_mm)
    if volume is None:
        raise InputError("Give an image, a mask, or both.")
    return _assemble(volume, volume, segmentation, labels, axis, margin_mm, annotated, slice_thickness_mm)


def build_stack(
    volume: Optional[Volume],
    label_volume: Optional[Volume] = None,
    labels: Optional[Sequence[Label]] = None,
    *,
    axis: str = "auto",
    margin_mm: Optional[float] = 10.0,
    annotated: str = "auto",
    slice_thickness_mm: Optional[float] = None,
) -> SliceStack:
    """As :func:`load_stack`, from volumes in memory.

    :param label_volume: label map or partial-volume mask, on any grid that overlaps the volume.
    :param labels: the labels to take; None takes every value in a label map but zero.
    """
    grid = volume if volume is not None else label_volume
    if grid is None:
        raise InputError("Give an image, a mask, or both.")
    segmentation = None
    if label_volume is not None:
        segmentation = segmentation_of(label_volume, labels)
    return _assemble(volume, grid, segmentation, None, axis, margin_mm, annotated, slice_thickness_mm)


def _assemble(
    volume: Optional[Volume],
    grid: Volume,
    segmentation: Optional[Segmentation],
    choice: LabelChoice,
    axis_choice: str,
    margin_mm: Optional[float],
    annotated: str,
    slice_thickness_mm: Optional[float],
) -> SliceStack:
    axis = _axis(grid, axis_choice)
    order = geometry.stack_order(axis)
    column, row, along = geometry.stack_columns(axis)
    mm = geometry.spacing(grid.ijk_to_ras)
    count = grid.shape_ijk[along]
    positions = grid.positions_mm if grid.positions_mm is not None else np.arange(count) * mm[along]
    segments: Tuple[Segment, ...] = ()
    believed = np.ones(count, dtype=bool)
    window: Window = (slice(None), slice(None), slice(None))
    layers = None
    if segmentation is not None:
        segmentation = segmentation.only(segmentation.choose(choice))
        if volume is not None:
            segmentation = onto_grid(segmentation, volume)
        segments = segmentation.segments
        layers = segmentation.layers.transpose(0, *(1 + a for a in order))
        inside = _inside(layers, segments)
        believed = annotated_slices(annotated, np.any(inside, axis=(1, 2)))
        if annotated == "auto" and believed.all() and len(segments) > 1:
            _warn_of_sparse_segments(layers, segments)
        if margin_mm is not None:
            window = _window(inside, believed, positions, (float(mm[row]), float(mm[column])), margin_mm)
    starts = [part.start or 0 for part in window]
    start_ijk = [0, 0, 0]
    for place, start in zip((along, row, column), starts):
        start_ijk[place] = start
    plane_to_ras = geometry.shifted_origin(grid.ijk_to_ras, _origin_index(start_ijk, along, positions, mm))[:, (column, row, along, 3)]
    plane_to_ras[:3, 2] /= mm[along]
    kept = positions[window[0]]
    return SliceStack(
        image=None if volume is None else np.ascontiguousarray(volume.voxels.transpose(order)[window], dtype=np.float32),
        occupancy=None if layers is None else _occupancy(layers, segments, window),
        labels=_with_own_values(segments),
        annotated=believed[window[0]],
        positions_mm=np.asarray(kept - kept[0], dtype=np.float64),
        plane_to_ras=plane_to_ras,
        axis=axis,
        start_ijk=(start_ijk[0], start_ijk[1], start_ijk[2]),
        slice_thickness_mm=slice_thickness_mm if slice_thickness_mm is not None else header_thickness_mm(grid.meta, along),
        meta={**grid.meta, "voxel_type": str(grid.voxels.dtype)},
    )


def _axis(grid: Volume, choice: str) -> int:
    if grid.positions_mm is None:
        return geometry.slice_axis(grid.ijk_to_ras, grid.shape_ijk, choice)
    if choice not in ("auto", "k"):
        raise InputError(f"The slices of this volume have irregular positions along k, so they cannot be stacked along '{choice}'.")
    return geometry.slice_axis(grid.ijk_to_ras, grid.shape_ijk, "k")


def _origin_index(
    start_ijk: Sequence[int], along: int, positions: NDArray[np.float64], mm: NDArray[np.float64]
) -> Tuple[float, float, float]:
    """The first voxel of the crop in voxels of the regular grid, where irregular slices need not fall on whole numbers."""
    index = [float(start) for start in start_ijk]
    index[along] = float(positions[start_ijk[along]] / mm[along])
    return index[0], index[1], index[2]


def _with_own_values(segments: Sequence[Segment]) -> Tuple[Label, ...]:
    """The labels; numbered 1, 2, ... where some have the same value, as segments of several layers of a file may."""
    labels = [segment.label for segment in segments]
    if len({label.value for label in labels}) < len(labels):
        labels = [replace(label, value=number) for number, label in enumerate(labels, start=1)]
    return tuple(labels)


def _inside(layers: NDArray, segments: Sequence[Segment]) -> NDArray[np.bool_]:
    """bool (S, H, W), where any of the segments is."""
    inside = np.zeros(layers.shape[1:], dtype=bool)
    for number in {segment.layer for segment in segments}:
        inside |= inside_any(layers[number], [segment for segment in segments if segment.layer == number])
    return inside


def _warn_of_sparse_segments(layers: NDArray, segments: Sequence[Segment]) -> None:
    """Where all slices count as annotated because of other segments, a sparse one falls into pieces."""
    sparse = [segment.label.name for segment, filled in zip(segments, slices_with(layers, segments)) if looks_sparse(filled)]
    if sparse:
        logger.warning(
            "%s: drawn on every n-th slice only and taken as empty between them, as other segments are on all slices; if that is wrong, "
            "reconstruct it by itself, or say which slices are annotated.",
            ", ".join(sparse),
        )


def _occupancy(layers: NDArray, segments: Sequence[Segment], window: Window) -> NDArray[np.float32]:
    parts = [filled_share(layers[segment.layer][window], segment) for segment in segments]
    return np.stack(parts).astype(np.float32)


def _window(
    inside: NDArray[np.bool_], believed: NDArray[np.bool_], positions: NDArray[np.float64], pixel_mm: Tuple[float, float], margin_mm: float
) -> Window:
    """The part of (S, H, W) to keep: the annotated mask, a margin, and at least one annotated slice beyond both ends where there is one."""
    if margin_mm < 0:
        raise InputError(f"The margin must not be negative, and is {margin_mm:g} mm.")
    filled = np.flatnonzero(np.any(inside, axis=(1, 2)) & believed)
    annotated = np.flatnonzero(believed)
    first, last = int(filled[0]), int(filled[-1])
    before, after = annotated[annotated < first], annotated[annotated > last]
    low = min(int(np.searchsorted(positions, positions[first] - margin_mm)), int(before[-1]) if len(before) else first - 1)
    high = max(int(np.searchsorted(positions, positions[last] + margin_mm, side="right")) - 1, int(after[0]) if len(after) else last + 1)
    low, high = max(low, 0), min(high, len(positions) - 1)
    seen: NDArray[np.bool_] = np.any(inside[believed], axis=0)
    rows = _span(np.flatnonzero(np.any(seen, axis=1)), math.ceil(margin_mm / pixel_mm[0]), inside.shape[1])
    columns = _span(np.flatnonzero(np.any(seen, axis=0)), math.ceil(margin_mm / pixel_mm[1]), inside.shape[2])
    return slice(low, high + 1), rows, columns


def _span(indices: NDArray[np.int64], margin: int, count: int) -> slice:
    return slice(max(int(indices[0]) - margin, 0), min(int(indices[-1]) + margin + 1, count))
