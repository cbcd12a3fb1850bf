"""From an occupancy field to a closed, manifold surface in RAS millimetres."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.optimize import brentq
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray
from vtkmodules.vtkCommonCore import vtkPoints
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkImageData, vtkPolyData
from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D, vtkPolyDataNormals, vtkWindowedSincPolyDataFilter

from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix, transform_points
from MedGSLib.metrics_surface import max_diameter_mm, surface_area_mm2, triangles_of, volume_mm3

LEVEL_CLEARANCE = 1e-3
"""Field values closer to the level than this are moved off it, so that no triangle degenerates (a shift under 0.005 voxel)."""
LARGEST_SHIFT = 0.1
"""Of a field, for the volume of its surface; on the development set 0.02 was the most that was needed."""
SHIFT_TOLERANCE = 2e-4
"""About 0.02 % of the volume of a segment 20 pixels across."""
POSITION_ARRAY = "PositionUncertaintyMm"
"""Point array of a reconstructed surface: half-width of the 90 % band of its position along the normal, mm."""
SMOOTHING_PASS_BAND = 0.1
"""Spatial frequencies (of the mesh, 0..2) that the windowed sinc filter keeps."""


@dataclass(frozen=True)
class MeshSummary:
    """Size of a closed surface; bounds are RAS mm (min x, max x, min y, ...)."""

    volume_cm3: float
    area_cm2: float
    max_diameter_mm: float
    bounds_mm: tuple[float, ...]
    triangles: int

    def as_dict(self) -> dict[str, Any]:
        """:return: the figures, ready for JSON."""
        return asdict(self)


def occupancy_to_mesh(
    field: NDArray[np.floating],
    index_to_ras: Matrix,
    level: float = 0.5,
    *,
    smoothing_iterations: int = 0,
    minimum_island_mm3: float = 0.0,
) -> vtkPolyData:
    """The surface on which a field takes the value ``level``, closed also where the field reaches the edge of its array.

    Beyond the array the field counts as 0, so a voxel that is full at the edge ends half a voxel outside its centre. An occupancy
    field of a reconstruction needs no smoothing; a binary mask shows its staircase unless ``smoothing_iterations`` is about 20.

    :param field: (T, H, W), 0 outside to 1 inside; non-finite values count as outside.
    :param index_to_ras: 4x4 from (column, row, slice) of ``field`` to RAS mm; a mirroring matrix is allowed.
    :param smoothing_iterations: passes of a windowed sinc filter whose effect on the volume is undone; 0 for none.
    :param minimum_island_mm3: pieces smaller than this are left out, except the largest.
    :return: triangles with outward winding and unit point normals.
    :raises InputError: if nothing of the field lies above the level.
    """
    inside, start = _cropped_to_content(field, level)
    if minimum_island_mm3 > 0:
        voxel_mm3 = abs(float(np.linalg.det(index_to_ras[:3, :3])))
        _remove_islands(inside, level, minimum_island_mm3 / voxel_mm3)
    below = inside < level
    np.minimum(inside, level - LEVEL_CLEARANCE, out=inside, where=below)
    np.maximum(inside, level + LEVEL_CLEARANCE, out=inside, where=~below)
    index_points, triangles = _flying_edges(inside, level)
    points = transform_points(index_to_ras, index_points + start)
    if np.linalg.det(index_to_ras[:3, :3]) < 0:
        triangles = triangles[:, ::-1]
    surface = polydata_from_arrays(points, triangles)
    if smoothing_iterations > 0:
        surface = smoothed_surface(surface, smoothing_iterations)
    return with_point_normals(surface)


def with_volume_of_voxels(free: NDArray[np.float32], bound: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """A field whose 0.5 surface encloses no less than the surface of its voxels above 0.5 taken as a binary mask.

    Smoothing pulls a convex surface inwards between voxel centres, which the voxels do not show. A constant is added to the field, less
    where a voxel would change sides. Fields that enclose more, as those of partial volumes may, are left alone.

    :param free: (T, H, W), the field where its surface may move.
    :param bound: (T, H, W), an upper bound of the field that stays, as where neighbours meet; None for no bound.
    :return: (T, H, W), above 0.5 in the same voxels as the minimum of ``free`` and ``bound``.
    """
    inside = (free if bound is None else np.minimum(free, bound)) > 0.5
    if not inside.any():
        return _raised(free, bound, inside, 0.0)
    around = tuple(slice(max(box.start - 1, 0), box.stop + 1) for box in ndimage.find_objects(inside.astype(np.uint8))[0])
    part = free[around], None if bound is None else bound[around], inside[around]
    wanted = _enclosed(part[2].astype(np.float32))

    @cache
    def excess(shift: float) -> float:
        return _enclosed(_raised(*part, shift)) - wanted

    shift = 0.0
    if excess(0.0) < 0.0:
        shift = brentq(excess, 0.0, LARGEST_SHIFT, xtol=SHIFT_TOLERANCE) if excess(LARGEST_SHIFT) > 0.0 else LARGEST_SHIFT
    return _raised(free, bound, inside, shift)


def _raised(free: NDArray[np.float32], bound: NDArray[np.float32] | None, inside: NDArray[np.bool_], shift: float) -> NDArray[np.float32]:
    """The field with its free part raised, but no voxel moved to the other side of 0.5."""
    raised = free + np.float32(shift)
    if bound is not None:
        np.minimum(raised, bound, out=raised)
    np.minimum(raised, 0.5 - LEVEL_CLEARANCE, out=raised, where=~inside)
    return raised


def _enclosed(field: NDArray[np.float32]) -> float:
    """Volume inside the 0.5 surface in voxels; beyond the array the field counts as 0."""
    return volume_mm3(_flying_edges(np.pad(field, 1), 0.5))


def polydata_from_arrays(points: NDArray[np.floating], triangles: NDArray[np.integer]) -> vtkPolyData:
    """:param points: (N, 3) mm. :param triangles: (M, 3) point indices. :return: a polydata that owns copies of both."""
    vertices = vtkPoints()
    vertices.SetData(numpy_to_vtk(np.ascontiguousarray(points, dtype=np.float32), deep=True))
    cells = vtkCellArray()
    offsets = np.arange(0, 3 * len(triangles) + 1, 3, dtype=np.int64)
    connectivity = np.ascontiguousarray(triangles, dtype=np.int64).ravel()
    cells.SetData(numpy_to_vtkIdTypeArray(offsets, deep=True), numpy_to_vtkIdTypeArray(connectivity, deep=True))
    surface = vtkPolyData()
    surface.SetPoints(vertices)
    surface.SetPolys(cells)
    return surface


def with_point_normals(surface: vtkPolyData) -> vtkPolyData:
    """:return: the surface with unit point normals that follow its winding."""
    normals = vtkPolyDataNormals()
    normals.SetInputData(surface)
    normals.SplittingOff()
    normals.ConsistencyOff()
    normals.ComputePointNormalsOn()
    normals.Update()
    return normals.GetOutput()


def mesh_summary(surface: vtkPolyData) -> MeshSummary:
    """Volume, area, largest diameter and bounds of a closed triangle surface in mm.

    :raises InputError: if the surface is empty or has other polygons than triangles.
    """
    points, triangles = triangles_of(surface)
    return MeshSummary(
        volume_cm3=volume_mm3((points, triangles)) / 1000.0,
        area_cm2=surface_area_mm2((points, triangles)) / 100.0,
        max_diameter_mm=max_diameter_mm((points, triangles)),
        bounds_mm=tuple(float(bound) for bound in surface.GetBounds()),
        triangles=len(triangles),
    )


def _cropped_to_content(field: NDArray[np.floating], level: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A copy of the part of the field around its content, padded with 0; and the (column, row, slice) of its first voxel."""
    inside = field >= level
    boxes = []
    for axis in range(3):
        occupied = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        if len(occupied) == 0:
            raise InputError("The segment is empty at the chosen level, so there is no surface to make.")
        boxes.append((int(occupied[0]), int(occupied[-1]) + 1))
    window = tuple(slice(max(low - 1, 0), high + 1) for low, high in boxes)
    part = np.nan_to_num(np.asarray(field[window], dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    start = np.array([box.start for box in reversed(window)], dtype=np.float64) - 1.0
    return np.pad(part, 1), start


def _remove_islands(field: NDArray[np.float32], level: float, minimum_voxels: float) -> None:
    """Set small pieces of ``field >= level`` to 0 in place, sparing the largest."""
    pieces, count = ndimage.label(field >= level)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    drop = sizes < minimum_voxels
    drop[[0, int(sizes.argmax())]] = False
    field[drop[pieces]] = 0.0


def _flying_edges(field: NDArray[np.float32], level: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points (N, 3) in (column, row, slice) and triangles (M, 3), wound outward in a right-handed index frame."""
    image = vtkImageData()
    image.SetDimensions(*field.shape[::-1])
    scalars = numpy_to_vtk(field.ravel())
    image.GetPointData().SetScalars(scalars)
    contour = vtkFlyingEdges3D()
    contour.SetInputData(image)
    contour.SetValue(0, level)
    contour.ComputeNormalsOff()
    contour.ComputeGradientsOff()
    contour.ComputeScalarsOff()
    contour.Update()
    return triangles_of(contour.GetOutput())


def smoothed_surface(surface: vtkPolyData, iterations: int) -> vtkPolyData:
    """A closed surface after windowed sinc smoothing, followed by the uniform shift along the normals that restores the enclosed volume."""
    sinc = vtkWindowedSincPolyDataFilter()
    sinc.SetInputData(surface)
    sinc.SetNumberOfIterations(iterations)
    sinc.SetPassBand(SMOOTHING_PASS_BAND)
    sinc.FeatureEdgeSmoothingOff()
    sinc.BoundarySmoothingOff()
    sinc.NonManifoldSmoothingOn()
    sinc.NormalizeCoordinatesOn()
    sinc.Update()
    points, triangles = triangles_of(sinc.GetOutput())
    shift = (volume_mm3(surface) - volume_mm3((points, triangles))) / surface_area_mm2((points, triangles))
    return polydata_from_arrays(points + shift * vertex_normals(points, triangles), triangles)


def vertex_normals(points: NDArray[np.float64], triangles: NDArray[np.int64]) -> NDArray[np.float64]:
    """Unit normals (N, 3), the area-weighted mean of the triangles around each point; 0 where a point has none."""
    corners = points[triangles]
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    share = np.repeat(np.arange(len(triangles)), 3)
    incidence = sparse.csr_matrix((np.ones(triangles.size), (triangles.ravel(), share)), shape=(len(points), len(triangles)))
    summed = incidence @ faces
    length = np.linalg.norm(summed, axis=1, keepdims=True)
    return np.divide(summed, length, out=np.zeros_like(summed), where=length > 0)
