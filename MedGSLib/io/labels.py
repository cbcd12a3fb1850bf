"""Label maps and Slicer segmentations: which segments there are, and where."""

from __future__ import annotations

import colorsys
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix
from MedGSLib.io import dicom, frame_files, images
from MedGSLib.volume import Label, Volume

logger = logging.getLogger(__name__)

LabelChoice = Union[str, int, Sequence[Union[str, int]], None]

MOST_LABELS = 1000
"""A file with more distinct values than this is taken for an image."""
LARGEST_LABEL = 2**31 - 1
"""Labels are the whole numbers from 1 to this."""

HALF = 0.5
"""A voxel filled to this share lies inside."""
ROUNDING = 1e-3
"""By which resampled shares may leave 0..1, and what counts as full or empty."""
MOST_BETWEEN = 0.5
"""A file with more than this part of its voxels neither full nor empty is taken for an image."""

REPRESENTATION_FIELDS = ("Segmentation_MasterRepresentation", "Segmentation_SourceRepresentation")
SEGMENT_FIELD = re.compile(r"Segment(\d+)_(ID|Name|LabelValue|Layer|Color)$")


@dataclass(frozen=True)
class Segment:
    """A label and the layer of the file that it lies in."""

    label: Label
    layer: int = 0


@dataclass(frozen=True)
class Segmentation:
    """Segments that may overlap: ``layers`` (n, k, j, i) at ``ijk_to_ras`` (4x4 to mm).

    Layers of integers are label maps. Layers of floating-point numbers are partial-volume masks: each holds the share 0..1 of its voxels
    that its only segment fills. ``positions_mm`` (k,) gives irregular slice positions, as in :class:`~MedGSLib.volume.Volume`.
    """

    layers: NDArray
    ijk_to_ras: Matrix
    segments: Tuple[Segment, ...]
    positions_mm: Optional[NDArray[np.float64]] = None

    @property
    def labels(self) -> Tuple[Label, ...]:
        """The labels in the order of the file."""
        return tuple(segment.label for segment in self.segments)

    @property
    def partial(self) -> bool:
        """Whether the layers are partial-volume masks."""
        return _holds_shares(self.layers)

    def choose(self, choice: LabelChoice) -> Tuple[Segment, ...]:
        """The segments that ``choice`` names (see :func:`select_labels`).

        :raises InputError: if one of them does not exist or is empty (of a partial-volume mask: fills no voxel to a half).
        """
        chosen = tuple(self.segments[index] for index in match_labels(self.labels, choice))
        if self.partial:
            filled = tuple(segment for segment in chosen if self.layers[segment.layer].max() >= HALF)
        else:
            present = {layer: _distinct(self.layers[layer]) for layer in {segment.layer for segment in chosen}}
            filled = tuple(segment for segment in chosen if segment.label.value in present[segment.layer])
        if not filled or (choice not in (None, ()) and len(filled) < len(chosen)):
            empty = [segment.label for segment in chosen if segment not in filled]
            raise InputError(f"The mask is empty: no voxel carries {_listed(empty)}.")
        return filled

    def only(self, segments: Sequence[Segment]) -> Segmentation:
        """The same layers with these segments alone."""
        return replace(self, segments=tuple(segments))

    def with_slices_of(self, volume: Volume) -> Segmentation:
        """The same layers at the slice positions of an image that they were drawn on, where those were corrected after the drawing."""
        if self.layers.shape[1:] != volume.voxels.shape:
            return self
        return replace(self, ijk_to_ras=geometry.with_slice_gap(self.ijk_to_ras, float(geometry.spacing(volume.ijk_to_ras)[2])))


def filled_share(layer: NDArray, segment: Segment) -> NDArray:
    """What a segment fills of each voxel of a layer or a part of one: 0..1 in a partial-volume mask, False or True in a label map."""
    return layer if _holds_shares(layer) else layer == segment.label.value


def inside_any(layer: NDArray, segments: Sequence[Segment]) -> NDArray[np.bool_]:
    """Which voxels of a layer any of its ``segments`` fills, at least to a half."""
    inside = layer >= HALF if _holds_shares(layer) else np.isin(layer, [segment.label.value for segment in segments])
    return np.asarray(inside, dtype=bool)


def slices_with(layers: NDArray, segments: Sequence[Segment]) -> NDArray[np.bool_]:
    """bool (len(segments), S), the slices of ``layers`` (n, S, H, W) on which each segment fills a voxel, at least to a half."""
    if _holds_shares(layers):
        return np.array([np.any(inside_any(layers[segment.layer], [segment]), axis=(1, 2)) for segment in segments])
    drawn = {number: [set(np.unique(part).tolist()) for part in layers[number]] for number in {segment.layer for segment in segments}}
    return np.array([[segment.label.value in values for values in drawn[segment.layer]] for segment in segments])


def read_segmentation(path: Path) -> Segmentation:
    """Read a label map (whole numbers), a partial-volume mask (shares 0..1) or a Slicer segmentation, overlapping layers included.

    :raises InputError: in one sentence, for whatever makes it unusable.
    """
    path = Path(path)
    if frame_files.is_mask_folder(path):
        return segmentation_of(frame_files.read_mask_folder(path), [frame_files.MASK_LABEL])
    if path.is_dir() or dicom.is_dicom(path):
        return segmentation_of(_with_empty_slices(dicom.read_series(path), path), source=f"mask {path}")
    image = images.read_image(path)
    headers = _segment_headers(image)
    if any(image.GetMetaData(key).startswith("Fractional") for key in REPRESENTATION_FIELDS if image.HasMetaDataKey(key)):
        raise InputError(f"The segmentation {path} is a fractional label map; convert it to a binary one in Slicer's module Segmentations.")
    if headers and image.GetNumberOfComponentsPerPixel() > 1 and image.GetDimension() == 3:
        layers = np.moveaxis(sitk.GetArrayViewFromImage(image), -1, 0).copy()
    else:
        image = images.scalar_image(image, path)
        layers = sitk.GetArrayFromImage(image)[None]
    matrix = images.ijk_to_ras(image, path)
    if not headers:
        return segmentation_of(Volume(layers[0], matrix), source=f"mask {path}")
    layers = _labels_or_shares(layers, f"mask {path}")
    if max(segment.layer for segment in headers) >= len(layers):
        raise InputError(f"The segmentation {path} is damaged: its header names a layer that the file does not have.")
    if _holds_shares(layers) and len({segment.layer for segment in headers}) < len(headers):
        raise InputError(f"The mask {path} holds shares between 0 and 1 of several segments in one layer, which cannot be told apart.")
    return Segmentation(layers, matrix, headers)


def segmentation_of(volume: Volume, labels: Optional[Sequence[Label]] = None, source: str = "mask") -> Segmentation:
    """A label map or partial-volume mask in memory as a segmentation of one layer.

    :param labels: by default those of :func:`default_labels`.
    :param source: how to call the mask in a refusal.
    :raises InputError: if it is neither.
    """
    layer = _labels_or_shares(volume.voxels, source)
    chosen = default_labels(layer, source) if labels is None else labels
    return Segmentation(layer[None], volume.ijk_to_ras, tuple(Segment(label) for label in chosen), volume.positions_mm)


def _with_empty_slices(volume: Volume, path: Path) -> Volume:
    """A mask whose empty slices were not exported, with them; one whose slices lie on no regular grid as it is."""
    found = None if volume.positions_mm is None else geometry.lattice(volume.positions_mm)
    if found is None:
        return volume
    gap, places = found
    voxels = np.zeros((int(places[-1]) + 1, *volume.voxels.shape[1:]), volume.voxels.dtype)
    voxels[places] = volume.voxels
    logger.warning("The mask %s has no file for %d of its slices; they are empty, not interpolated.", path, len(voxels) - len(places))
    return Volume(voxels, geometry.with_slice_gap(volume.ijk_to_ras, gap), meta=volume.meta)


def read_labels(path: Path) -> Tuple[Volume, Tuple[Label, ...]]:
    """Read a mask as one label map and its labels.

    Segments in several layers are flattened, later ones on top where they overlap (:func:`read_segmentation` keeps them apart), and
    partial-volume masks cut at a half; if two layers use the same value, the segments are numbered 1, 2, ... in the order of the header.

    :raises InputError: in one sentence, for whatever makes it unusable.
    """
    segmentation = read_segmentation(path)
    if len(segmentation.layers) == 1 and not segmentation.partial:
        return Volume(segmentation.layers[0], segmentation.ijk_to_ras, segmentation.positions_mm), segmentation.labels
    values = [label.value for label in segmentation.labels]
    renumber = len(set(values)) < len(values)
    flat = np.zeros(segmentation.layers.shape[1:], dtype=np.int32)
    labels: List[Label] = []
    for number, segment in enumerate(segmentation.segments, start=1):
        value = number if renumber else segment.label.value
        flat[inside_any(segmentation.layers[segment.layer], [segment])] = value
        labels.append(Label(value, segment.label.name, segment.label.color))
    return Volume(flat, segmentation.ijk_to_ras), tuple(labels)


def select_labels(volume: Volume, labels: Sequence[Label], choice: LabelChoice = None) -> Tuple[Label, ...]:
    """The labels of a label map that ``choice`` names, none of them empty.

    :param choice: a value, a name (case does not matter), several of either (also as text separated by commas), or None (or
        an empty tuple) for all labels that are not empty.
    :raises InputError: if one does not exist, naming those that do, or if one is empty.
    """
    return tuple(segment.label for segment in segmentation_of(volume, labels).choose(choice))


def match_labels(labels: Sequence[Label], choice: LabelChoice) -> Tuple[int, ...]:
    """Indices of the labels that ``choice`` names, without repeats; see :func:`select_labels`."""
    if choice is None or choice == ():
        return tuple(range(len(labels)))
    if isinstance(choice, (str, int)):
        found = _match_one(labels, choice)
        if found is None and isinstance(choice, str) and "," in choice:
            return match_labels(labels, [part for part in choice.split(",") if part.strip()])
        wanted: Sequence[Union[str, int]] = [choice]
    else:
        wanted = choice
    indices: List[int] = []
    for each in wanted:
        found = _match_one(labels, each)
        if found is None:
            raise InputError(f"The mask has no label '{each}'; it has {_listed(labels)}.")
        if found not in indices:
            indices.append(found)
    return tuple(indices)


def _match_one(labels: Sequence[Label], wanted: Union[str, int]) -> Union[int, None]:
    text = str(wanted).strip()
    by_name = [index for index, label in enumerate(labels) if label.name == text]
    by_folded_name = [index for index, label in enumerate(labels) if label.name.casefold() == text.casefold()]
    by_value = [index for index, label in enumerate(labels) if str(label.value) == text]
    ordered = by_value + by_name if isinstance(wanted, int) else by_name + by_folded_name + by_value
    return ordered[0] if ordered else None


def _listed(labels: Sequence[Label], most: int = 20) -> str:
    if not labels:
        return "none"
    shown = ", ".join(f"{label.value} ({label.name})" for label in labels[:most])
    return shown + (f" and {len(labels) - most} more" if len(labels) > most else "")


def _holds_shares(layers: NDArray) -> bool:
    return bool(np.issubdtype(layers.dtype, np.floating))


def _labels_or_shares(layers: NDArray, source: str) -> NDArray:
    """Whole numbers as integers, shares between 0 and 1 as float32."""
    if not _holds_shares(layers):
        return layers
    finite = bool(np.isfinite(layers).all())
    if finite and (layers == np.round(layers)).all():
        return layers.astype(np.int32) if np.abs(layers).max(initial=0) <= LARGEST_LABEL else layers.astype(np.int64)
    if not ((layers >= -ROUNDING) & (layers <= 1.0 + ROUNDING)).all():
        raise InputError(
            f"The {source} is neither a label map nor a partial-volume mask: its values are neither whole numbers nor shares from 0 to 1"
            + ("." if finite else "; some are NaN or infinite, to be replaced by 0.")
        )
    between = float(((layers > ROUNDING) & (layers < 1.0 - ROUNDING)).mean())
    if between > MOST_BETWEEN:
        raise InputError(f"The {source} is an image and not a mask: {100.0 * between:.0f} % of its voxels are neither full nor empty.")
    return np.clip(layers, 0.0, 1.0).astype(np.float32)


def default_labels(voxels: NDArray, source: str) -> Tuple[Label, ...]:
    """One label for each value in the map but zero, with names by number and distinct colours; a single one for a partial-volume mask.

    :param source: how to call the map in a refusal.
    :raises InputError: if it is empty, or an image rather than a label map.
    """
    if _holds_shares(voxels):
        return (Label(1, "Segment_1"),)
    values = [value for value in _distinct(voxels) if value != 0]
    if not values:
        raise InputError(f"The {source} is empty: all its voxels are zero.")
    if values[0] < 0 or values[-1] > LARGEST_LABEL:
        worst = values[0] if values[0] < 0 else values[-1]
        raise InputError(f"The {source} holds the value {worst}, so it is an image and not a label map, whose values are 0, 1, 2, ...")
    if len(values) > MOST_LABELS:
        raise InputError(f"The {source} holds {len(values)} different values, so it is an image and not a label map.")
    if len(values) == 1:
        return (Label(values[0], f"Segment_{values[0]}"),)
    return tuple(Label(value, f"Segment_{value}", _color(value)) for value in values)


def _distinct(voxels: NDArray) -> List[int]:
    found: set[int] = set()
    for part in voxels:
        found.update(np.unique(part).tolist())
    return sorted(found)


def _color(number: int) -> Tuple[float, float, float]:
    """Colours whose hues are spread evenly for any run of numbers (steps of the golden ratio)."""
    red, green, blue = colorsys.hsv_to_rgb((number * 0.61803398875) % 1.0, 0.6, 0.9)
    return round(red, 3), round(green, 3), round(blue, 3)


def _segment_headers(image: sitk.Image) -> Tuple[Segment, ...]:
    """The segments that the header of a Slicer segmentation lists, in its order; empty for other files."""
    fields: Dict[int, Dict[str, str]] = {}
    for key in image.GetMetaDataKeys():
        match = SEGMENT_FIELD.match(key)
        if match:
            fields.setdefault(int(match[1]), {})[match[2]] = image.GetMetaData(key).strip()
    segments: List[Segment] = []
    # Slicer before 4.11 gave each segment a layer and the value 1 without saying so.
    unsaid = image.GetNumberOfComponentsPerPixel() > 1 and not any({"LabelValue", "Layer"} & set(facts) for facts in fields.values())
    for number in sorted(fields):
        facts = fields[number]
        try:
            value = int(facts.get("LabelValue", 1 if unsaid else number + 1))
            layer = int(facts.get("Layer", len(segments) if unsaid else 0))
            parts = [float(part) for part in facts.get("Color", "").split()]
        except ValueError as error:
            raise InputError(f"The segmentation header is damaged: segment {number} has a field that is not a number.") from error
        color = (parts[0], parts[1], parts[2]) if len(parts) == 3 else _color(value)
        segments.append(Segment(Label(value, facts.get("Name") or facts.get("ID") or f"Segment_{value}", color), layer))
    return tuple(segments)
