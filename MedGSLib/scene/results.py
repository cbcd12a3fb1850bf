"""Reading a finished job: every file checked and in memory before the scene is touched."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, Optional, Tuple

import numpy as np
import vtk
from numpy.typing import NDArray

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix
from MedGSLib.io.meshes import read_mesh
from MedGSLib.job.folder import JobFolder
from MedGSLib.job.request import JobGeometry, JobRequest
from MedGSLib.job.result import JobResult, verify
from MedGSLib.job.schema import read_json
from MedGSLib.scene import volumes
from MedGSLib.scene.context import CONTEXT_KEY, SceneContext, SegmentSource
from MedGSLib.scene.segments import SegmentProperties

POSITION_UNCERTAINTY = "PositionUncertaintyMm"
"""Point array of the worker's meshes: half-width of the 90 % band of the surface position in mm."""

OCCUPANCY_LEVEL = 0.5
"""The surface of a segment in its occupancy."""

PLANE_TOLERANCE = 0.01
"""An output slice within this fraction of a slice gap of one of an evenly spaced stack counts as acquired."""


@dataclass(frozen=True)
class AcquiredSlices:
    """Which slices of a dense result were acquired: their indices along the voxel axis ``axis`` (0 = i, 1 = j, 2 = k)."""

    axis: int
    indices: Tuple[int, ...]
    count: int

    @property
    def sentence(self) -> str:
        """What the user should know of the slices, in one sentence."""
        name = geometry.AXIS_NAMES[self.axis]
        if len(self.indices) == self.count:
            return f"All {self.count} slices along {name} were acquired."
        steps = np.diff(self.indices)
        listed = ", ".join(map(str, self.indices))
        if len(steps) > 1 and np.ptp(steps) == 0:
            listed = f"{self.indices[0]}, {self.indices[1]}, ..., {self.indices[-1]}"
        return f"{self.count - len(self.indices)} of {self.count} slices along {name} are interpolated; acquired were the slices {listed}."


@dataclass(frozen=True)
class LoadedResult:
    """The outputs of a job in memory, in the frame of the job's geometry.

    :ivar report: the worker's ``report.json``, empty where there is none.
    :ivar labels: label map, in which of segments that lie over each other the smaller one shows.
    :ivar fields: occupancy 0..1 by label value, where the job has one for each of several segments.
    :ivar meshes: closed surfaces in mm by label value.
    :ivar ijkToRas: 4x4 of volume, segmentation and uncertainty, which share one grid.
    """

    folder: Path
    context: SceneContext
    request: JobRequest
    result: JobResult
    report: Mapping[str, Any]
    ijkToRas: Matrix
    acquired: AcquiredSlices
    volume: Optional[NDArray]
    labels: Optional[NDArray]
    uncertainty: Optional[NDArray]
    fields: Mapping[int, NDArray]
    meshes: Mapping[int, vtk.vtkPolyData]

    def segmentArray(self, value: int) -> NDArray[np.bool_]:
        """Where the segment of a label value is, whole also where another one lies over it."""
        if value in self.fields:
            return np.asarray(self.fields[value] > OCCUPANCY_LEVEL)
        assert self.labels is not None
        return np.asarray(self.labels == value)

    def provenance(self) -> Dict[str, Any]:
        """What every output node remembers of how it was made."""
        source = self.context
        return {
            **{key: value for key, value in self.request.provenance.items() if key != CONTEXT_KEY},
            "volume": source.volumeName,
            "segmentation": source.segmentationName,
            "segments": [entry.properties.name for entry in source.segments],
            "region": source.roiName,
            "sequence": source.sequence,
            "parameters": dict(self.request.parameters),
            "versions": dict(self.result.versions),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.result.finished)),
            "job": self.folder.name,
            "notes": list(source.notes),
        }


def loadResult(folder: Path, verified: Optional[JobResult] = None, unwanted: Collection[str] = ()) -> LoadedResult:
    """Read and check a finished job folder.

    :param verified: the manifest, where its checksums were compared a moment ago; large outputs take seconds.
    :param unwanted: of ``volume`` and ``uncertainty``, what need not be read.
    :raises InputError: if the job is not finished, a file is missing, changed or unreadable, or the files do not fit together.
    """
    result = verified or verify(folder)
    request = JobFolder(folder).read_request()
    context = _context(request, folder)
    read = {"segmentation": _volume(result, folder, "segmentation")}
    for kind in ("volume", "uncertainty"):
        isGridKnown = read["segmentation"] is not None or kind == "uncertainty"
        read[kind] = None if kind in unwanted and isGridKnown else _volume(result, folder, kind)
    fields = _fields(result, folder, request)
    grids = [entry for entry in (*read.values(), *fields.values()) if entry is not None]
    if not grids:
        raise InputError(f"The job in '{folder}' made neither a volume nor a segmentation.")
    matrix, shape = grids[0][1], grids[0][0].shape
    if any(array.shape != shape or not np.allclose(found, matrix, atol=1e-3) for array, found in grids):
        raise InputError(f"The outputs of the job in '{folder}' do not lie on the same grid; run the job again.")
    arrays = {kind: None if entry is None else entry[0] for kind, entry in read.items()}
    report = readReport(folder)
    meshes = _meshes(result, folder, request, report)
    acquired = acquiredSlices(request.geometry, matrix, shape[::-1], request.parameters.get("axis", "auto"))
    return LoadedResult(
        folder,
        context,
        request,
        result,
        report,
        matrix,
        acquired,
        arrays["volume"],
        arrays["segmentation"],
        arrays["uncertainty"],
        {value: array for value, (array, _matrix) in fields.items()},
        meshes,
    )


def _context(request: JobRequest, folder: Path) -> SceneContext:
    """The job's memory of the scene; jobs from the command line have none and get one made of their labels."""
    remembered = request.provenance.get(CONTEXT_KEY)
    if remembered is not None:
        return SceneContext.fromDict(remembered)
    labels = tuple(SegmentSource("", label.value, SegmentProperties(label.name, label.color)) for label in request.inputs.labels)
    return SceneContext(volumeId="", volumeName=request.title or folder.name, segments=labels)


def _volume(result: JobResult, folder: Path, kind: str) -> Optional[Tuple[NDArray, Matrix]]:
    path = result.path(folder, kind, ".nrrd")
    return None if path is None else volumes.readNrrd(path)


def _fields(result: JobResult, folder: Path, request: JobRequest) -> Dict[int, Tuple[NDArray, Matrix]]:
    """The occupancies by label value, of which there is one for each of several segments."""
    files = {output.name: folder / output.file for output in result.outputs}
    wanted = {label.value: files.get(f"occupancy_{label.file_name}.nrrd") for label in request.inputs.labels}
    return {value: volumes.readNrrd(path) for value, path in wanted.items() if path is not None}


def readReport(folder: Path) -> Mapping[str, Any]:
    """The worker's ``report.json``, or an empty one where there is none.

    :raises InputError: if it is damaged.
    """
    path = JobFolder(folder).output / "report.json"
    document = read_json(path, "The report of the job") if path.is_file() else {}
    return document if isinstance(document, Mapping) else {}


def _meshes(result: JobResult, folder: Path, request: JobRequest, report: Mapping[str, Any]) -> Dict[int, vtk.vtkPolyData]:
    """The meshes by label value: ``mesh.vtp`` of the only segment with a surface, or ``mesh_<name>.vtp`` of each of several."""
    files = {output.name: folder / output.file for output in result.outputs if output.name.endswith(".vtp")}
    surfaces = report.get("segments")
    labels = [label for label in request.inputs.labels if not isinstance(surfaces, Mapping) or label.name in surfaces]
    if len(labels) == 1:
        return {labels[0].value: read_mesh(files["mesh.vtp"])} if "mesh.vtp" in files else {}
    found = {label.value: f"mesh_{label.file_name}.vtp" for label in labels}
    return {value: read_mesh(files[name]) for value, name in found.items() if name in files}


def measures(report: Mapping[str, Any]) -> Dict[str, Any]:
    """The parts of a report that a clinician reads: sizes of the segments and the self-check."""
    return {name: report[name] for name in ("segments", "self_check") if isinstance(report.get(name), Mapping)}


def acquiredSlices(inputs: Optional[JobGeometry], matrix: Matrix, shapeIjk: Tuple[int, ...], axisChoice: str = "auto") -> AcquiredSlices:
    """Find the slices of a dense grid that lie on slices of the input.

    :param inputs: geometry of the job's input, or None where the job did not say (then no slice counts as acquired).
    :param matrix: 4x4 ijkToRas of the dense grid, in the same frame; ``shapeIjk`` its size.
    """
    if inputs is None:
        return AcquiredSlices(2, (), shapeIjk[2])
    axis = geometry.slice_axis(inputs.matrix, (2, 2, 2), axisChoice)
    gap = geometry.spacing(inputs.matrix)[axis]
    index = np.zeros((shapeIjk[axis], 3))
    index[:, axis] = np.arange(shapeIjk[axis])
    along = gap * geometry.transform_points(np.asarray(np.linalg.inv(inputs.matrix)), geometry.transform_points(matrix, index))[:, axis]
    if inputs.positions_mm is None:
        found = np.flatnonzero(np.abs(along - gap * np.round(along / gap)) <= PLANE_TOLERANCE * gap)
    else:
        positions = np.array(inputs.positions_mm)
        apart = np.abs(along[:, None] - positions)
        found = np.unique(apart.argmin(axis=0)[apart.min(axis=0) <= geometry.plane_tolerance(positions)])
    return AcquiredSlices(axis, tuple(found.tolist()), shapeIjk[axis])


def tableRows(metrics: Mapping[str, Any], path: Tuple[str, ...] = ()) -> List[Tuple[str, float, str]]:
    """Nested metrics as rows (measure, value, unit); the unit is taken from the end of the name, texts and lists are left out."""
    rows: List[Tuple[str, float, str]] = []
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            rows.extend(tableRows(value, (*path, str(name))))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            measure, unit = _unit(str(name))
            rows.append((" / ".join((*path, measure)).replace("_", " "), float(value), unit))
    return rows


_UNITS = {"mm": "mm", "mm2": "mm2", "mm3": "mm3", "cm2": "cm2", "cm3": "cm3", "ml": "ml", "s": "s", "db": "dB", "deg": "deg", "mb": "MB"}


def _unit(name: str) -> Tuple[str, str]:
    stem, _, last = name.rpartition("_")
    return (stem, _UNITS[last]) if stem and last in _UNITS else (name, "dB" if name == "psnr" else "")


def provenanceText(loaded: LoadedResult) -> str:
    """The provenance as compact JSON for a node attribute."""
    return json.dumps(loaded.provenance(), separators=(",", ":"), sort_keys=True)
