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
