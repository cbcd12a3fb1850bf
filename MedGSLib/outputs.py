"""The result folder: every file whole or not at all, the report last."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from vtkmodules.util.numpy_support import numpy_to_vtk
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkFiltersCore import vtkAppendPolyData

from MedGSLib.io.atomic import write_json
from MedGSLib.io.meshes import write_mesh
from MedGSLib.io.writers import write_segmentation, write_volume
from MedGSLib.model_file import export_ply, save_model
from MedGSLib.preview import DenseResult, write_preview

if TYPE_CHECKING:
    from MedGSLib.reconstruct import Reconstruction

MESH_SUFFIXES = (".vtp", ".stl", ".ply")


def write_outputs(result: Reconstruction, out: Path) -> None:
    """Write the files of a reconstruction into ``out``, which is made where needed; ``report.json`` comes last.

    :raises ResourceError: when the disk is full.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").unlink(missing_ok=True)
    stack, step_mm = result.stack, result.grid.spacing_mm
    described = {
        "medgs_interpolated": "yes; acquired output slices: " + " ".join(str(k) for k in result.grid.acquired if k >= 0),
        "medgs_preset": result.header.preset,
    }
    if result.image is not None:
        write_volume(out / "volume.nrrd", result.image, stack, step_mm, header=described)
    if result.uncertainty is not None:
        write_volume(out / "uncertainty.nrrd", result.uncertainty, stack, step_mm, np.float32, header=described)
    if result.occupancy is not None and result.label_map is not None:
        for number, label in enumerate(stack.labels):
            name = "occupancy.nrrd" if len(stack.labels) == 1 else f"occupancy_{file_name(label.name)}.nrrd"
            write_volume(out / name, result.occupancy[number], stack, step_mm, np.float32, header=described)
        write_segmentation(out / "segmentation.nrrd", result.label_map, stack, step_mm)
    if result.meshes:
        _write_meshes(result.meshes, out)
    save_model(out / "model.medgs", result.gaussians, result.header)
    export_ply(out / "gaussians.ply", result.gaussians, result.header)
    write_preview(out / "preview.png", stack, DenseResult(step_mm, result.image, result.occupancy, list(result.meshes.values())))
    write_json(out / "report.json", result.report)


def _write_meshes(meshes: dict[str, vtkPolyData], out: Path) -> None:
    if len(meshes) > 1:
        for name, mesh in meshes.items():
            write_mesh(mesh, out / f"mesh_{file_name(name)}.vtp")
    together = next(iter(meshes.values())) if len(meshes) == 1 else _appended(meshes)
    for suffix in MESH_SUFFIXES:
        write_mesh(together, out / f"mesh{suffix}")


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


def file_name(label: str) -> str:
    """A segment's name as part of a file name on any system."""
    return re.sub(r"[^\w.-]+", "_", label).strip("_.") or "segment"
