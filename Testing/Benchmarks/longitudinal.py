"""Comparison of dates: growth on phantom pairs with exact truth, registration of real pairs, and speed.

    python Testing/Benchmarks/longitudinal.py [--parts phantom lung meningioma speed] [--gaps 5 3] [--growth 0 1 2 5] [--seeds 10]
        [--methods marching_cubes sdf propagated medgs] [--preset standard] [--threads N] [--cache FOLDER] [--data FOLDER] [-o FILE.json]

Phantom pairs are 8 mm / 6 degrees apart, of different slice phase and noise, the follow-up grown locally. ``marching_cubes`` is the
surface of the thick masks as they are, ``sdf`` that of linearly interpolated signed distances; all methods share their pair's registration.
``propagated`` has the ``sdf`` surface of the baseline carried over to the follow-up's image, whose mask is not used.
``medgs`` is what a user gets, self-check included. With ``--cache``, finished reconstructions and registrations are not computed again.
The meningioma's second scan has no segment: the tumour of the first, freed of the dura by an opening, is carried over.
The lung landmarks have no counterparts in the follow-up, so those come from a B-spline registration of the lungs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.ndimage import binary_erosion, binary_opening, label
from scipy.spatial.transform import Rotation
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.baselines.masks import sdf_linear
from MedGSLib.geometry import default_scale, flip_ras_lps, transform_points
from MedGSLib.io.meshes import read_mesh, write_mesh
from MedGSLib.io.stack import build_stack
from MedGSLib.io.volumes import read_volume
from MedGSLib.longitudinal.compare import GROWTH, CompareConfig, compare
from MedGSLib.longitudinal.registration import Registration, disagreement_mm, no_registration
from MedGSLib.longitudinal.registration_image import register_images, stable_anatomy
from MedGSLib.longitudinal.timepoints import PROPAGATED, TimePoint, sampling_of, time_point_from_stack, time_point_without_segment
from MedGSLib.mesh import POSITION_ARRAY, occupancy_to_mesh
from MedGSLib.metrics_surface import triangles_of
from MedGSLib.phantom import Acquisition, AneurysmPhantom, AneurysmTruth, make_aneurysm
from MedGSLib.phantom_shape import AneurysmShape
from MedGSLib.volume import Label, SliceStack, Volume

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SURROUNDING_MM = 3.0
"""Growth at its place is the median over the wall within this distance of it."""
GOOD_MATCH = 0.7
"""Correlation of the patches around a landmark and its counterpart from which the pair counts."""
LUNG_RIM = 5
TUMOUR_KJI = (26, 38, 40)
METHODS = ("marching_cubes", "sdf", PROPAGATED, "medgs")
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


def medgs(preset: str, mode: str, threads: int | None) -> Callable[[SliceStack], vtkPolyData]:
    from MedGSLib.config import preset_config
    from MedGSLib.reconstruct import reconstruct

    config = preset_config(preset, mode=mode, threads=threads)

    def surface(stack: SliceStack) -> vtkPolyData:
        result = reconstruct(stack, config)
        if not result.report["segments"]["aneurysm"]["position_error_is_calibrated"]:
            result.meshes["aneurysm"].GetPointData().RemoveArray(POSITION_ARRAY)
        return result.meshes["aneurysm"]

    return surface


@dataclass(frozen=True)
class Cache:
    """Finished surfaces and registrations in a folder; without one everything is computed."""

    folder: Path | None

    def surface(self, key: str, make: Callable[[], vtkPolyData]) -> vtkPolyData:
        path = None if self.folder is None else self.folder / f"{key}.vtp"
        if path is not None and path.exists():
            return read_mesh(path)
        surface = make()
        if path is not None:
            write_mesh(surface, path)
        return surface

    def registration(self, key: str, make: Callable[[], Registration]) -> Registration:
        path = None if self.folder is None else self.folder / f"{key}.json"
        if path is not None and path.exists():
            known = json.loads(path.read_text(encoding="utf-8"))
            return Registration(np.array(known["matrix"]), "image", known["captured"], known["residual_mm"])
        found = make()
        if path is not None:
            known = {"matrix": found.matrix.tolist(), "captured": found.captured, "residual_mm": found.residual_mm}
            path.write_text(json.dumps(known), encoding="utf-8")
        return found


def phantom_pairs(arguments: argparse.Namespace, store: Callable[[str, dict[str, Any]], None]) -> None:
    methods: dict[str, Callable[[SliceStack], vtkPolyData]] = {"marching_cubes": marching_cubes, "sdf": sdf, PROPAGATED: sdf}
    if "medgs" in arguments.methods:
        methods["medgs"] = medgs(arguments.preset, arguments.mode, arguments.threads)
    if arguments.cache is not None:
        arguments.cache.mkdir(parents=True, exist_ok=True)
    recipe = arguments.preset + ("" if arguments.mode == "joint" else f"_{arguments.mode}")
    for seed in range(arguments.first_seed, arguments.seeds):
        for gap in arguments.gaps:
            grown = [growth for growth in arguments.growth if growth == 0.0 or seed < arguments.growth_seeds]
            for row in _pair_series(seed, gap, grown, {name: methods[name] for name in arguments.methods}, recipe, Cache(arguments.cache)):
                store("phantom", row)


def _pair_series(seed: int, gap: float, grown: list[float], methods: dict[str, Any], recipe: str, cache: Cache) -> Iterator[dict[str, Any]]:
    def surface(name: str, phantom: AneurysmPhantom, date: str) -> vtkPolyData:
        if name != "medgs":
            return methods[name](_cropped(phantom))
        return cache.surface(f"{recipe}_{gap:g}mm_{seed}_{date}", lambda: methods[name](_cropped(phantom)))

    pose = misalignment(seed)
    before = scan(0.0, gap, 2 * seed, None, "20230101")
    surfaces = {name: surface(name, before, "before") for name in methods}
    for growth in grown:
        after = scan(growth, gap, 2 * seed + 1, pose, "20250101")
        date = f"after{growth:g}mm"
        registration = cache.registration(f"{gap:g}mm_{seed}_{date}", partial(_registered, before, after))
        wall = transform_points(pose, triangles_of(before.truth.mesh(4.0))[0])
        error = disagreement_mm(registration.matrix, np.asarray(np.linalg.inv(pose)), wall)
        for name in methods:
            if name == PROPAGATED:
                later = time_point_without_segment(build_stack(after.image, margin_mm=None), name="after")
            else:
                later = _time_point(after, surface(name, after, date), "after")
            points = [_time_point(before, surfaces[name], "before"), later]
            row = {"method": name, "preset": recipe if name == "medgs" else None, "gap_mm": gap, "growth_mm": growth, "seed": seed}
            row |= {"registration_error_mm": error, "registration_residual_mm": registration.residual_mm}
            yield row | _row(points, registration, after.truth, growth)


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
    return TimePoint(name, {"aneurysm": surface}, volume=phantom.image, sampling=sampling_of(_cropped(phantom)))


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
    """Two scans that are aligned already: registration must not move them, and the tumour's growth shows."""
    folder = arguments.data / "mr_meningioma_longitudinal_slicer"
    first, second = (read_volume(folder / f"{name}_image.nrrd") for name in ("t1", "t2"))
    found = register_images(first, second)
    corners = np.stack(np.meshgrid(*[(0.0, size - 1.0) for size in first.shape_ijk]), axis=-1).reshape(-1, 3)
    moved = disagreement_mm(found.matrix, np.eye(4), transform_points(first.ijk_to_ras, corners))
    row = {"moved_at_corners_mm": moved, "half_voxel_mm": 0.1922, "quality": found.quality, "message": found.message}
    mask = read_volume(folder / "t1_seg.nrrd")
    baseline = time_point_from_stack(
        build_stack(first, Volume(tumour_of(mask.voxels > 0), mask.ijk_to_ras), (Label(1, "tumour"),), margin_mm=None)
    )
    followup = time_point_without_segment(build_stack(second, margin_mm=None), name="t2")
    result = compare([baseline, followup])
    aligned, growth = result.registrations[1], result.growth[0]
    assert growth.outward is not None
    changes = {change.measure: change for change in growth.changes}
    row["compare_moved_mm"] = disagreement_mm(aligned.matrix, np.eye(4), triangles_of(baseline.surfaces["tumour"])[0])
    row |= {"distance_mm": growth.outward.as_dict(), "band_mm": growth.band_median_mm, "significant_share": growth.significant_area_share}
    row |= {"largest_mm": growth.largest_significant_mm, "largest_place_ras": growth.largest_significant_place}
    row |= {"changes": {name: [change.before, change.after, change.band] for name, change in changes.items()}}
    store("meningioma", row | result.time_points[1].facts)


def tumour_of(bright: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The piece around :data:`TUMOUR_KJI` of the threshold mask (K, J, I), cut from dura and scalp by an opening."""
    ball = np.linalg.norm(np.indices((11, 11, 11)) - 5, axis=0) <= 5.0
    pieces, _ = label(binary_opening(bright, ball))
    return (pieces == pieces[TUMOUR_KJI]).astype(np.uint8)


def speed(_: argparse.Namespace, store: Callable[[str, dict[str, Any]], None]) -> None:
    """Two meshes of 200 000 triangles, without registration and files."""
    surfaces = [AneurysmTruth(AneurysmShape(growth_mm=growth)).mesh(0.42) for growth in (0.0, 3.0)]
    wall, cpu = time.perf_counter(), time.process_time()
    points = [TimePoint(name, {"aneurysm": surface}) for name, surface in zip(("a", "b"), surfaces, strict=True)]
    compare(points, CompareConfig([no_registration()]))
    row = {"triangles": [surface.GetNumberOfPolys() for surface in surfaces]}
    store("speed", row | {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu})


def _name(row: dict[str, Any]) -> str:
    return f"medgs {row['preset']}" if row["method"] == "medgs" else str(row["method"])


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
    for key in sorted({(_name(row), row["gap_mm"], row["growth_mm"]) for row in rows}):
        group = [row for row in rows if (_name(row), row["gap_mm"], row["growth_mm"]) == key]
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
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--growth-seeds", type=int, default=3, help="pairs of each growth above 0")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--mode", choices=("joint", "mask"), default="joint", help="what MedGS is given: image and mask, or the mask alone")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps reconstructions and registrations")
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
