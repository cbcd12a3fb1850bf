"""The main job in memory: geometry end to end, modes, scales, labels, and models that are continued."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from vtkmodules.vtkFiltersCore import vtkImplicitPolyDataDistance

from MedGSLib.config import ReconstructionConfig, preset_config
from MedGSLib.errors import Cancelled, InputError
from MedGSLib.geometry import transform_points
from MedGSLib.io.stack import build_stack
from MedGSLib.mesh import polydata_from_arrays
from MedGSLib.metrics import dice, psnr
from MedGSLib.metrics_surface import max_diameter_mm, triangles_of, volume_mm3
from MedGSLib.model_file import save_model
from MedGSLib.prior.image_config import PriorConfig
from MedGSLib.reconstruct import Reconstruction, fingerprint, reconstruct
from MedGSLib.volume import Label, SliceStack, Volume

SPACING = np.array([0.9, 1.1, 3.6])
SHAPE = (26, 24, 9)
CENTER_IJK = np.array([12.3, 11.2, 3.9])
RADII_MM = np.array([8.0, 7.0, 9.5])
ORGAN = Label(1, "organ")


def ellipsoid() -> tuple[np.ndarray, np.ndarray]:
    """Image and mask [k, j, i] of an off-centre ellipsoid with a darker wedge, in noise: no symmetry hides a flip."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in reversed(SHAPE)), indexing="ij")[::-1], axis=-1)
    offset = (index - CENTER_IJK) * SPACING / RADII_MM
    inside = (offset**2).sum(axis=-1) < 1.0
    inside &= ~((offset[..., 0] > 0.1) & (offset[..., 1] > 0.2) & (offset[..., 2] > 0.0))
    image = 50.0 + 200.0 * inside + np.random.default_rng(1).normal(0.0, 6.0, inside.shape)
    return image.astype(np.float32), inside.astype(np.uint8)


def quick(**overrides: object) -> ReconstructionConfig:
    """A recipe of about a second."""
    options = {"scale": 4, "iterations": 60, "gaussians": 1500, "threads": 1, "device": "cpu"} | overrides
    return replace(preset_config("fast", **options), prior=PriorConfig(method="linear"))


def stack_of(image: np.ndarray | None, mask: np.ndarray | None, matrix: np.ndarray, **options: object) -> SliceStack:
    volume = None if image is None else Volume(np.ascontiguousarray(image), matrix)
    labels = None if mask is None else Volume(np.ascontiguousarray(mask), matrix)
    return build_stack(volume, labels, **({"margin_mm": None, "labels": (ORGAN,)} | options))


def moved(array: np.ndarray, matrix: np.ndarray, flips: str = "", order: str = "ijk") -> tuple[np.ndarray, np.ndarray]:
    """The same voxels at the same places in the patient, with array axes reversed and then permuted."""
    matrix = matrix.copy()
    for axis in flips:
        n = "ijk".index(axis)
        last = array.shape[2 - n] - 1
        array = np.flip(array, axis=2 - n)
        matrix[:3, 3] += matrix[:3, n] * last
        matrix[:3, n] *= -1.0
    columns = ["ijk".index(axis) for axis in order]
    return array.transpose([2 - n for n in reversed(columns)]), matrix[:, [*columns, 3]]


def oblique() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", [25.0, -40.0, 70.0], degrees=True).as_matrix() @ np.diag(SPACING)
    matrix[:3, 3] = (-70.0, 35.0, 110.0)
    return matrix


def centroid(surface) -> np.ndarray:
    """Of the enclosed volume."""
    points, triangles = triangles_of(surface)
    middle = points.mean(axis=0)
    a, b, c = (points[triangles[:, k]] - middle for k in range(3))
    share = np.einsum("ij,ij->i", a, np.cross(b, c))
    return middle + (share[:, None] * (a + b + c)).sum(axis=0) / 4.0 / share.sum()


def chamfer_mm(first, second) -> float:
    """Mean distance of the vertices of either surface from the other surface."""
    found = []
    for points, surface in ((triangles_of(first)[0], second), (triangles_of(second)[0], first)):
        distance = vtkImplicitPolyDataDistance()
        distance.SetInput(surface)
        found += [abs(distance.EvaluateFunction(point)) for point in points]
    return float(np.mean(found))


@pytest.fixture(scope="module")
def plain() -> Reconstruction:
    image, mask = ellipsoid()
    return reconstruct(stack_of(image, mask, np.diag([*SPACING, 1.0])), quick())


@pytest.mark.parametrize(
    ("flips", "order", "frame"),
    [
        ("i", "ijk", "axial"),
        ("ij", "ijk", "axial"),
        ("k", "ijk", "axial"),
        ("jk", "kij", "axial"),
        ("", "jik", "axial"),
        ("", "ijk", "oblique"),
        ("ik", "jki", "oblique"),
    ],
)
def test_the_same_patient_in_another_array_gives_the_same_surface(plain, flips, order, frame):
    image, mask = ellipsoid()
    axial = np.diag([*SPACING, 1.0])
    base = axial if frame == "axial" else oblique()
    voxels, matrix = moved(image, base, flips, order)
    labels, _ = moved(mask, base, flips, order)
    surface = reconstruct(stack_of(voxels, labels, matrix), quick()).meshes["organ"]
    back = axial @ np.linalg.inv(base)
    points, triangles = triangles_of(surface)
    points = transform_points(back, points)
    expected = plain.meshes["organ"]
    assert chamfer_mm(polydata_from_arrays(points, triangles), expected) < 0.1 * SPACING.min()
    assert volume_mm3((points, triangles)) == pytest.approx(volume_mm3(expected), rel=0.01)
    assert np.abs(centroid((points, triangles)) - centroid(expected)).max() < 0.1 * SPACING.min()


def test_the_surface_is_where_the_voxels_are(plain):
    """Of the base case itself, against the wedge ellipsoid sampled finely."""
    fine = np.stack(np.meshgrid(*(np.arange(-10.0, 10.0, 0.25) for _ in range(3)), indexing="ij"), axis=-1)
    offset = fine / RADII_MM
    inside = (offset**2).sum(axis=-1) < 1.0
    inside &= ~((offset[..., 0] > 0.1) & (offset[..., 1] > 0.2) & (offset[..., 2] > 0.0))
    true_center = fine[inside].mean(axis=0) + CENTER_IJK * SPACING
    surface = plain.meshes["organ"]
    assert np.abs(centroid(surface) - true_center).max() < 0.25
    assert volume_mm3(surface) == pytest.approx(inside.sum() * 0.25**3, rel=0.08)


@pytest.mark.parametrize(("gap", "tolerance"), [(1.0, 0.01), (5.0, 0.02)])
def test_a_sphere_keeps_its_volume_and_its_center(gap, tolerance):
    radius, center = 16.0, np.array([19.3, 18.6, 24.2])
    z, y, x = np.meshgrid(np.arange(0.0, 50.0, gap), np.arange(38.0), np.arange(40.0), indexing="ij")
    mask = ((x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2 < radius**2).astype(np.uint8)
    image = 100.0 * mask + np.random.default_rng(0).normal(0.0, 8.0, mask.shape)
    matrix = np.diag([1.0, 1.0, gap, 1.0])
    result = reconstruct(stack_of(image.astype(np.float32), mask, matrix), quick(scale=None, gaussians=2500, iterations=100))
    surface = result.meshes["organ"]
    assert volume_mm3(surface) == pytest.approx(4.0 / 3.0 * np.pi * radius**3, rel=tolerance)
    assert np.abs(centroid(surface) - center).max() < 0.1
    assert max_diameter_mm(surface) == pytest.approx(2.0 * radius, rel=0.06)


@pytest.mark.parametrize("mode", ["joint", "image", "mask"])
def test_a_mode_gives_its_parts(mode, plain):
    image, mask = ellipsoid()
    stack = stack_of(image, mask, np.diag([*SPACING, 1.0]))
    result = plain if mode == "joint" else reconstruct(stack, quick(mode=mode))
    assert (result.image is not None) == (result.uncertainty is not None) == (mode != "mask")
    assert (result.occupancy is not None) == (result.label_map is not None) == bool(result.meshes) == (mode != "image")
    assert result.gaussians.channels == {"joint": 2, "image": 1, "mask": 1}[mode]
    assert result.header.has_image == (mode != "mask")
    if result.image is not None:
        assert result.image.shape == (33, 24, 26) and result.image.dtype == np.float32
        assert np.isfinite(result.image).all() and (result.uncertainty >= 0).all()
    if result.label_map is not None:
        assert dice(result.label_map[::4] == 1, mask > 0) > 0.97


def test_acquired_slices_are_the_input_s(plain):
    image, _ = ellipsoid()
    np.testing.assert_allclose(plain.image[::4], image, rtol=1e-5, atol=1e-3)
    assert not plain.uncertainty[::4].any()
    assert plain.uncertainty[2::4].mean() > 0.0


@pytest.mark.parametrize(("options", "count", "step"), [({"scale": 3}, 25, 1.2), ({"spacing_mm": 1.9, "scale": None}, 17, 1.8)])
def test_scale_and_spacing_set_the_output_slices(options, count, step):
    image, _ = ellipsoid()
    result = reconstruct(stack_of(image, None, np.diag([*SPACING, 1.0])), quick(mode="image", iterations=5, **options))
    assert result.image.shape == (count, 24, 26)
    assert result.grid.spacing_mm == pytest.approx(step)
    scale = (count - 1) // 8
    np.testing.assert_allclose(result.image[::scale], image, rtol=1e-5, atol=1e-3)
    assert result.report["geometry"]["output_spacing_mm"] == pytest.approx(step)


def test_irregular_slices_land_at_their_own_positions():
    """A slanted rod through jittered slices: its centre line is straight in the patient, whatever the gaps."""
    positions = np.array([0.0, 3.0, 7.5, 10.0, 14.5, 17.0, 21.0, 24.0])
    y, x = np.mgrid[:24, :42].astype(float)
    mask = np.stack([(x - 8.0 - z) ** 2 + (y - 11.0) ** 2 < 25.0 for z in positions]).astype(np.uint8)
    image = (100.0 * mask).astype(np.float32)
    matrix = np.diag([1.0, 1.0, 1.0, 1.0])
    volume = Volume(image, matrix).with_positions(positions)
    stack = build_stack(volume, replace(volume, voxels=mask), (ORGAN,), margin_mm=None)
    result = reconstruct(stack, quick(scale=None, spacing_mm=1.0))
    step = result.grid.spacing_mm
    assert step == pytest.approx(1.0)
    for number in range(25):
        columns = np.where(result.occupancy[0, number] > 0.5, x, np.nan)
        assert np.nanmean(columns) == pytest.approx(8.0 + number, abs=0.35 if number in positions else 1.0), number


def test_the_same_seed_gives_the_same_result_bit_for_bit(plain):
    image, mask = ellipsoid()
    stack = stack_of(image, mask, np.diag([*SPACING, 1.0]))
    again = reconstruct(stack, quick())
    np.testing.assert_array_equal(again.image, plain.image)
    np.testing.assert_array_equal(again.occupancy, plain.occupancy)
    assert all(torch.equal(a, b) for a, b in zip(again.gaussians.parameters(), plain.gaussians.parameters(), strict=True))


def test_the_paper_s_recipe_runs_end_to_end():
    image, mask = ellipsoid()
    stack = stack_of(image, mask, oblique())
    config = preset_config("paper", iterations=150, gaussians=600, scale=2, threads=1, device="cpu")
    result = reconstruct(stack, config)
    assert result.gaussians.settings.degree == 7 and result.gaussians.settings.blending == "alpha"
    np.testing.assert_allclose(result.image[::2], image, rtol=1e-5, atol=1e-3)
    low, high = result.header.window
    assert psnr(result.image[1::2] / (high - low), 0.5 * (image[1:] + image[:-1]) / (high - low)) > 8.0
    assert np.isfinite(result.occupancy).all() and result.report["preparation"]["image_prior"]["method"] == "none"


def walled_ball() -> tuple[np.ndarray, np.ndarray]:
    """Two labels that share a wall at x = 13.5 px."""
    z, y, x = np.meshgrid(np.arange(0.0, 28.0, 4.0), np.arange(24.0), np.arange(28.0), indexing="ij")
    inside = (x - 13.5) ** 2 + (y - 11.0) ** 2 + (z - 12.0) ** 2 < 81.0
    labels = np.where(inside, np.where(x < 13.5, 2, 5), 0).astype(np.uint8)
    image = 30.0 * labels + np.random.default_rng(0).normal(0.0, 3.0, labels.shape)
    return image.astype(np.float32), labels


def test_labels_that_share_a_wall_neither_overlap_nor_leave_a_gap():
    image, labels = walled_ball()
    matrix = np.diag([1.0, 1.0, 4.0, 1.0])
    names = (Label(2, "lumen"), Label(5, "thrombus"))
    stack = stack_of(image, labels, matrix, labels=names)
    result = reconstruct(stack, quick())
    assert set(np.unique(result.label_map)) == {0, 2, 5}
    z, y, x = np.meshgrid(np.arange(25.0), np.arange(24.0), np.arange(28.0), indexing="ij")
    core = (x - 13.5) ** 2 + (y - 11.0) ** 2 + (z - 12.0) ** 2 < 49.0
    assert (result.label_map[core] > 0).all()
    np.testing.assert_array_equal(result.label_map[core], np.where(x < 13.5, 2, 5)[core])
    apart = [triangles_of(result.meshes[name])[0] for name in ("lumen", "thrombus")]
    middle = [points[np.linalg.norm(points[:, 1:] - (11.0, 12.0), axis=1) < 5.0] for points in apart]
    wall = [points[np.abs(points[:, 0] - 13.5) < 2.0, 0] for points in middle]
    assert [float(np.abs(side - 13.5).max()) < 0.4 for side in wall] == [True, True]
    total = sum(volume_mm3(surface) for surface in result.meshes.values())
    assert total == pytest.approx(4.0 / 3.0 * np.pi * 9.0**3, rel=0.02)


def test_a_segment_inside_another_keeps_both_surfaces():
    """Overlapping segments, as Slicer allows them: the lumen is part of the aneurysm."""
    z, y, x = np.meshgrid(np.arange(0.0, 28.0, 4.0), np.arange(24.0), np.arange(28.0), indexing="ij")
    square = (x - 13.2) ** 2 + (y - 11.4) ** 2 + (z - 12.0) ** 2
    occupancy = np.stack([square < 81.0, square < 25.0]).astype(np.float32)
    outer = stack_of(None, occupancy[0].astype(np.uint8), np.diag([1.0, 1.0, 4.0, 1.0]))
    both = replace(outer, occupancy=occupancy, labels=(Label(1, "aneurysm"), Label(2, "lumen")))
    result = reconstruct(both, quick(mode="mask", gaussians=1500))
    alone = reconstruct(outer, quick(mode="mask", gaussians=1500))
    volumes = {name: volume_mm3(surface) for name, surface in result.meshes.items()}
    assert volumes["aneurysm"] == pytest.approx(volume_mm3(alone.meshes["organ"]), rel=0.02)
    assert volumes["lumen"] == pytest.approx(4 / 3 * np.pi * 125.0, rel=0.12)
    assert result.label_map[12, 11, 13] == 2
    assert result.label_map[12, 11, 20] == 1


def test_an_empty_mask_has_no_surface_and_says_so(caplog):
    image, mask = ellipsoid()
    stack = stack_of(image, mask, np.diag([*SPACING, 1.0]))
    result = reconstruct(replace(stack, occupancy=np.zeros_like(stack.occupancy)), quick(iterations=5))
    assert result.meshes == {} and not result.label_map.any()
    assert "no surface" in caplog.text


@pytest.fixture(scope="module")
def image_model(tmp_path_factory) -> tuple[str, Reconstruction]:
    """A model of the whole image, and the reconstruction it comes from."""
    image, _ = ellipsoid()
    result = reconstruct(stack_of(image, None, oblique()), quick(mode="image", scale=3))
    path = tmp_path_factory.mktemp("model") / "image.medgs"
    save_model(path, result.gaussians, result.header)
    return str(path), result


def test_refining_a_mask_keeps_geometry_and_image_in_place_in_another_crop(image_model):
    path, source = image_model
    image, mask = ellipsoid()
    stack = stack_of(image, mask, oblique(), margin_mm=2.0)
    assert stack.shape != source.stack.shape and stack.start_ijk != (0, 0, 0)
    result = reconstruct(stack, quick(refine_mask=path, iterations=80))
    before, after = source.gaussians.state_dict(), result.gaussians.state_dict()
    places = []
    for state, header in ((before, source.header), (after, result.header)):
        index = torch.cat([state["center"], state["position"][:, None] * header.step_mm], dim=1).double().numpy()
        places.append(transform_points(header.matrix, index))
    np.testing.assert_allclose(places[1], places[0], atol=1e-3)
    for name in ("log_scale", "angle", "log_weight"):
        assert torch.equal(before[name], after[name]), name
    assert torch.equal(before["values"][:, 0], after["values"][:, 0])
    assert result.header.window == source.header.window
    factor = round(result.stack.gap_mm / result.grid.spacing_mm)
    assert dice(result.label_map[::factor] == 1, stack.occupancy[0] > 0) > 0.9
    rendered = result.report["fit"]["gaussians_on_acquired_slices_psnr_db"]
    assert rendered > source.report["fit"]["gaussians_on_acquired_slices_psnr_db"] - 3.0


def test_a_joint_run_can_start_from_an_image_model(image_model):
    path, source = image_model
    image, mask = ellipsoid()
    stack = stack_of(image, mask, oblique(), margin_mm=4.0)
    result = reconstruct(stack, quick(start_model=path, iterations=40))
    assert result.gaussians.channels == 2 and len(result.gaussians) == len(source.gaussians)
    assert not torch.equal(result.gaussians.log_scale, source.gaussians.log_scale)
    assert dice(result.occupancy[0, ::4] > 0.5, stack.occupancy[0] > 0) > 0.95
    low, high = result.header.window
    assert psnr(result.image[2::4] / (high - low), 0.5 * (stack.image[1:] + stack.image[:-1]) / (high - low)) > 20.0


@pytest.mark.parametrize("change", ["spacing", "direction", "mask model"])
def test_a_model_of_another_volume_is_refused(change, image_model, plain, tmp_path):
    path, _ = image_model
    image, mask = ellipsoid()
    matrix = oblique()
    if change == "spacing":
        matrix[:3, :3] *= 1.1
    elif change == "direction":
        matrix[:3, :3] = np.diag(SPACING)
    else:
        only_mask = reconstruct(stack_of(None, mask, oblique()), quick(mode="mask", iterations=2))
        path = str(tmp_path / "mask.medgs")
        save_model(tmp_path / "mask.medgs", only_mask.gaussians, only_mask.header)
    with pytest.raises(InputError, match="image head" if change == "mask model" else "another volume"):
        reconstruct(stack_of(image, mask, matrix), quick(refine_mask=path))


def test_cancelling_stops_at_any_stage_and_work_goes_on_from_there(tmp_path, plain):
    image, mask = ellipsoid()
    stack = stack_of(image, mask, np.diag([*SPACING, 1.0]))
    stages = []
    reconstruct(stack, quick(iterations=2), lambda event: stages.append(event.stage))
    assert set(stages) >= {"fit", "render", "surface"}
    for stage in sorted(set(stages)):
        with pytest.raises(Cancelled):
            reconstruct(stack, quick(iterations=2), lambda event, stop=stage: event.stage != stop)
    with pytest.raises(Cancelled):
        reconstruct(stack, quick(), lambda event: not (event.stage == "fit" and event.step >= 10), tmp_path)
    resumed = reconstruct(stack, quick(), checkpoint_dir=tmp_path)
    assert resumed.report["fit"]["resumed_from"] >= 10
    np.testing.assert_array_equal(resumed.occupancy, plain.occupancy)


def test_the_fingerprint_tells_runs_apart_by_what_changes_the_result():
    image, mask = ellipsoid()
    stack = stack_of(image, mask, np.diag([*SPACING, 1.0]))
    base = fingerprint(stack, quick())
    assert fingerprint(stack_of(image, mask, np.diag([*SPACING, 1.0])), quick(threads=2)) == base
    brighter = replace(stack, image=stack.image + 1.0)
    thicker = replace(stack, slice_thickness_mm=3.6)
    others = [fingerprint(s, c) for s, c in ((brighter, quick()), (thicker, quick()), (stack, quick(seed=1)), (stack, quick(degree=2)))]
    assert len({base, *others}) == 5


def test_the_report_can_be_written_as_json_and_names_the_essentials(plain):
    report = plain.report
    assert report["mode"] == "joint" and report["backend"].startswith("The CPU rasterizer")
    assert report["geometry"]["acquired_output_slices"] == list(range(0, 33, 4))
    assert report["segments"]["organ"]["closed"] and report["segments"]["organ"]["manifold"]
    assert report["segments"]["organ"]["volume_cm3"] == pytest.approx(volume_mm3(plain.meshes["organ"]) / 1000.0)
    assert {"prior_s", "fit_s", "render_s", "total_s"} <= set(report["timings"])
    assert {"medgs", "python", "torch", "numpy", "vtk"} <= set(report["versions"])
