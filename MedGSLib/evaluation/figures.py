"""The figures by which an answer is compared with the truth."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.evaluation.methods import Estimate
from MedGSLib.evaluation.names import THICK
from MedGSLib.evaluation.protocols import Problem
from MedGSLib.mesh import occupancy_to_mesh
from MedGSLib.metrics import dice, mean_psnr, mean_slice_dice, mean_ssim, sharpness
from MedGSLib.metrics_surface import max_diameter_mm, roughness_deg, surface_distance, volume_mm3
from MedGSLib.prior.thick import ProfileOperator

SMALLEST_SSIM_SIDE = 11
"""Pixels that the window of SSIM needs."""


def figures(estimate: Estimate, problem: Problem) -> dict[str, float]:
    """What the answer is worth, on slices that no method saw.

    ``psnr_db`` and ``ssim``: means over the slices, range 1, values clipped to it. ``sharpness``: gradient energy of the whole volume over
    that of the truth. ``acquired_psnr_db``: how well the given slices are reproduced, as averages where they are thick. ``dice_slices``:
    mean over slices; ``dice_volume``: over all voxels of them. Surfaces are compared with the marching-cubes surface of the full
    mask: ``chamfer_mm``, ``hd95_mm``, ``volume_bias_percent``, ``diameter_error_mm`` (both signed), ``roughness_deg``.

    :return: NaN or nothing for what cannot be measured.
    """
    found: dict[str, float] = {}
    if estimate.image is not None and problem.truth.image is not None:
        found |= _image_figures(estimate.image, problem)
    if estimate.occupancy is not None and problem.truth.mask is not None:
        found |= _mask_figures(estimate, problem)
    return found


def _image_figures(image: NDArray[np.float32], problem: Problem) -> dict[str, float]:
    truth = problem.truth
    assert truth.image is not None
    dense = np.clip(image, 0.0, 1.0)[truth.rows]
    found = {
        "psnr_db": mean_psnr(dense[truth.scored], truth.image[truth.scored]),
        "sharpness": sharpness(dense, truth.image),
        "acquired_psnr_db": _reproduction(image, problem),
    }
    if min(dense.shape[1:]) >= SMALLEST_SSIM_SIDE:
        found["ssim"] = mean_ssim(dense[truth.scored], truth.image[truth.scored])
    return found


def _reproduction(image: NDArray[np.float32], problem: Problem) -> float:
    """PSNR of the acquired slices; the outermost thick ones reach beyond the answer and are not counted."""
    slices = problem.stack.image
    assert slices is not None
    if problem.protocol != THICK:
        return mean_psnr(image[:: problem.scale], slices)
    again = ProfileOperator(problem.profile, len(slices), problem.scale).average(image)
    inner = slice(1, -1) if len(slices) > 2 else slice(None)
    return mean_psnr(again[inner], slices[inner])


def _mask_figures(estimate: Estimate, problem: Problem) -> dict[str, float]:
    truth = problem.truth
    assert truth.mask is not None and estimate.occupancy is not None
    inside = estimate.occupancy[truth.rows] > 0.5
    found = {
        "dice_slices": mean_slice_dice(inside[truth.scored], truth.mask[truth.scored]),
        "dice_volume": dice(inside[truth.scored], truth.mask[truth.scored]),
    }
    if truth.mask.any():
        reference = occupancy_to_mesh(truth.mask.astype(np.float32), problem.truth_to_ras)
        found |= _surface_figures(estimate.surface, reference)
    return found


def _surface_figures(surface: vtkPolyData | None, reference: vtkPolyData) -> dict[str, float]:
    if surface is None:
        return {"chamfer_mm": math.inf, "hd95_mm": math.inf, "volume_bias_percent": -100.0}
    distance = surface_distance(surface, reference)
    return {
        "chamfer_mm": distance.chamfer_mm,
        "hd95_mm": distance.hd95_mm,
        "volume_bias_percent": 100.0 * (volume_mm3(surface) / volume_mm3(reference) - 1.0),
        "diameter_error_mm": max_diameter_mm(surface) - max_diameter_mm(reference),
        "roughness_deg": roughness_deg(surface),
    }
