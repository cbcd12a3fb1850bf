"""Vessel and lesion measures against shapes whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkFiltersCore import vtkCleanPolyData, vtkTriangleFilter
from vtkmodules.vtkFiltersSources import vtkCubeSource

from MedGSLib.errors import InputError
from MedGSLib.geometry import transform_points
from MedGSLib.longitudinal.centerline import compute_centerline
from MedGSLib.longitudinal.lesion import measure_lesion
from MedGSLib.longitudinal.measures import measure_segment
from MedGSLib.longitudinal.sections import SurfaceCutter, max_diameter, smoothed_contour
from MedGSLib.longitudinal.vessel import measure_vessel
from MedGSLib.mesh import occupancy_to_mesh
from MedGSLib.phantom import AneurysmTruth
from MedGSLib.phantom_shape import AneurysmShape


def ellipsoid(axes_mm: tuple[float, float, float]) -> vtkPolyData:
    half = int(max(axes_mm)) + 4
    z, y, x = np.mgrid[-half : half + 1, -half : half + 1, -half : half + 1].astype(float)
    level = np.sqrt((x / axes_mm[0]) ** 2 + (y / axes_mm[1]) ** 2 + (z / axes_mm[2]) ** 2)
    matrix = np.eye(4)
    matrix[:3, 3] = -half
    return occupancy_to_mesh(0.5 + 0.5 * np.tanh((1 - level) * min(axes_mm) / 2), matrix)


def pose(angles: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, 3] = (-40.0, 12.0, 900.0)
    return matrix


@pytest.mark.parametrize(("growth_mm", "angles"), [(0.0, (0.0, 0.0, 0.0)), (5.0, (10.0, 35.0, -20.0)), (2.0, (80.0, 10.0, 0.0))])
def test_an_aneurysm_is_measured_perpendicular_to_its_course(growth_mm: float, angles: tuple[float, float, float]) -> None:
    truth = AneurysmTruth(AneurysmShape(growth_mm=growth_mm), pose(angles))
    measured = measure_vessel(truth.mesh(1.0))
    assert measured.max_diameter_mm == pytest.approx(truth.max_diameter_mm, abs=0.3)
    assert measured.length_mm == pytest.approx(truth.length_mm, rel=0.01)
    assert measured.volume_cm3 * 1000 == pytest.approx(truth.volume_mm3, rel=0.005)
    middle = transform_points(truth.pose, np.zeros((1, 3)))[0]
    assert np.linalg.norm(np.array(measured.max_diameter_center) - middle) < 4.0
    ends = np.array(measured.max_diameter_ends)
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(measured.max_diameter_mm, abs=0.3)


def test_obliquity_exaggerates_the_axial_diameter_only() -> None:
    straight, tilted = (measure_vessel(AneurysmTruth(AneurysmShape(), pose((0.0, angle, 0.0))).mesh(1.5)) for angle in (0.0, 45.0))
    assert tilted.max_diameter_mm == pytest.approx(straight.max_diameter_mm, abs=0.2)
    assert tilted.max_axial_diameter_mm > straight.max_axial_diameter_mm + 3.0


def test_the_centreline_is_the_analytic_curve() -> None:
    truth = AneurysmTruth(AneurysmShape(), pose((5.0, 20.0, 0.0)))
    line = compute_centerline(truth.mesh(1.0))
    where = truth.surface.locate(transform_points(np.linalg.inv(truth.pose), line.points))
    assert np.hypot(where.normal, where.binormal).max() < 0.8
    assert line.points[-1, 2] > line.points[0, 2]
    assert np.allclose(np.linalg.norm(line.tangents, axis=1), 1.0)


def test_a_lesion_has_the_figures_of_its_ellipsoid() -> None:
    measured = measure_lesion(ellipsoid((15.0, 9.0, 20.0)))
    assert measured.volume_cm3 * 1000 == pytest.approx(4 / 3 * np.pi * 15 * 9 * 20, rel=0.01)
    assert measured.max_diameter_mm == pytest.approx(40.0, abs=0.2)
    assert measured.in_plane_diameter_mm == pytest.approx(30.0, abs=0.35)
    assert measured.in_plane_short_mm == pytest.approx(18.0, abs=0.3)
    assert measure_lesion(ellipsoid((15.0, 9.0, 20.0)), np.array([1.0, 0.0, 0.0])).in_plane_diameter_mm == pytest.approx(40.0, abs=0.5)
    assert measure_lesion(ellipsoid((14.0, 14.0, 14.0))).sphericity == pytest.approx(1.0, abs=0.01)
    assert measured.sphericity < 0.95


def test_a_segment_is_taken_for_what_its_name_or_shape_says() -> None:
    ball, tube = ellipsoid((12.0, 11.0, 12.0)), AneurysmTruth(AneurysmShape()).mesh(2.0)
    assert measure_segment(ball, "Tumour").vessel is None
    assert measure_segment(tube, "Segment_1").vessel is not None
    assert measure_segment(tube, "Segment_1", "compact").vessel is None
    assert measure_segment(ball, "aorta").figures().keys() >= {"volume", "area"}
    with pytest.raises(InputError, match="neither|not 'nonsense'"):
        measure_segment(ball, "x", "nonsense")


def test_a_surface_of_few_faces_keeps_its_volume() -> None:
    source = vtkCubeSource()
    source.SetBounds(0.0, 30.0, 0.0, 30.0, 0.0, 30.0)
    triangulate, merge = vtkTriangleFilter(), vtkCleanPolyData()
    triangulate.SetInputConnection(source.GetOutputPort())
    merge.SetInputConnection(triangulate.GetOutputPort())
    merge.Update()
    measured = measure_segment(merge.GetOutput(), "tumour").lesion
    assert measured.volume_cm3 == pytest.approx(27.0)
    assert measured.max_diameter_mm == pytest.approx(30.0 * np.sqrt(3.0))


def test_a_section_knows_its_area_centre_and_inside() -> None:
    cutter = SurfaceCutter(ellipsoid((15.0, 9.0, 20.0)))
    normal = np.array([0.0, 0.0, 1.0])
    loop = cutter.loop_around(np.array([3.0, 2.0, 0.0]), normal)
    assert loop is not None
    assert loop.area_mm2 == pytest.approx(np.pi * 15 * 9, rel=0.01)
    assert np.allclose(loop.centroid, 0.0, atol=0.05)
    assert cutter.loop_around(np.array([14.0, 8.0, 0.0]), normal) is None
    assert cutter.loops(np.array([0.0, 0.0, 30.0]), normal) == []


def test_smoothing_a_contour_takes_the_roughness_out_of_its_diameter() -> None:
    _, y, x = np.mgrid[-3:4, -30:31, -30:31].astype(float)
    up = np.array([0.0, 0.0, 1.0])
    rough, smooth = [], []
    for radius in np.arange(10.0, 27.0, 1.7):
        disc = (np.hypot(x, y) < radius).astype(np.float32)
        loop = SurfaceCutter(occupancy_to_mesh(disc, np.eye(4))).loops(np.array([30.0, 30.0, 3.0]), up)[0]
        rough.append(abs(max_diameter(loop.points)[0] - 2 * radius))
        smooth.append(abs(max_diameter(smoothed_contour(loop, up))[0] - 2 * radius))
    assert np.mean(smooth) < 0.5 * np.mean(rough)


def test_the_largest_diameter_is_that_of_brute_force() -> None:
    generator = np.random.default_rng(0)
    few = generator.normal(size=(300, 3)) * (5.0, 2.0, 1.0)
    expected = np.linalg.norm(few[:, None] - few[None], axis=-1).max()
    assert max_diameter(few)[0] == pytest.approx(expected)
    flat = np.column_stack([few[:, :2], np.full(300, 7.0)])
    assert max_diameter(flat)[0] == pytest.approx(np.linalg.norm(flat[:, None] - flat[None], axis=-1).max())
    directions = generator.normal(size=(20_000, 3))
    many = directions / np.linalg.norm(directions, axis=1, keepdims=True) * (30.0, 30.0, 30.5)
    assert max_diameter(many)[0] == pytest.approx(61.0, rel=2e-3)
