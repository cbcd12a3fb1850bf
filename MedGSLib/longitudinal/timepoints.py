"""One date of a patient: its surfaces, the volume they were seen in, and how finely they were sampled."""

from __future__ import annotations

import datetime
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkFiltersCore import vtkCleanPolyData, vtkPolyDataNormals, vtkReverseSense, vtkTriangleFilter

from MedGSLib.dates import parse_date
from MedGSLib.errors import InputError
from MedGSLib.geometry import default_scale
from MedGSLib.io.images import to_image
from MedGSLib.io.labels import match_labels, read_segmentation
from MedGSLib.io.meshes import read_mesh
from MedGSLib.io.stack import load_stack
from MedGSLib.io.volumes import read_volume
from MedGSLib.longitudinal.growth import Sampling
from MedGSLib.mesh import POSITION_ARRAY, occupancy_to_mesh, with_volume_of_voxels
from MedGSLib.metrics_surface import topology, volume_mm3
from MedGSLib.prior.mask_distance import slice_signed_distances
from MedGSLib.volume import Label, SliceStack, Volume, distinct_labels

logger = logging.getLogger(__name__)

MESH_SUFFIXES = (".vtp", ".ply", ".stl")
REPORT_FILE = "report.json"
RESULT_MARKS = ("volume.nrrd", "occupancy.nrrd", "model.medgs", "checkpoint")
"""Of these a folder of ``medgs reconstruct`` holds at least one long before its report."""
DEFAULT_SEGMENT = "segment"
PROPAGATED = "propagated"
"""Source of surfaces that nobody drew, see :mod:`MedGSLib.longitudinal.propagation`."""
FIELD_WIDTH_PX = 2.0
OUTER_WALL = "outer wall"
LUMEN, SHELL = re.compile(r"lumen", re.IGNORECASE), re.compile(r"thromb|wall", re.IGNORECASE)
"""Where a vessel comes as lumen and as what lies around it, its outer-to-outer diameter is that of both together."""


@dataclass(frozen=True)
class TimePoint:
    """What is known of one date.

    :ivar surfaces: closed surfaces by segment name, RAS mm; none where nobody drew the segment.
    :ivar volume: the image for registration, or None.
    :ivar segment_mask: bool (K, J, I) on the grid of ``volume``, where the segments are; None means unknown.
    :ivar sampling: how the surfaces were sampled, or None.
    """

    name: str
    surfaces: dict[str, vtkPolyData]
    date: datetime.date | None = None
    volume: Volume | None = None
    segment_mask: NDArray[np.bool_] | None = None
    sampling: Sampling | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_propagated(self) -> bool:
        """Whether the surfaces were carried over from the baseline, not drawn."""
        return self.facts.get("source") == PROPAGATED


def load_time_point(
    paths: Sequence[Path], date: datetime.date | None = None, labels: Sequence[str | int] = (), name: str = ""
) -> TimePoint:
    """Load a result folder, a mesh, a volume with or without its mask, or a result folder with the full volume it came from.

    :param paths: (folder), (mesh), (image), (image, mask) or (folder, image).
    :param labels: the segments to take; all when empty.
    :raises InputError: in one sentence, for whatever makes it unusable.
    """
    first = Path(paths[0])
    title = name or _title(first)
    if first.is_dir() and (first / REPORT_FILE).is_file():
        return _from_result(first, Path(paths[1]) if len(paths) > 1 else None, date, labels, title)
    if first.is_dir() and any((first / name).exists() for name in RESULT_MARKS):
        raise InputError(f"The folder {first} holds an unfinished result (it has no {REPORT_FILE}); finish it with --resume first.")
    if first.suffix.lower() in MESH_SUFFIXES and len(paths) == 1:
        return TimePoint(title, {DEFAULT_SEGMENT: _closed_surface(first)}, date, facts={"source": "mesh"})
    if len(paths) == 2:
        return time_point_from_stack(load_stack(first, Path(paths[1]), labels=tuple(labels) or None, margin_mm=None), date, title)
    return time_point_without_segment(load_stack(first, None, margin_mm=None), date, title)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Names of time points by their files; the same ones with the name of their folder, and numbered where that is the same as well."""
    titles = [_title(path) for path in paths]
    whole = [f"{path.absolute().parent.name}/{title}" for path, title in zip(paths, titles, strict=True)]
    names = [long if titles.count(title) > 1 and whole.count(long) == 1 else title for title, long in zip(titles, whole, strict=True)]
    return [f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name for index, name in enumerate(names)]


def _title(path: Path) -> str:
    return path.name.split(".")[0]


def time_point_from_stack(stack: SliceStack, date: datetime.date | None = None, name: str = "") -> TimePoint:
    """A time point from thick slices with masks: surfaces by monotone cubic interpolation of the slices' signed distances.

    :raises InputError: if the stack has no mask.
    """
    if stack.occupancy is None:
        raise InputError("A time point needs a segment, and the stack has none.")
    volume, mask = _volume_of(stack)
    labels = distinct_labels(stack.labels)
    surfaces = {label.name: interpolated_surface(stack, stack.occupancy[index], label.name) for index, label in enumerate(labels)}
    if parts := wall_parts(list(surfaces)):
        whole = stack.occupancy[[list(surfaces).index(part) for part in parts]].max(axis=0)
        surfaces[OUTER_WALL] = interpolated_surface(stack, whole, OUTER_WALL)
    sampling = sampling_of(stack)
    facts = {"source": "mask", "slice_thickness_mm": stack.slice_thickness_mm, "gap_mm": sampling.gap_mm, "pixel_mm": sampling.pixel_mm}
    return TimePoint(name, surfaces, date or parse_date(stack.meta.get("study_date", "")), volume, mask, sampling, facts)


def time_point_without_segment(stack: SliceStack, date: datetime.date | None = None, name: str = "") -> TimePoint:
    """A date of which there is only the image, so that the baseline's segment must be carried over to it.

    :raises InputError: if the slices are irregular.
    """
    volume, _ = _volume_of(stack)
    if volume is None:
        raise InputError(f"{name} has no segment and irregular slices, so no segment can be carried over to it.")
    when = date or parse_date(stack.meta.get("study_date", ""))
    facts = {"source": "image", "gap_mm": stack.gap_mm, "pixel_mm": max(stack.pixel_mm)}
    return TimePoint(name, {}, when, volume, None, sampling_of(stack), facts)


def wall_parts(names: Sequence[str]) -> list[str]:
    """The segments that together fill a vessel's outer wall: lumen and thrombus; empty where they are not apart."""
    parts = [name for name in names if LUMEN.search(name) or SHELL.search(name)]
    is_split = any(LUMEN.search(name) for name in parts) and any(SHELL.search(name) for name in parts)
    return parts if is_split and OUTER_WALL not in names else []


def sampling_of(stack: SliceStack) -> Sampling:
    """Pixel size, gap between the annotated slices, and slice normal of a stack; a surface knows nothing of the slices in between."""
    normal = stack.plane_to_ras[:3, 2] / np.linalg.norm(stack.plane_to_ras[:3, 2])
    return Sampling(max(stack.pixel_mm), stack.annotated_gap_mm, tuple(normal.tolist()))


def interpolated_surface(stack: SliceStack, segment: NDArray[np.float32], name: str) -> vtkPolyData:
    """The surface of a segment (S, H, W) of a stack of thick slices, by monotone cubics through the slices' signed distances.

    Fritsch and Carlson 1980; a plain spline overshoots beside the sudden end of a segment, where it made a vessel of even width bulge.
    """
    scale = default_scale(stack.gap_mm, stack.pixel_mm[1])
    step = stack.gap_mm / scale
    wanted = np.arange(0.0, stack.positions_mm[-1] + 0.5 * step, step)
    occupancy = segment[stack.annotated] >= 0.5
    distances = slice_signed_distances(occupancy, pixel_mm=stack.pixel_mm)
    if not occupancy.any():
        raise InputError(f"The segment {name} is empty.")
    if len(distances) < 2:
        raise InputError(f"The segment {name} is drawn on a single slice, which makes no surface.")
    known = stack.positions_mm[stack.annotated]
    dense = PchipInterpolator(known, distances, axis=0)(np.clip(wanted, known[0], known[-1]))
    return occupancy_to_mesh(0.5 + 0.5 * np.tanh(dense / FIELD_WIDTH_PX), stack.index_to_ras(step))


def _volume_of(stack: SliceStack) -> tuple[Volume | None, NDArray[np.bool_] | None]:
    """The image of a regular stack as a volume, with the union of its segments where it has some; irregular stacks have no volume."""
    if stack.image is None:
        return None, None
    gaps = np.diff(stack.positions_mm)
    if np.ptp(gaps) > 0.02 * stack.gap_mm:
        logger.warning("The slices of a time point are irregular, so it cannot be registered by its image.")
        return None, None
    mask = None if stack.occupancy is None else stack.occupancy.max(axis=0) >= 0.5
    return Volume(stack.image, stack.index_to_ras(stack.gap_mm), meta=stack.meta), mask


def _closed_surface(path: Path) -> vtkPolyData:
    """The surface of a file of any origin as triangles that face outward.

    :raises InputError: if it is open.
    """
    triangulate, merge, orient, turn = vtkTriangleFilter(), vtkCleanPolyData(), vtkPolyDataNormals(), vtkReverseSense()
    triangulate.SetInputData(read_mesh(path))
    triangulate.PassVertsOff()
    triangulate.PassLinesOff()
    # Corners that each face has to itself, as for sharp edges, would count as holes.
    merge.SetInputConnection(triangulate.GetOutputPort())
    merge.ConvertPolysToLinesOff()
    merge.ConvertLinesToPointsOff()
    orient.SetInputConnection(merge.GetOutputPort())
    orient.SplittingOff()
    orient.NonManifoldTraversalOff()
    orient.Update()
    surface = orient.GetOutput()
    if not topology(surface).closed:
        raise InputError(f"The surface {path} is open, so it encloses no volume; close its holes first.")
    if volume_mm3(surface) > 0.0:
        return surface
    turn.SetInputData(surface)
    turn.ReverseNormalsOn()
    turn.Update()
    return turn.GetOutput()


def _from_result(folder: Path, image: Path | None, date: datetime.date | None, labels: Sequence[str | int], name: str) -> TimePoint:
    try:
        report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        geometry = report["geometry"]
        plane = np.array(geometry["plane_to_ras"], dtype=np.float64)
        gap_mm = float(geometry.get("annotated_gap_mm", geometry["input_gap_mm"]))
        sampling = Sampling(max(geometry["pixel_mm"]), gap_mm, tuple(plane[:3, 2].tolist()))
        segments = {name: bool(facts.get("position_error_is_calibrated")) for name, facts in report["segments"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"The report of the result folder {folder} cannot be read, so it cannot be compared.") from error
    paths = _mesh_paths(folder, list(segments))
    surfaces = {name: read_mesh(paths[name]) for name in _wanted(folder, list(segments), labels)}
    for label, surface in surfaces.items():
        if not segments[label]:
            # Without a self-check the field is a cautious guess; the sampling says more.
            surface.GetPointData().RemoveArray(POSITION_ARRAY)
    if parts := wall_parts(list(surfaces)):
        fields = [read_volume(folder / f"occupancy_{Label(0, part).file_name}.nrrd") for part in parts]
        whole = np.minimum(np.sum([part.voxels for part in fields], axis=0, dtype=np.float32), 1.0)
        surfaces[OUTER_WALL] = occupancy_to_mesh(with_volume_of_voxels(whole), fields[0].ijk_to_ras)
    volume, mask = _result_volume(folder, image)
    facts = {"source": "result", "preset": report.get("preset"), "slice_thickness_mm": geometry.get("slice_thickness_mm")}
    when = date or parse_date(str((report.get("inputs") or {}).get("study_date") or ""))
    return TimePoint(name, surfaces, when, volume, mask, sampling, facts | {"gap_mm": sampling.gap_mm, "pixel_mm": sampling.pixel_mm})


def _wanted(folder: Path, names: list[str], labels: Sequence[str | int]) -> list[str]:
    """Those of the names of a result's segments that ``labels`` name, by the numbers that they have in its segmentation or by name."""
    if not labels or not names:
        return names
    segmentation = folder / "segmentation.nrrd"
    values = {label.name: label.value for label in read_segmentation(segmentation).labels} if segmentation.is_file() else {}
    known = [Label(values.get(name, 0), name) for name in names]
    try:
        return [names[index] for index in match_labels(known, tuple(labels))]
    except InputError as error:
        listed = ", ".join(f"{label.value} ({label.name})" if label.value else label.name for label in known)
        raise InputError(f"The result folder {folder} lacks one of the wanted segments; it has {listed}.") from error


def _mesh_paths(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    if len(names) == 1:
        return {names[0]: folder / "mesh.vtp"}
    return {name: folder / f"mesh_{Label(0, name).file_name}.vtp" for name in names}


def _result_volume(folder: Path, image: Path | None) -> tuple[Volume | None, NDArray[np.bool_] | None]:
    """The full volume where it is given and regular, else the dense crop of the result, with the segments on its grid."""
    path = image or folder / "volume.nrrd"
    if not path.exists():
        return None, None
    volume = read_volume(path)
    if image is not None and volume.positions_mm is not None:
        logger.warning("The slices of %s are irregular, so the result %s is registered without it.", image.name, folder.name)
        return _result_volume(folder, None)
    segmentation = folder / "segmentation.nrrd"
    if not segmentation.is_file():
        return volume, None
    dense = read_volume(segmentation)
    if image is None:
        return volume, dense.voxels > 0
    return volume, _onto(dense, volume)


def _onto(labels: Volume, volume: Volume) -> NDArray[np.bool_]:
    """Which voxels of a volume lie in a label map of another grid."""
    moved = sitk.Resample(
        to_image((labels.voxels > 0).astype(np.uint8), labels.ijk_to_ras),
        to_image(np.zeros(volume.voxels.shape, np.uint8), volume.ijk_to_ras),
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkNearestNeighbor,
    )
    return sitk.GetArrayFromImage(moved) > 0
