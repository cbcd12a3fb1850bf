"""Surfaces of fields whose true shape is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkFiltersCore import vtkFeatureEdges

from MedGSLib import mesh
from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix, transform_points
from MedGSLib.metrics_surface import triangles_of

RADIUS_MM = 20.0


def open_or_non_manifold_edges(surface: vtkPolyData) -> int:
    edges = vtkFeatureEdges()
    edges.SetInputData(surface)
    edges.BoundaryEdgesOn()
    edges.NonManifoldEdgesOn()
    edges.FeatureEdgesOff()
    edges.ManifoldEdgesOff()
    edges.Update()
    return edges.GetOutput().GetNumberOfCells()


def index_to_ras(spacing: tuple[float, float, float], mirrored: bool, oblique: bool) -> Matrix:
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag(spacing)
    if mirrored:
        matrix[0] *= -1
    if oblique:
        matrix[:3, :3] = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix() @ matrix[:3, :3]
    matrix[:3, 3] = (-110.0, 45.0, 300.0)
    return matrix


def sphere(spacing: tuple[float, float, float], matrix: Matrix) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The occupancy field of a sphere, and its centre (3,) in RAS."""
    size = [int(2 * RADIUS_MM / step) + 8 for step in spacing]
    centre = transform_points(matrix, np.array([(count - 1) / 2 + 0.3 for count in size]))
    z, y, x = np.indices(size[::-1])
    distance = RADIUS_MM - np.linalg.norm(transform_points(matrix, np.stack([x, y, z], axis=-1)) - centre, axis=-1)
    return (0.5 + 0.5 * np.tanh(distance / spacing[0] / 2)).astype(np.float32), centre


def centroid(surface: vtkPolyData) -> NDArray[np.float64]:
    points, triangles = triangles_of(surface)
    corners = points[triangles] - points.mean(axis=0)
    volumes = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    return points.mean(axis=0) + (corners.sum(axis=1) / 4 * volumes[:, None]).sum(axis=0) / volumes.sum()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize(("spacing", "tolerance"), [((1.0, 1.0, 1.0), 0.01), ((1.0, 1.0, 5.0), 0.02)])
def test_a_sphere_keeps_its_size_and_place(spacing: tuple[float, float, float], tolerance: float, mirrored: bool, oblique: bool) -> None:
    matrix = index_to_ras(spacing, mirrored, oblique)
    field, centre = sphere(spacing, matrix)
    surface = mesh.occupancy_to_mesh(field, matrix)
    summary = mesh.mesh_summary(surface)
    assert summary.volume_cm3 == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3 / 1000, rel=tolerance)
    assert summary.max_diameter_mm == pytest.approx(2 * RADIUS_MM, rel=tolerance)
    offset_voxels = np.linalg.inv(matrix[:3, :3]) @ (centroid(surface) - centre)
    assert np.abs(offset_voxels).max() < 0.1
    assert open_or_non_manifold_edges(surface) == 0
    points = triangles_of(surface)[0]
    normals = vtk_to_numpy(surface.GetPointData().GetNormals())
    assert np.einsum("ij,ij->i", normals, (points - centre) / RADIUS_MM).min() > 0.8


def test_mirrored_and_oblique_grids_give_the_same_physical_volume() -> None:
    volumes = []
    for mirrored, oblique in ((False, False), (True, False), (True, True)):
        matrix = index_to_ras((1.0, 1.5, 4.0), mirrored, oblique)
        volumes.append(mesh.mesh_summary(mesh.occupancy_to_mesh(sphere((1.0, 1.5, 4.0), matrix)[0], matrix)).volume_cm3)
    assert max(volumes) - min(volumes) < 1e-4 * volumes[0]


def test_a_segment_at_the_border_is_closed_half_a_voxel_outside() -> None:
    surface = mesh.occupancy_to_mesh(np.ones((4, 6, 8), np.float32), np.diag([1.0, 1.0, 3.0, 1.0]))
    assert open_or_non_manifold_edges(surface) == 0
    assert surface.GetBounds() == pytest.approx((-0.5, 7.5, -0.5, 5.5, -1.5, 10.5), abs=0.02)


def test_noise_and_values_on_the_level_stay_manifold() -> None:
    noise = np.random.default_rng(3).random((20, 20, 20)).round(1).astype(np.float32)
    surface = mesh.occupancy_to_mesh(noise, np.eye(4))
    points, triangles = triangles_of(surface)
    corners = points[triangles]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    assert open_or_non_manifold_edges(surface) == 0
    assert areas.min() > 0


def test_non_finite_values_count_as_outside() -> None:
    field = np.ones((5, 5, 5), np.float32)
    field[:, :, 3:] = np.nan
    assert mesh.occupancy_to_mesh(field, np.eye(4)).GetBounds()[1] == pytest.approx(2.5, abs=0.02)


def test_islands_are_removed_below_the_size_asked_for() -> None:
    field = np.zeros((20, 20, 20), np.float32)
    field[2:10, 2:10, 2:10] = 1
    field[14:16, 14:16, 14:16] = 1
    matrix = np.diag([1.0, 1.0, 2.0, 1.0])
    kept = mesh.mesh_summary(mesh.occupancy_to_mesh(field, matrix, minimum_island_mm3=15.0))
    removed = mesh.mesh_summary(mesh.occupancy_to_mesh(field, matrix, minimum_island_mm3=17.0))
    assert kept.bounds_mm[1] > 15
    assert removed.bounds_mm[1] < 10


def test_smoothing_a_binary_mask_flattens_it_and_keeps_its_volume() -> None:
    matrix = np.eye(4)
    field, centre = sphere((1.0, 1.0, 1.0), matrix)
    binary = (field > 0.5).astype(np.float32)
    plain, smooth = (mesh.occupancy_to_mesh(binary, matrix, smoothing_iterations=count) for count in (0, 20))
    roughness = [np.std(np.linalg.norm(triangles_of(surface)[0] - centre, axis=1)) for surface in (plain, smooth)]
    assert roughness[1] < 0.65 * roughness[0]
    assert mesh.mesh_summary(smooth).volume_cm3 == pytest.approx(mesh.mesh_summary(plain).volume_cm3, rel=1e-3)
    assert open_or_non_manifold_edges(smooth) == 0


def test_an_empty_field_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="empty"):
        mesh.occupancy_to_mesh(np.zeros((3, 3, 3), np.float32), np.eye(4))


def test_a_real_hippocampus_closes(shared_data) -> None:
    sitk = pytest.importorskip("SimpleITK")
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / "mr_hippocampus_msd_a" / "h001_seg.nii.gz"))) > 0
    surface = mesh.occupancy_to_mesh(ndimage.gaussian_filter(mask.astype(np.float32), 0.7), np.eye(4))
    assert open_or_non_manifold_edges(surface) == 0
    assert mesh.mesh_summary(surface).volume_cm3 == pytest.approx(mask.sum() / 1000, rel=0.05)


def smoothed_tube() -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """A thin, bent vessel, and a smooth field above 0.5 in its voxels only, as an occupancy that contradicts no annotation."""
    z, y, x = np.indices((24, 40, 40))
    mask = np.hypot(y - 18 - 6 * np.sin(z / 7), x - 20) < 2.7
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), 1.0)
    return mask, np.where(mask, np.maximum(smooth, 0.51), np.minimum(smooth, 0.49)).astype(np.float32)


def voxels_enclosed(field: NDArray[np.floating]) -> float:
    return 1000.0 * mesh.mesh_summary(mesh.occupancy_to_mesh(field, np.eye(4))).volume_cm3


def test_a_smooth_surface_encloses_what_its_voxels_do() -> None:
    mask, smooth = smoothed_tube()
    raised = mesh.with_volume_of_voxels(smooth)
    wanted = voxels_enclosed(mask.astype(np.float32))
    assert voxels_enclosed(smooth) < 0.97 * wanted
    assert voxels_enclosed(raised) == pytest.approx(wanted, rel=2e-3)
    np.testing.assert_array_equal(raised > 0.5, mask)


def test_voxels_just_outside_stay_outside_and_empty_fields_empty() -> None:
    mask, smooth = smoothed_tube()
    smooth[2:22, 5, 5] = 0.4999
    np.testing.assert_array_equal(mesh.with_volume_of_voxels(smooth) > 0.5, mask)
    assert mesh.with_volume_of_voxels(np.full((3, 4, 5), 0.4999, np.float32)).max() < 0.5


def test_a_field_that_encloses_more_than_its_voxels_is_left_alone() -> None:
    field = sphere((1.0, 1.0, 1.0), np.eye(4))[0]
    assert voxels_enclosed(field) > voxels_enclosed((field > 0.5).astype(np.float32))
    np.testing.assert_allclose(mesh.with_volume_of_voxels(field), field, atol=mesh.LEVEL_CLEARANCE)


def test_surfaces_of_neighbours_still_meet_after_they_were_raised() -> None:
    y, x = np.mgrid[:30, :30]
    ball = ndimage.gaussian_filter((np.hypot(y - 14.5, x - 14.5) < 6).astype(np.float32), 2.0)
    left = np.broadcast_to(ball * (x < 15), (12, 30, 30)).astype(np.float32)
    right = np.broadcast_to(ball * (x >= 15), (12, 30, 30)).astype(np.float32)
    fields = []
    for own, other in ((left, right), (right, left)):
        free, bound = own + 0.5 * other, 0.5 + 0.5 * (own - other)
        raised = mesh.with_volume_of_voxels(free, bound)
        assert (raised > np.minimum(free, bound) + 1e-3).any(), "the outside moved"
        assert (raised <= bound).all()
        fields.append(raised)
    assert (fields[0] + fields[1]).max() <= 1.0 + 1e-6, "no point is inside both"
