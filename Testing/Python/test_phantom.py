"""The synthetic aneurysm agrees with its own analytic truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from vtkmodules.vtkFiltersCore import vtkImplicitPolyDataDistance

from MedGSLib import mesh
from MedGSLib.geometry import transform_points
from MedGSLib.metrics_surface import triangles_of
from MedGSLib.phantom import Acquisition, AneurysmTruth, make_aneurysm
from MedGSLib.phantom_shape import AneurysmShape

SMALL = Acquisition(size=(56, 56, 22), pixel_mm=1.8, noise_hu=0.0)


def pose(degrees: float, shift: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * np.array([0.5, -0.7, 0.51])).as_matrix()
    matrix[:3, 3] = shift
    return matrix


@pytest.mark.parametrize("growth_mm", [0.0, 5.0])
def test_the_true_mesh_has_the_analytic_volume(growth_mm: float) -> None:
    truth = AneurysmTruth(AneurysmShape(growth_mm=growth_mm), pose(12.0, (8.0, -3.0, 30.0)))
    summary = mesh.mesh_summary(truth.mesh(1.0))
    assert summary.volume_cm3 * 1000 == pytest.approx(truth.volume_mm3, rel=2e-3)


def test_the_signed_distance_is_the_distance_to_the_true_mesh() -> None:
    truth = AneurysmTruth(AneurysmShape(growth_mm=3.0), pose(20.0, (-20.0, 5.0, 60.0)))
    surface = truth.mesh(0.7)
    distance = vtkImplicitPolyDataDistance()
    distance.SetInput(surface)
    points, triangles = triangles_of(surface)
    chosen = np.random.default_rng(1).choice(len(points), 400, replace=False)
    normals = mesh.vertex_normals(points, triangles)
    assert np.abs(truth.signed_distance(points)).max() < 2e-3
    for offset in (-2.0, 1.0, 2.0):
        probes = points[chosen] + offset * normals[chosen]
        exact = np.array([-distance.EvaluateFunction(probe) for probe in probes])
        assert np.abs(truth.signed_distance(probes) - exact).max() < 0.08
        assert np.all(np.sign(exact) == -np.sign(offset))


def test_growth_has_the_stated_height_and_place() -> None:
    before, after = (AneurysmTruth(AneurysmShape(growth_mm=growth)) for growth in (0.0, 5.0))
    surface = after.mesh(1.0)
    points = triangles_of(surface)[0]
    outward = -before.signed_distance(points)
    assert outward.max() == pytest.approx(5.0, abs=0.1)
    assert np.linalg.norm(points[outward.argmax()] - after.growth_place_ras()) < 2.0
    assert outward.min() > -0.01
    assert after.max_diameter_mm == pytest.approx(before.max_diameter_mm + 5.0, abs=0.05)
    assert before.max_diameter_mm == pytest.approx(2 * before.shape.sac_radius_mm, abs=0.01)


@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), (10.0, -8.0, 15.0)])
def test_a_scan_shows_the_truth_where_its_geometry_says(tilt: tuple[float, float, float]) -> None:
    placed = pose(10.0, (4.0, 2.0, -3.0))
    acquisition = Acquisition(size=(60, 60, 44), pixel_mm=1.8, gap_mm=3.0, tilt_deg=tilt, noise_hu=0.0, phase=0.4)
    phantom = make_aneurysm(acquisition=acquisition, pose=placed)
    voxels = phantom.labels.voxels
    k, j, i = np.indices(voxels.shape)
    points = transform_points(phantom.labels.ijk_to_ras, np.stack([i, j, k], axis=-1).reshape(-1, 3).astype(float))
    inside = (phantom.truth.signed_distance(points) > 0).reshape(voxels.shape)
    assert np.mean(inside != (voxels > 0)) < 0.004
    voxel_mm3 = abs(np.linalg.det(phantom.labels.ijk_to_ras[:3, :3]))
    assert (voxels > 0).sum() * voxel_mm3 == pytest.approx(phantom.truth.volume_mm3, rel=0.015)
    assert phantom.image.voxels[voxels > 0].mean() > phantom.image.voxels[voxels == 0].mean()


def test_the_phase_moves_the_slices_and_the_seed_the_noise_only() -> None:
    still = make_aneurysm(acquisition=SMALL)
    shifted = Acquisition(size=SMALL.size, pixel_mm=SMALL.pixel_mm, phase=0.5)
    assert shifted.ijk_to_ras()[2, 3] - SMALL.ijk_to_ras()[2, 3] == pytest.approx(2.5)
    noisy = [
        make_aneurysm(acquisition=Acquisition(size=SMALL.size, pixel_mm=SMALL.pixel_mm, noise_hu=20.0, seed=seed)) for seed in (1, 1, 2)
    ]
    assert np.array_equal(noisy[0].image.voxels, noisy[1].image.voxels)
    assert not np.array_equal(noisy[0].image.voxels, noisy[2].image.voxels)
    assert np.array_equal(noisy[2].labels.voxels, still.labels.voxels)
    assert np.std(noisy[2].image.voxels - still.image.voxels.astype(float)) == pytest.approx(20.0, rel=0.03)


def test_lumen_and_thrombus_together_are_the_aneurysm() -> None:
    whole = make_aneurysm(acquisition=SMALL)
    parts = make_aneurysm(acquisition=Acquisition(size=SMALL.size, pixel_mm=SMALL.pixel_mm, noise_hu=0.0, split=True))
    assert [label.name for label in parts.segments] == ["lumen", "thrombus"]
    assert np.array_equal(parts.labels.voxels > 0, whole.labels.voxels > 0)
    means = [parts.image.voxels[parts.labels.voxels == label.value].mean() for label in parts.segments]
    assert means[0] > 200 > means[1]
