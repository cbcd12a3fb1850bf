"""A finished job without a worker: the files of the output folder written by the library itself, from known shapes."""

from __future__ import annotations

import json

import numpy as np
import vtk

from MedGSLib import geometry
from MedGSLib.io import writers
from MedGSLib.io.meshes import write_mesh
from MedGSLib.job.folder import JobFolder
from MedGSLib.job.result import JobResult, collect_outputs, current_versions, write_result
from MedGSLib.mesh import occupancy_to_mesh
from MedGSLib.volume import SliceStack

SELF_CHECK = {"image": {"medgs": {"psnr_db": 31.5}, "linear": {"psnr_db": 29.0}}, "note": "text"}


def finish(folder: JobFolder, balls: list[tuple[np.ndarray, float]], shape_ijk: tuple[int, int, int], **options: int) -> None:
    """Write what a worker would, the manifest included; see :func:`write_outputs`."""
    write_outputs(folder, balls, shape_ijk, **options)
    write_manifest(folder)


def write_outputs(
    folder: JobFolder,
    balls: list[tuple[np.ndarray, float]],
    shape_ijk: tuple[int, int, int],
    scale: int = 4,
    axis: int = 2,
    volume: bool = True,
    uncertainty: bool = True,
) -> None:
    """Write the files of the output folder: a dense volume with the k-th ball's signed distance, labels and meshes.

    :param balls: (centre in the job's frame, radius mm) for each label.
    :param shape_ijk: size of the job's input.
    """
    request = folder.read_request()
    matrix = request.geometry.matrix
    mm = geometry.spacing(matrix)
    columns = geometry.stack_columns(axis)
    plane_to_ras = np.eye(4)
    plane_to_ras[:, :2], plane_to_ras[:, 3] = matrix[:, columns[:2]], matrix[:, 3]
    plane_to_ras[:, 2] = matrix[:, columns[2]] / mm[axis]
    slices = shape_ijk[axis]
    plane = (shape_ijk[columns[1]], shape_ijk[columns[0]])
    stack = SliceStack(
        np.zeros((slices, *plane), np.float32), None, (), np.ones(slices, bool), np.arange(slices) * mm[axis], plane_to_ras, axis
    )
    step = mm[axis] / scale
    t, y, x = np.meshgrid(np.arange((slices - 1) * scale + 1), np.arange(plane[0]), np.arange(plane[1]), indexing="ij")
    ras = geometry.transform_points(stack.index_to_ras(step), np.stack([x, y, t], axis=-1))
    distances = [radius - np.linalg.norm(ras - center, axis=-1) for center, radius in balls]
    output = folder.output
    output.mkdir(exist_ok=True)
    if volume:
        writers.write_volume(output / "volume.nrrd", 10 * distances[0], stack, step, dtype=np.int16)
    labels = np.zeros(distances[0].shape, np.uint8)
    for value, distance in reversed(list(enumerate(distances, start=1))):
        labels[distance >= 0] = value
        name = "mesh.vtp" if len(balls) == 1 else f"mesh_{request.inputs.labels[value - 1].file_name}.vtp"
        mesh = occupancy_to_mesh(0.5 + 0.5 * np.tanh(distance / 2), stack.index_to_ras(step))
        band = vtk.util.numpy_support.numpy_to_vtk(np.full(mesh.GetNumberOfPoints(), 0.4, np.float32), deep=True)
        band.SetName("PositionUncertaintyMm")
        mesh.GetPointData().AddArray(band)
        write_mesh(mesh, output / name)
    writers.write_segmentation(output / "segmentation.nrrd", labels, stack, step, request.inputs.labels)
    if uncertainty:
        writers.write_volume(output / "uncertainty.nrrd", np.abs(distances[0]), stack, step, dtype=np.float32)
    segments = {label.name: {"volume_cm3": 3.05, "max_diameter_mm": 18.0, "bounds_mm": [0, 1]} for label in request.inputs.labels}
    sizes = {
        "output_slices": len(t),
        "rows_columns": plane,
        "plane_to_ras": plane_to_ras.tolist(),
        "pixel_mm": stack.pixel_mm,
        "input_gap_mm": stack.gap_mm,
    }
    report = {"segments": segments, "self_check": SELF_CHECK, "geometry": sizes, "preset": "fast", "backend": "The CPU rasterizer is used."}
    (output / "report.json").write_text(json.dumps(report))


def write_manifest(folder: JobFolder) -> None:
    """(Re)write ``result.json`` over the files that are there."""
    outputs = collect_outputs(folder.path, folder.output)
    write_result(folder.path, JobResult(outputs, {}, {"fit": 1.0}, current_versions({"backend": "cpu"}), finished=1.7e9))


def sphere_error(polydata: vtk.vtkPolyData, center: np.ndarray, radius: float) -> float:
    """Largest distance of the surface's points from a sphere."""
    points = vtk.util.numpy_support.vtk_to_numpy(polydata.GetPoints().GetData())
    return float(np.abs(np.linalg.norm(points - center, axis=1) - radius).max())
