"""The surface of the mask head of a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.io.meshes import write_mesh
from MedGSLib.io.volumes import read_volume
from MedGSLib.mesh import mesh_summary, occupancy_to_mesh
from MedGSLib.model_file import ModelHeader, load_model
from MedGSLib.progress import ProgressCallback, Reporter
from MedGSLib.raster import choose_rasterizer
from MedGSLib.render import render_dense


@dataclass(frozen=True)
class MeshOptions:
    """How the surface is extracted.

    :ivar interp: rendered positions for each gap of the trained frames.
    :ivar threshold: level of the mask field, between 0 and 1.
    :ivar smooth: passes of the windowed sinc filter on the surface; 0 for none.
    :ivar label: a segment by value or name; None for the first.
    :ivar spacing_mm: pixel width, pixel height and frame distance; with neither this nor ``spacing_from``, those of the training.
    :ivar spacing_from: a volume whose voxel spacing is taken.
    """

    interp: int = 1
    threshold: float = 0.5
    smooth: int = 0
    label: str | int | None = None
    spacing_mm: tuple[float, float, float] | None = None
    spacing_from: Path | None = None
    device: str = "auto"
    threads: int | None = None


def mesh_model(model: Path, output: Path, options: MeshOptions, progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Render the mask field of a model and write its surface (.ply, .stl or .vtp).

    :return: the figures of :class:`MedGSLib.mesh.MeshSummary`.
    :raises InputError: if the model has no such mask, or nothing of it reaches the threshold.
    """
    gaussians, header = load_model(model)
    channel = int(header.has_image) + _label_index(header, options.label)
    rasterizer, _ = choose_rasterizer(options.device, options.threads, gaussians.settings.blending)
    gaussians = gaussians.to("cuda" if rasterizer.name.startswith("gsplat") else "cpu")
    coordinates, gap = _regular_coordinates(header, options.interp)
    field = render_dense(gaussians, coordinates, header.size, rasterizer, Reporter(progress))[:, channel]
    if field.max() < options.threshold:
        raise InputError(f"The mask never reaches {options.threshold:g} (its maximum is {field.max():.2f}); choose a lower --threshold.")
    surface = occupancy_to_mesh(field, _index_to_ras(header, options, gap), level=options.threshold, smoothing_iterations=options.smooth)
    write_mesh(surface, output)
    summary = mesh_summary(surface)
    return summary.as_dict()


def _label_index(header: ModelHeader, wanted: str | int | None) -> int:
    if not header.labels:
        raise InputError("The model has no mask head to mesh; train it with --pipeline seg or joint.")
    matches = [k for k, label in enumerate(header.labels) if wanted is None or wanted in (label.value, label.name)]
    if not matches:
        raise InputError(f"The model has no mask '{wanted}'; it has {', '.join(label.name for label in header.labels)}.")
    return matches[0]


def _regular_coordinates(header: ModelHeader, interp: int) -> tuple[NDArray[np.float64], float]:
    """Model coordinates every 1 / ``interp`` of the median gap from the first acquired slice to the last, and their distance in mm."""
    positions = np.asarray(header.acquired_mm)
    step = float(np.median(np.diff(positions))) / interp
    count = round((positions[-1] - positions[0]) / step) + 1
    return (positions[0] + np.arange(count) * step) / header.step_mm, step


def _index_to_ras(header: ModelHeader, options: MeshOptions, step_mm: float) -> geometry.Matrix:
    """4x4 from (column, row, rendered slice) to RAS mm; another spacing than the trained one keeps the directions and the origin."""
    width, height, _ = geometry.spacing(header.matrix)
    wanted = options.spacing_mm
    if options.spacing_from is not None:
        i, j, k = (float(mm) for mm in geometry.spacing(read_volume(options.spacing_from).ijk_to_ras))
        wanted = (i, j, k)
    if wanted is None:
        return header.matrix @ np.diag([1.0, 1.0, step_mm, 1.0])
    return header.matrix @ np.diag([wanted[0] / width, wanted[1] / height, wanted[2] / options.interp, 1.0])
