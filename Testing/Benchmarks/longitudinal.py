"""Comparison of dates: growth on phantom pairs with exact truth, registration of real pairs, and speed.

    python Testing/Benchmarks/longitudinal.py [--parts phantom lung meningioma speed] [--gaps 5 3] [--growth 0 1 2 5] [--seeds 10]
        [--methods marching_cubes sdf medgs] [--preset standard] [--threads N] [--data ../shared/data] [-o FILE.json]

Phantom pairs are 8 mm / 6 degrees apart, of different slice phase and noise, the follow-up grown locally. ``marching_cubes`` is the
surface of the thick masks as they are, ``sdf`` that of linearly interpolated signed distances; all methods share their pair's registration.
The lung landmarks have no counterparts in the follow-up, so those come from a B-spline registration of the lungs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.ndimage import binary_erosion
from scipy.spatial.transform import Rotation
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.baselines.masks import sdf_linear
from MedGSLib.geometry import default_scale, flip_ras_lps, transform_points
from MedGSLib.io.stack import build_stack
from MedGSLib.io.volumes import read_volume
from MedGSLib.longitudinal.compare import GROWTH, CompareConfig, compare
from MedGSLib.longitudinal.registration import Registration, disagreement_mm, no_registration
from MedGSLib.longitudinal.registration_image import register_images, stable_anatomy
from MedGSLib.longitudinal.timepoints import TimePoint, sampling_of, time_point_from_stack
from MedGSLib.mesh import POSITION_ARRAY, occupancy_to_mesh
from MedGSLib.metrics_surface import triangles_of
from MedGSLib.phantom import Acquisition, AneurysmPhantom, AneurysmTruth, make_aneurysm
from MedGSLib.phantom_shape import AneurysmShape
from MedGSLib.volume import SliceStack

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SURROUNDING_MM = 3.0
"""Growth at its place is the median over the wall within this distance of it."""
GOOD_MATCH = 0.7
"""Correlation of the patches around a landmark and its counterpart from which the pair counts."""
LUNG_RIM = 5
console = Console(width=140)


def scan(growth: float, gap: float, seed: int, pose: NDArray[np.float64] | None, date: str) -> AneurysmPhantom:
    phase = float(np.random.default_rng(seed).random())
    acquisition = Acquisition(size=(96, 96, round(130 / gap)), gap_mm=gap, phase=phase, seed=seed, study_date=date)
    return make_aneurysm(AneurysmShape(growth_mm=growth), acquisition, pose)


def misalignment(seed: int) -> NDArray[np.float64]:
    """6 degrees and 8 mm in a random direction."""
    generator = np.random.default_rng(seed)
    axis, way = generator.normal(size=(2, 3))
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(np.deg2rad(6.0) * axis / np.linalg.norm(axis)).as_matrix()
    pose[:3, 3] = 8.0 * way / np.linalg.norm(way)
    return pose


def marching_cubes(stack: SliceStack) -> vtkPolyData:
    assert stack.occupancy is not None
    return occupancy_to_mesh(stack.occupancy[0], stack.index_to_ras(stack.gap_mm))


def sdf(stack: SliceStack) -> vtkPolyData:
    assert stack.occupancy is not None
    step = stack.gap_mm / default_scale(stack.gap_mm, stack.pixel_mm[1])
    wanted = np.arange(0.0, stack.positions_mm[-1] + 0.5 * step, step)
    distances = sdf_linear(stack.occupancy[0] >= 0.5, stack.positions_mm, wanted, stack.pixel_mm)
    return occupancy_to_mesh(0.5 + 0.5 * np.tanh(distances / 2.0), stack.index_to_ras(step))


def medgs(preset: str, threads: int | None) -> Callable[[SliceStack], vtkPolyData]:
    from MedGSLib.config import preset_config
    from MedGSLib.reconstruct import reconstruct

    config = preset_config(preset, threads=threads)

    def surface(stack: SliceStack) -> vtkPolyData:
        result = reconstruct(stack, config)
        if not result.report["segments"]["aneurysm"]["position_error_is_calibrated"]:
            result.meshes["aneurysm"].GetPointData().RemoveArray(POSITION_ARRAY)
        return result.meshes["aneurysm"]

    return surface


def phantom_pairs(arguments: argparse.Namespace, store: Callable[[str, dict[str, Any]], None]) -> None:
    methods: dict[str, Callable[[SliceStack], vtkPolyData]] = {"marching_cubes": marching_cubes, "sdf": sdf}
    if "medgs" in arguments.methods:
        methods["medgs"] = medgs(arguments.preset, arguments.threads)
    for seed in range(arguments.seeds):
        for gap in arguments.gaps:
            grown = [growth for growth in arguments.growth if growth == 0.0 or seed < arguments.growth_seeds]
            _pair_series(seed, gap, grown, {name: methods[name] for name in arguments.methods}, store)


def _pair_series(seed: int, gap: float, grown: list[float], methods: dict[str, Any], store: Callable[[str, dict[str, Any]], None]) -> None:
    pose = misalignment(seed)
    before = scan(0.0, gap, 2 * seed, None, "20230101")
    surfaces = {name: method(_cropped(before)) for name, method in methods.items()}
    for growth in grown:
        after = scan(growth, gap, 2 * seed + 1, pose, "20250101")
        registration = _registered(before, after)
        wall = transform_points(pose, triangles_of(before.truth.mesh(4.0))[0])
        error = disagreement_mm(registration.matrix, np.asarray(np.linalg.inv(pose)), wall)
        for name, method in methods.items():
            points = [_time_point(before, surfaces[name], "before"), _time_point(after, method(_cropped(after)), "after")]
            row = {"method": name, "gap_mm": gap, "growth_mm": growth, "seed": seed, "registration_error_mm": error}
            row |= {"registration_residual_mm": registration.residual_mm} | _row(points, registration, after.truth, growth)
            store("phantom", row)


def _cropped(phantom: AneurysmPhantom) -> SliceStack:
    thickness = float(phantom.image.meta["slice_thickness_mm"])
    return build_stack(phantom.image, phantom.labels, phantom.segments, slice_thickness_mm=thickness)


def _registered(before: AneurysmPhantom, after: AneurysmPhantom) -> Registration:
    points = [
        time_point_from_stack(build_stack(scanned.image, scanned.labels, scanned.segments, margin_mm=None)) for scanned in (before, after)
    ]
    stable = [stable_anatomy(point.volume, point.segment_mask) for point in points if point.volume is not None]
    wall = triangles_of(points[0].surfaces["aneurysm"])[0][::40]
    return register_images(before.image, after.image, baseline_stable=stable[0], followup_stable=stable[1], points_ras=wall)


def _time_point(phantom: AneurysmPhantom, surface: vtkPolyData, name: str) -> TimePoint:
    return TimePoint(name, {"aneurysm": surface}, sampling=sampling_of(_cropped(phantom)))


def _row(points: list[TimePoint], registration: Registration, truth: AneurysmTruth, growth: float) -> dict[str, Any]:
    found = compare(points, CompareConfig([registration])).growth[0]
    assert found.surface is not None
    place = AneurysmTruth(AneurysmShape(growth_mm=growth)).growth_place_ras()
    near = np.linalg.norm(triangles_of(found.surface)[0] - place, axis=1) < SURROUNDING_MM
    true_wall = triangles_of(AneurysmTruth(truth.shape).mesh(0.8))[0]
    expected = -AneurysmTruth(AneurysmShape()).signed_distance(true_wall[np.linalg.norm(true_wall - place, axis=1) < SURROUNDING_MM])
    values = vtk_to_numpy(found.surface.GetPointData().GetArray(GROWTH))
    changes = {change.measure: change for change in found.changes}
    diameter = changes["max_diameter"]
    return {
        "recovered_mm": float(np.median(values[near])) if near.any() else float("nan"),
        "true_there_mm": float(np.median(expected)),
        "largest_significant_mm": found.largest_significant_mm,
        "significant_area_share": found.significant_area_share,
        "band_mm": found.band_median_mm,
        "diameter_mm": diameter.after,
        "true_diameter_mm": truth.max_diameter_mm,
        "significant_measures": [change.measure for change in found.changes if change.significant],
        "volume_error_percent": 100.0 * (changes["volume"].after * 1000.0 / truth.volume_mm3 - 1.0),
    }


def lung(arguments: argparse.Namespace, store: Callable[[str, dict[str, Any]], None]) -> None:
    """Rigid registration against the best rigid fit of landmark pairs, on the inside of the lung."""
    folder = arguments.data / "ct_lung_longitudinal_elastix"
    first, second = (read_volume(folder / f"{name}_image.mha") for name in ("t1", "t2"))
    masks = [read_volume(folder / f"{name}_lungmask.mha").voxels > 0 for name in ("t1", "t2")]
    before, after = landmark_pairs(folder)
    inner = [binary_erosion(mask, iterations=LUNG_RIM) for mask in masks]
    found = register_images(first, second, baseline_stable=inner[0], followup_stable=inner[1], points_ras=before)
    rotation, shift = Rotation.align_vectors(before - before.mean(axis=0), after - after.mean(axis=0))[0], before.mean(axis=0)
    bound = np.linalg.norm(rotation.apply(after - after.mean(axis=0)) + shift - before, axis=1)
    error = np.linalg.norm(transform_points(found.matrix, after) - before, axis=1)
    row = {"landmarks": len(before), "start_mm": float(np.linalg.norm(after - before, axis=1).mean()), "error_mm": float(error.mean())}
    row |= {"best_rigid_mm": float(bound.mean()), "ratio": float(error.mean() / bound.mean()), "captured": found.captured}
    store("lung", row | {"residual_mm": found.residual_mm, "message": found.message})


def landmark_pairs(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Landmarks of the baseline that lie in the lung, and their places in the follow-up, both (N, 3) RAS."""
    images = [sitk.Clamp(sitk.ReadImage(str(folder / f"{name}_image.mha")), sitk.sitkFloat32, -1000.0, 300.0) for name in ("t1", "t2")]
    mask = sitk.ReadImage(str(folder / "t1_lungmask.mha")) > 0
    points = np.loadtxt(folder / "t1_landmarks.txt", skiprows=2)
    inside = [
        bool(mask.EvaluateAtPhysicalPoint(point.tolist(), sitk.sitkNearestNeighbor)) if _within(mask, point) else False for point in points
    ]
    kept = points[np.array(inside)]
    move = _deformed(images[0], images[1], sitk.BinaryDilate(mask, [3, 3, 2]))
    warped = sitk.GetArrayFromImage(sitk.Resample(images[1], images[0], move, sitk.sitkLinear, -1000.0))
    fixed = sitk.GetArrayFromImage(images[0])
    good = np.array([_patch_match(fixed, warped, images[0].TransformPhysicalPointToIndex(point.tolist())) > GOOD_MATCH for point in kept])
    there = np.array([move.TransformPoint(point.tolist()) for point in kept])
    return flip_ras_lps(kept[good]), flip_ras_lps(there[good])


def _within(image: sitk.Image, point: NDArray[np.float64]) -> bool:
    index = image.TransformPhysicalPointToIndex(point.tolist())
    return all(0 <= at < size for at, size in zip(index, image.GetSize(), strict=True))


def _patch_match(fixed: NDArray, warped: NDArray, index_ijk: tuple[int, ...]) -> float:
    window = tuple(slice(max(at - reach, 0), at + reach + 1) for at, reach in zip(index_ijk[::-1], (3, 5, 5), strict=True))
    return float(np.corrcoef(fixed[window].ravel(), warped[window].ravel())[0, 1])


def _deformed(fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image) -> sitk.Transform:
    """Affine by mutual information, then B-spline by correlation, within the lung."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(40)
    method.SetMetricFixedMask(mask)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.3, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([4, 2])
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100, estimateLearningRate=method.Once, maximumStepSizeInPhysicalUnits=3.0)
    method.SetOptimizerScalesFromPhysicalShift()
    affine = sitk.AffineTransform(sitk.CenteredTransformInitializer(fixed, moving, sitk.AffineTransform(3)))
    method.SetInitialTransform(affine, inPlace=True)
    method.Execute(fixed, moving)
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingPercentage(0.15, 1)
    method.SetOptimizerAsLBFGSB(1e-6, 40, 5, 500, 1e7)
    method.SetMovingInitialTransform(affine)
    spline = sitk.BSplineTransformInitializer(fixed, [9, 11, 12])
    method.SetInitialTransform(spline, inPlace=True)
    method.Execute(fixed, moving)
    return sitk.CompositeTransform([affine, spline])


def meningioma(arguments: argparse.Namespace, store: Callable[[str, dict[str, Any]], None]) -> None:
    """Two scans that are aligned already: registration must not move them."""
    folder = arguments.data / "mr_meningioma_longitudinal_slicer"
    first, second = (read_volume(folder / f"{name}_image.nrrd") for name in ("t1", "t2"))
    found = register_images(first, second)
    corners = np.stack(np.meshgrid(*[(0.0, size - 1.0) for size in first.shape_ijk]), axis=-1).reshape(-1, 3)
    moved = disagreement_mm(found.matrix, np.eye(4), transform_points(first.ijk_to_ras, corners))
    store("meningioma", {"moved_at_corners_mm": moved, "half_voxel_mm": 0.1922, "quality": found.quality, "message": found.message})


def speed(_: argparse.Namespace, store: Callable[[str, dict[str, Any]], None]) -> None:
    """Two meshes of 200 000 triangles, without registration and files."""
    surfaces = [AneurysmTruth(AneurysmShape(growth_mm=growth)).mesh(0.42) for growth in (0.0, 3.0)]
    wall, cpu = time.perf_counter(), time.process_time()
    points = [TimePoint(name, {"aneurysm": surface}) for name, surface in zip(("a", "b"), surfaces, strict=True)]
    compare(points, CompareConfig([no_registration()]))
    row = {"triangles": [surface.GetNumberOfPolys() for surface in surfaces]}
    store("speed", row | {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu})


def show(results: dict[str, list[dict[str, Any]]]) -> None:
    """Print the phantom table, worst cases over seeds, and the other rows as they are."""
    table = Table(
        "method",
        "gap",
        "growth",
        "n",
        "recovered (worst error)",
        "diameter (worst error)",
        "significant",
        "false",
        title="phantom pairs, mm",
    )
    rows = results.get("phantom", [])
    for key in sorted({(row["method"], row["gap_mm"], row["growth_mm"]) for row in rows}):
        group = [row for row in rows if (row["method"], row["gap_mm"], row["growth_mm"]) == key]
        error = max(abs(row["recovered_mm"] - row["true_there_mm"]) for row in group)
        diameter = max(abs(row["diameter_mm"] - row["true_diameter_mm"]) for row in group)
        significant = sum(row["largest_significant_mm"] is not None for row in group)
        recovered = f"{np.mean([row['recovered_mm'] for row in group]):.2f} of {group[0]['true_there_mm']:.2f} ({error:.2f})"
        measured = f"{np.mean([row['diameter_mm'] for row in group]):.2f} of {group[0]['true_diameter_mm']:.2f} ({diameter:.2f})"
        false = sum(bool(row["significant_measures"]) for row in group) if key[2] == 0.0 else ""
        table.add_row(key[0], f"{key[1]:g}", f"{key[2]:g}", str(len(group)), recovered, measured, str(significant), str(false))
    if rows:
        console.print(table)
    for part in ("lung", "meningioma", "speed"):
        for row in results.get(part, []):
            console.print(part, row)


def main() -> None:
    """Measure what was asked for; each finished row is stored."""
    parts = {"phantom": phantom_pairs, "lung": lung, "meningioma": meningioma, "speed": speed}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=tuple(parts), default=list(parts))
    parser.add_argument("--gaps", nargs="+", type=float, default=[5.0, 3.0])
    parser.add_argument("--growth", nargs="+", type=float, default=[0.0, 1.0, 2.0, 5.0])
    parser.add_argument("--seeds", type=int, default=10, help="pairs without growth")
    parser.add_argument("--growth-seeds", type=int, default=3, help="pairs of each growth above 0")
    parser.add_argument("--methods", nargs="+", choices=("marching_cubes", "sdf", "medgs"), default=["marching_cubes", "sdf", "medgs"])
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}

    def store(part: str, row: dict[str, Any]) -> None:
        results.setdefault(part, []).append(row)
        if arguments.output is not None:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(results, indent=1, default=float) + "\n", encoding="utf-8")

    for part in arguments.parts:
        parts[part](arguments, store)
    show(results)


if __name__ == "__main__":
    main()
