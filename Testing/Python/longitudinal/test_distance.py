"""Signed distances, their summaries, and which of them count."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.longitudinal import distance
from MedGSLib.mesh import occupancy_to_mesh
from MedGSLib.metrics_surface import surface_area_mm2, triangles_of


def ball(radius: float, matrix: np.ndarray) -> vtkPolyData:
    """A ball around voxel (30, 30, 30)."""
    z, y, x = np.indices((61, 61, 61)) - 30.0
    return occupancy_to_mesh(0.5 + 0.5 * np.tanh((radius - np.sqrt(x**2 + y**2 + z**2)) / 2), matrix)


@pytest.mark.parametrize("mirrored", [1.0, -1.0])
def test_outward_is_positive_and_in_mm(mirrored: float) -> None:
    matrix = np.diag([mirrored, 1.0, 1.0, 1.0])
    matrix[:3, :3] = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix() @ matrix[:3, :3]
    small, large = ball(20.0, matrix), ball(23.0, matrix)
    assert distance.signed_distances(large, small) == pytest.approx(3.0, abs=0.05)
    assert distance.signed_distances(small, large) == pytest.approx(-3.0, abs=0.05)


def test_a_summary_weighs_by_area_and_names_the_place() -> None:
    surface = ball(20.0, np.eye(4))
    points = triangles_of(surface)[0]
    values = np.where(points[:, 2] > 40.0, 2.0, 0.0)
    values[int(points[:, 0].argmax())] = 7.0
    summary = distance.summarize(surface, values)
    assert summary.mean == pytest.approx(2.0 * 0.25, abs=0.03)
    assert (summary.median, summary.p5, summary.p95) == (0.0, 0.0, 2.0)
    assert summary.largest == 7.0
    assert summary.largest_place[0] == pytest.approx(50.0, abs=0.1)
    assert distance.point_areas(surface).sum() == pytest.approx(surface_area_mm2(surface))


def test_smoothing_averages_noise_and_keeps_constants() -> None:
    surface = ball(20.0, np.eye(4))
    count = surface.GetNumberOfPoints()
    noise = np.random.default_rng(0).normal(size=count)
    assert np.std(distance.smoothed_values(surface, noise, 3.0)) < 0.4
    assert distance.smoothed_values(surface, np.full(count, 1.5), 3.0) == pytest.approx(1.5)
    assert np.array_equal(distance.smoothed_values(surface, noise, 0.0), noise)


def test_only_connected_patches_of_one_sign_count() -> None:
    surface = ball(20.0, np.eye(4))
    points = triangles_of(surface)[0]
    cap = points[:, 2] > 47.0
    values = np.where(cap, 2.0, 0.0)
    values[int(points[:, 0].argmax())] = 5.0
    band = np.ones(len(values))
    significant = distance.significant_points(surface, values, band, 50.0)
    assert np.array_equal(significant, cap)
    assert not distance.significant_points(surface, values, 3.0 * band, 50.0).any()
    halves = np.where(cap, np.where(points[:, 0] > 30.0, 2.0, -2.0), 0.0)
    assert not distance.significant_points(surface, halves, band, 250.0).any()
    assert np.array_equal(distance.significant_points(surface, halves, band, 100.0), cap)


def test_a_moved_surface_keeps_its_point_values() -> None:
    surface = ball(20.0, np.eye(4))
    distance.add_point_values(surface, "PositionUncertaintyMm", np.arange(surface.GetNumberOfPoints()))
    shift = np.eye(4)
    shift[:3, 3] = (1.0, -2.0, 30.0)
    moved = distance.moved_surface(surface, shift)
    assert np.allclose(triangles_of(moved)[0] - triangles_of(surface)[0], (1.0, -2.0, 30.0), atol=1e-4)
    assert moved.GetPointData().GetArray("PositionUncertaintyMm").GetValue(7) == 7.0
    assert surface.GetPoint(0)[2] != moved.GetPoint(0)[2]
