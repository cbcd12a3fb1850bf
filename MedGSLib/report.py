"""The report of a reconstruction: what was done with what, how big the result is, and how far to trust it."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vtkmodules.vtkCommonDataModel import vtkPolyData

import MedGSLib
from MedGSLib.config import ReconstructionConfig
from MedGSLib.mesh import mesh_summary
from MedGSLib.metrics import mean_psnr
from MedGSLib.metrics_surface import topology
from MedGSLib.preparation import Preparation, thickness_decision
from MedGSLib.prior.mask_areas import volume_of_areas
from MedGSLib.prior.smoothness import CERTAIN
from MedGSLib.self_check import SelfCheck
from MedGSLib.training.fit import FitReport
from MedGSLib.uncertainty import measured_error_mm, position_error_mm
from MedGSLib.volume import SliceStack

SCHEMA_VERSION = 1
MANY_REPEATED, ALL_REPEATED = 0.2, 0.95
"""Shares of slices that equal their neighbour from which a mask was drawn on thicker slices, and up to which it is no prism."""
FEWEST_PAIRS = 4
NOTICE = "Research use only. Slices between the acquired ones are interpolated, not measured."
PACKAGES = ("torch", "numpy", "numba", "gsplat", "vtk", "SimpleITK", "scikit-image", "scipy", "safetensors")


def describe(
    prepared: Preparation,
    config: ReconstructionConfig,
    fit_report: FitReport,
    backend: str,
    rendered: NDArray[np.float32],
    meshes: dict[str, vtkPolyData],
    check: SelfCheck | None,
    unchecked: str = "",
) -> dict[str, Any]:
    """Everything worth knowing about a run but its timings.

    :param rendered: (T, C, H, W), what the Gaussians alone render on the output grid.
    :param unchecked: why the check failed, a sentence, where it did.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "notice": NOTICE,
        "mode": config.mode,
        "preset": config.preset,
        "seed": config.seed,
        "backend": backend,
        "geometry": _geometry(prepared),
        "preparation": prepared.report,
        "window": prepared.window,
        "fit": {
            "gaussians": fit_report.gaussians,
            "iterations": fit_report.iterations,
            "resumed_from": fit_report.resumed_from,
            "loss": fit_report.loss,
            "gaussians_on_acquired_slices_psnr_db": _reproduction(prepared, rendered),
        },
        "segments": {name: _segment(mesh, prepared, name, check) for name, mesh in meshes.items()},
        "self_check": None if check is None else check.as_dict(),
        "remarks": remarks(prepared, config, check, unchecked),
        "versions": versions(),
    }


def remarks(prepared: Preparation, config: ReconstructionConfig, check: SelfCheck | None, unchecked: str = "") -> list[str]:
    """What a user should read before trusting the result, one sentence each; empty where nothing is out of the ordinary."""
    found = []
    missed = int(np.count_nonzero(prepared.grid.acquired < 0))
    if missed:
        found.append(
            f"The slices are spaced irregularly: {missed} of {len(prepared.grid.acquired)} acquired slices lie between two output slices, "
            "which are interpolated there."
        )
    profile = prepared.report["profile"]
    if profile.get("doubtful"):
        found.append(f"{profile['reason']} {thickness_decision(profile)}")
    for number, segment in enumerate(prepared.stack.labels):
        share = repeated_share(prepared.stack, number)
        if MANY_REPEATED <= share <= ALL_REPEATED:
            found.append(
                f"{100 * share:.0f} % of the slices of {segment.name} repeat the one before exactly, so it was drawn on thicker slices "
                "than these; the result keeps the steps between them. Where those slices are known, name them as the annotated ones."
            )
    smoothness = None if prepared.prior is None else prepared.prior.report.get("stack_smoothness")
    if smoothness is not None and smoothness >= CERTAIN:
        found.append("Neighbouring slices overlap or were smoothed together, so the result is as smooth along the stack as they are.")
    if check is None:
        if config.self_check:
            too_few = "There are too few slices to leave any out, so the result is unchecked."
            found.append(f"The result could not be checked on left-out slices: {unchecked}" if unchecked else too_few)
        return found
    if check.share < 1.0:
        part = f"{100 * (1 - check.share):.0f} %"
        found.append(f"On left-out slices the method '{check.alternative}' did better: {part} of the image in between comes from it.")
    for label in check.masks:
        if check.mask_share(label) < 1.0:
            part = f"{100 * (1 - check.mask_share(label)):.0f} %"
            found.append(f"On left-out slices linear interpolation of the contours of {label} did better: {part} of it comes from that.")
    return found


def repeated_share(stack: SliceStack, number: int) -> float:
    """Of the annotated slices that show segment ``number``, the share that equals the annotated slice before it; 0 for fewer than 5."""
    assert stack.occupancy is not None
    shown = stack.occupancy[number, stack.annotated]
    filled = shown.any(axis=(1, 2))
    pairs = np.flatnonzero(filled[1:] & filled[:-1])
    if len(pairs) < FEWEST_PAIRS:
        return 0.0
    return float((shown[pairs] == shown[pairs + 1]).all(axis=(1, 2)).mean())


def versions() -> dict[str, str]:
    """Versions of MedGS, Python and the packages a result depends on."""
    found = {"medgs": MedGSLib.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _geometry(prepared: Preparation) -> dict[str, Any]:
    stack, grid = prepared.stack, prepared.grid
    slices, height, width = stack.shape
    return {
        "frame": "RAS mm",
        "slice_axis": "ijk"[stack.axis],
        "crop_start_ijk": stack.start_ijk,
        "input_slices": slices,
        "output_slices": len(grid),
        "rows_columns": (height, width),
        "pixel_mm": stack.pixel_mm,
        "input_gap_mm": stack.gap_mm,
        "annotated_gap_mm": stack.annotated_gap_mm,
        "output_spacing_mm": grid.spacing_mm,
        "slice_thickness_mm": stack.slice_thickness_mm,
        "acquired_output_slices": grid.acquired.tolist(),
        "all_acquired_planes_on_grid": bool((grid.acquired >= 0).all()),
        "annotated_input_slices": np.flatnonzero(stack.annotated).tolist(),
        "plane_to_ras": stack.plane_to_ras.tolist(),
    }


def _reproduction(prepared: Preparation, rendered: NDArray[np.float32]) -> float | None:
    known = prepared.grid.acquired >= 0
    if prepared.slices is None or not known.any():
        return None
    return mean_psnr(rendered[prepared.grid.acquired[known], 0], prepared.slices[known])


def _segment(mesh: vtkPolyData, prepared: Preparation, label: str, check: SelfCheck | None) -> dict[str, Any]:
    found = topology(mesh)
    return (
        mesh_summary(mesh).as_dict()
        | _volume_by_areas(prepared.stack, label)
        | {
            "closed": found.closed,
            "manifold": found.manifold,
            "position_error_between_slices_q90_mm": position_error_mm(prepared, label, check),
            "position_error_is_calibrated": measured_error_mm(label, check) is not None,
        }
    )


def _volume_by_areas(stack: SliceStack, label: str) -> dict[str, float | None]:
    """What the annotated slices alone say of the volume between the first and the last of them, for comparison with the mesh."""
    assert stack.occupancy is not None
    number = [each.name for each in stack.labels].index(label)
    row_mm, column_mm = stack.pixel_mm
    areas = stack.occupancy[number, stack.annotated].sum(axis=(1, 2), dtype=np.float64) * row_mm * column_mm
    promised = volume_of_areas(areas, stack.positions_mm[stack.annotated])
    return {
        "volume_by_areas_cm3": None if promised is None else promised.volume / 1000.0,
        "volume_by_areas_standard_error_cm3": None if promised is None else promised.standard_error / 1000.0,
    }
