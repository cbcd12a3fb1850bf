from __future__ import annotations

import numpy as np
import pytest
import vtk
from scipy.spatial import ConvexHull
from skimage.measure import marching_cubes

from MedGSLib import metrics_surface as surfaces
from MedGSLib.errors import InputError

CUBE_POINTS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
CUBE_FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def cube(edges: tuple[float, float, float] = (1.0, 1.0, 1.0), shift: float = 0.0) -> surfaces.Triangles:
    triangles = [triangle for a, b, c, d in CUBE_FACES for triangle in ((a, b, c), (a, c, d))]
    return CUBE_POINTS * edges + shift, np.array(triangles)


def sphere(radius: float, resolution: int = 80) -> vtk.vtkPolyData:
    source = vtk.vtkSphereSource()
    source.SetRadius(radius)
    source.SetCenter(7.0, -3.0, 11.0)
    source.SetThetaResolution(2 * resolution)
    source.SetPhiResolution(resolution)
    source.Update()
    return source.GetOutput()


def test_measures_of_a_box() -> None:
    box = cube((2.0, 3.0, 6.0), shift=100.0)
    assert surfaces.volume_mm3(box) == pytest.approx(36.0)
    assert surfaces.surface_area_mm2(box) == pytest.approx(2 * (6 + 12 + 18))
    assert surfaces.max_diameter_mm(box) == pytest.approx(7.0)
    assert surfaces.roughness_deg(box) == pytest.approx(90.0 * 12 / 18)


def test_an_inside_out_surface_has_negative_volume() -> None:
    points, triangles = cube()
    assert surfaces.volume_mm3((points, triangles[:, ::-1])) == pytest.approx(-1.0)


def test_measures_of_a_vtk_sphere() -> None:
    polydata = sphere(10.0)
    assert surfaces.volume_mm3(polydata) == pytest.approx(4 / 3 * np.pi * 1000, rel=2e-3)
    assert surfaces.surface_area_mm2(polydata) == pytest.approx(4 * np.pi * 100, rel=1e-3)
    assert surfaces.max_diameter_mm(polydata) == pytest.approx(20.0, rel=1e-3)
    found = surfaces.topology(polydata)
    assert found.components == 1 and found.closed and found.manifold and found.oriented and found.euler == 2


def test_distance_of_concentric_spheres_is_the_difference_of_radii() -> None:
    found = surfaces.surface_distance(sphere(10.0), sphere(10.8))
    assert found.chamfer_mm == pytest.approx(0.8, abs=0.02)
    assert found.hd95_mm == pytest.approx(0.8, abs=0.05)
    assert found == surfaces.surface_distance(sphere(10.0), sphere(10.8))


def test_hd95_sees_a_local_bump_that_the_mean_hides() -> None:
    points, triangles = surfaces.triangles_of(sphere(10.0))
    bumped = points.copy()
    bumped[points[:, 2] > 11.0 + 8.5] += (0.0, 0.0, 4.0)
    found = surfaces.surface_distance((points, triangles), (bumped, triangles), samples=60_000)
    assert found.chamfer_mm < 0.6 < 2.0 < found.hd95_mm


def test_samples_are_spread_by_area() -> None:
    samples = surfaces.sample_surface(cube((1.0, 1.0, 8.0)), 20_000)
    on_ends = np.isclose(samples[:, 2], 0.0) | np.isclose(samples[:, 2], 8.0)
    assert on_ends.mean() == pytest.approx(2 / 34, abs=0.01)


def test_a_hole_a_flip_a_fan_too_many_and_two_pieces_are_seen() -> None:
    points, triangles = cube()
    opened = surfaces.topology((points, triangles[1:]))
    assert not opened.closed and opened.boundary_edges == 3 and opened.manifold
    flipped = triangles.copy()
    flipped[0] = flipped[0, ::-1]
    assert not surfaces.topology((points, flipped)).oriented
    crowded = surfaces.topology((np.vstack([points, [0.5, 0.5, 0.5]]), np.vstack([triangles, [*triangles[0, :2], 8]])))
    assert not crowded.manifold and crowded.crowded_edges == 1
    two = surfaces.topology((np.vstack([points, points + 5]), np.vstack([triangles, triangles + 8])))
    assert two.components == 2 and two.euler == 4 and two.closed


def test_two_boxes_that_touch_at_one_corner_are_not_manifold() -> None:
    points, triangles = cube()
    second = triangles + 8
    second[second == 8] = 7
    found = surfaces.topology((np.vstack([points, points + 1]), np.vstack([triangles, second])))
    assert found.pinched_points == 1 and found.crowded_edges == 0 and not found.manifold


def test_a_voxel_staircase_is_rougher_than_the_smooth_surface() -> None:
    z, y, x = np.mgrid[:24, :24, :24] - 11.5
    field = 8.0 - np.sqrt(x**2 + y**2 + z**2)
    smooth = marching_cubes(field, 0.0)[:2]
    staircase = marching_cubes((field > 0).astype(float), 0.5)[:2]
    assert surfaces.roughness_deg(staircase) > 1.5 * surfaces.roughness_deg(smooth)


def test_diameter_is_that_of_all_point_pairs() -> None:
    points = np.random.default_rng(3).normal(size=(300, 3)) * (1, 2, 3)
    triangles = ConvexHull(points).simplices
    brute = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1)).max()
    assert surfaces.max_diameter_mm((points, triangles)) == pytest.approx(brute)


def test_diameter_of_a_flat_surface() -> None:
    points = np.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0]])
    assert surfaces.max_diameter_mm((points, np.array([[0, 1, 2]]))) == pytest.approx(5.0)


def test_surfaces_that_cannot_be_measured_are_refused() -> None:
    with pytest.raises(InputError, match="no triangles"):
        surfaces.volume_mm3(vtk.vtkPolyData())
    quad = vtk.vtkPlaneSource()
    quad.Update()
    with pytest.raises(InputError, match="three corners"):
        surfaces.volume_mm3(quad.GetOutput())
