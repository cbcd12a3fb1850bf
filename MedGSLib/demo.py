"""The demonstration: a synthetic aortic aneurysm is written to files, reconstructed from them, and measured against its truth."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.config import InputOptions, ReconstructionConfig
from MedGSLib.geometry import spacing
from MedGSLib.io.atomic import atomic_write
from MedGSLib.io.images import write_image
from MedGSLib.io.meshes import read_mesh
from MedGSLib.io.stack import load_stack
from MedGSLib.io.volumes import read_volume
from MedGSLib.io.writers import segment_header
from MedGSLib.longitudinal.vessel import measure_vessel
from MedGSLib.metrics_surface import surface_area_mm2, triangles_of
from MedGSLib.phantom import Acquisition, AneurysmPhantom, AneurysmTruth, make_aneurysm
from MedGSLib.phantom_shape import AneurysmShape
from MedGSLib.preview import DenseResult, write_demo_summary
from MedGSLib.progress import ProgressCallback
from MedGSLib.reconstruct import reconstruct_files


@dataclass(frozen=True)
class Measure:
    """A figure of the aneurysm: what the phantom was made with, and what the reconstruction shows."""

    name: str
    true: float
    measured: float
    unit: str


def run_demo(output: Path, config: ReconstructionConfig, progress: ProgressCallback | None = None) -> list[Measure]:
    """Write the slices to ``output/input``, reconstruct them into ``output`` and draw ``output/summary.png``.

    :return: true and measured figures.
    """
    phantom = make_aneurysm()
    image, mask = write_inputs(phantom, output / "input")
    inputs = InputOptions(slice_thickness_mm=float(phantom.image.meta["slice_thickness_mm"]))
    started = time.monotonic()
    reconstruct_files(image, mask, output, config, inputs, progress=progress)
    seconds = time.monotonic() - started
    surface = read_mesh(output / "mesh.vtp")
    measures = measure(surface, phantom.truth)
    stack = load_stack(image, mask, margin_mm=inputs.margin_mm)
    figures = [(part.name, part.true, part.measured, part.unit) for part in measures if part.true > 0]
    distances = ", ".join(f"{part.name} {part.measured:.2f} {part.unit}" for part in measures if part.true == 0)
    note = f"{distances}. Preset {config.preset}, {len(stack.positions_mm)} slices of {stack.gap_mm:g} mm, {seconds:.0f} s."
    write_demo_summary(
        output / "summary.png", stack, _dense_result(output, surface), figures, "MedGS demo: synthetic aortic aneurysm", note
    )
    return measures


def write_inputs(phantom: AneurysmPhantom, folder: Path) -> tuple[Path, Path]:
    """Write the scan and its segmentation as a user would have them.

    :return: paths of the image and of the segmentation.
    """
    image, mask = folder / "ct.nrrd", folder / "aneurysm.seg.nrrd"
    with atomic_write(image) as temporary:
        write_image(temporary, phantom.image)
    with atomic_write(mask) as temporary:
        write_image(temporary, phantom.labels, segment_header(phantom.segments, phantom.labels))
    return image, mask


def write_samples(output: Path) -> list[Path]:
    """Write the scans and segmentations of two dates, between which the patient lay down anew and the wall grew by 4 mm at one place.

    :return: the written files.
    """
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", (2.0, -3.0, 5.0), degrees=True).as_matrix()
    pose[:3, 3] = (5.0, -4.0, 4.0)
    first = make_aneurysm(acquisition=Acquisition(study_date="20230502", seed=1))
    second = make_aneurysm(AneurysmShape(growth_mm=4.0), Acquisition(study_date="20250430", seed=2, phase=0.4), pose)
    return [path for year, scan in (("2023", first), ("2025", second)) for path in write_inputs(scan, output / year)]


def measure(surface: vtkPolyData, truth: AneurysmTruth) -> list[Measure]:
    """Measure a surface in RAS mm as a user would, and compare with the truth of the phantom."""
    true_surface = truth.mesh()
    from_wall = np.abs(truth.signed_distance(triangles_of(surface)[0]))
    vessel = measure_vessel(surface)
    return [
        Measure("largest diameter", truth.max_diameter_mm, vessel.max_diameter_mm, "mm"),
        Measure("length", truth.length_mm, vessel.length_mm, "mm"),
        Measure("volume", truth.volume_mm3 / 1000.0, vessel.volume_cm3, "cm3"),
        Measure("surface", surface_area_mm2(true_surface) / 100.0, vessel.area_cm2, "cm2"),
        Measure("mean distance from the true wall", 0.0, float(from_wall.mean()), "mm"),
        Measure("95 % distance from the true wall", 0.0, float(np.percentile(from_wall, 95)), "mm"),
    ]


def _dense_result(output: Path, surface: vtkPolyData) -> DenseResult:
    occupancy = read_volume(output / "occupancy.nrrd")
    image = read_volume(output / "volume.nrrd").voxels.astype(np.float32)
    return DenseResult(float(spacing(occupancy.ijk_to_ras)[2]), image, occupancy.voxels[None].astype(np.float32), [surface])
