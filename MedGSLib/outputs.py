"""The result folder: every file whole or not at all, the report last."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import numpy_to_vtk
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkFiltersCore import vtkAppendPolyData

from MedGSLib.errors import InputError
from MedGSLib.io.atomic import write_json
from MedGSLib.io.meshes import write_mesh
from MedGSLib.io.writers import write_segmentation, write_volume
from MedGSLib.model_file import export_ply, save_model
from MedGSLib.preview import DenseResult, write_preview

if TYPE_CHECKING:
    from MedGSLib.reconstruct import Reconstruction

MESH_SUFFIXES = (".vtp", ".stl", ".ply")
RESULT_FILES = (
    *("volume.nrrd", "uncertainty.nrrd", "occupancy.nrrd", "segmentation.nrrd", "model.medgs", "gaussians.ply", "preview.png"),
    *(f"mesh{suffix}" for suffix in MESH_SUFFIXES),
)
"""Files of a result folder besides the report; with several segments there are ``occupancy_<name>.nrrd`` and ``mesh_<name>.vtp`` too."""
RESULT_SUFFIXES = {Path(name).suffix for name in RESULT_FILES}


def refuse_to_overwrite(inputs: Iterable[Path | None], out: Path) -> None:
    """Make sure that no input has the name of a result in the output folder, or is that folder.

    :raises InputError: naming the input that would be lost.
    """
    for path in inputs:
        if path is not None and path.is_dir() and path.resolve() == out.resolve():
            raise InputError(f"The results would lie among the files of the input {path}; choose another output folder.")
        if path is not None and path.name in RESULT_FILES and path.resolve().parent == out.resolve():
            raise InputError(f"The result would overwrite its input {path}; choose another output folder.")


def write_outputs(result: Reconstruction, out: Path) -> None:
    """Write the files of a reconstruction into ``out``, which is made where needed; ``report.json`` comes last.

    :raises ResourceError: when the disk is full.
    """
    out.mkdir(parents=True, exist_ok=True)
    earlier = _earlier_files(out / "report.json")
    (out / "report.json").unlink(missing_ok=True)
    stack, step_mm = result.stack, result.grid.spacing_mm
    described = _described(result)
    fields = _fields(result)
    for name, field in fields.items():
        dtype = None if name == "volume.nrrd" else np.float32
        write_volume(out / name, field, stack, step_mm, dtype, header=described)
    if result.label_map is not None:
        write_segmentation(out / "segmentation.nrrd", result.label_map, stack, step_mm)
    meshes = _meshes(result)
    for name, mesh in meshes.items():
        write_mesh(mesh, out / name)
    save_model(out / "model.medgs", result.gaussians, result.header)
    export_ply(out / "gaussians.ply", result.gaussians, result.header)
    write_preview(out / "preview.png", stack, DenseResult(step_mm, result.image, result.occupancy, list(result.meshes.values())))
    written = {*fields, *meshes, "model.medgs", "gaussians.ply", "preview.png"}
    written |= {"segmentation.nrrd"} if result.label_map is not None else set()
    for name in earlier - written:
        (out / name).unlink(missing_ok=True)
    result.report["files"] = sorted(written)
    write_json(out / "report.json", result.report)


def _described(result: Reconstruction) -> dict[str, str]:
    """What the header of a volume says about its slices."""
    text = "yes; acquired output slices: " + " ".join(str(k) for k in result.grid.acquired if k >= 0)
    profile = result.report["preparation"]["profile"]
    width = profile.get("used_width_in_gaps", profile["width_in_gaps"])
    if width:
        reproduced = ", which the average of the output reproduces" if np.all(result.grid.acquired >= 0) else ""
        text += f" (averages over {width * result.stack.gap_mm:g} mm{reproduced})"
    return {"medgs_interpolated": text, "medgs_preset": result.header.preset}


def _earlier_files(report: Path) -> set[str]:
    """Names of the files that an earlier run into the same folder wrote, as its report says."""
    try:
        names = json.loads(report.read_text(encoding="utf-8"))["files"]
        return {name for name in names if Path(name).name == name and Path(name).suffix in RESULT_SUFFIXES}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _fields(result: Reconstruction) -> dict[str, NDArray[np.float32]]:
    """The float volumes to write by file name."""
    fields = {"volume.nrrd": result.image, "uncertainty.nrrd": result.uncertainty}
    return {name: field for name, field in fields.items() if field is not None} | _occupancies(result)


def _occupancies(result: Reconstruction) -> dict[str, NDArray[np.float32]]:
    """The fields to write: of all segments together, and of each where there are several."""
    if result.occupancy is None:
        return {}
    if len(result.stack.labels) == 1:
        return {"occupancy.nrrd": result.occupancy[0]}
    each = {f"occupancy_{label.file_name}.nrrd": field for label, field in zip(result.stack.labels, result.occupancy, strict=True)}
    return {"occupancy.nrrd": np.minimum(result.occupancy.sum(axis=0), 1.0)} | each


def _meshes(result: Reconstruction) -> dict[str, vtkPolyData]:
    """The surfaces to write: of all segments together in three formats, and of each where there are several."""
    meshes = result.meshes
    if not meshes:
        return {}
    together = next(iter(meshes.values())) if len(meshes) == 1 else _appended(meshes)
    found = {f"mesh{suffix}": together for suffix in MESH_SUFFIXES}
    if len(meshes) > 1:
        found |= {f"mesh_{label.file_name}.vtp": meshes[label.name] for label in result.stack.labels if label.name in meshes}
    return found


def _appended(meshes: dict[str, vtkPolyData]) -> vtkPolyData:
    """All meshes in one, the number of each segment (from 1) in the cell array ``Segment``."""
    append = vtkAppendPolyData()
    for number, mesh in enumerate(meshes.values(), start=1):
        copy = vtkPolyData()
        copy.ShallowCopy(mesh)
        segment = numpy_to_vtk(np.full(mesh.GetNumberOfCells(), number, np.uint8), deep=True)
        segment.SetName("Segment")
        copy.GetCellData().AddArray(segment)
        append.AddInputData(copy)
    append.Update()
    return append.GetOutput()
