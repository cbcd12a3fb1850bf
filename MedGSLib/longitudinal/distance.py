"""Distances between the surfaces of two dates, as point data and as robust summaries."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkDoubleArray
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkFiltersCore import vtkImplicitPolyDataDistance

from MedGSLib.geometry import Matrix, transform_points
from MedGSLib.mesh import polydata_from_arrays, with_point_normals
from MedGSLib.metrics_surface import triangles_of

Values = NDArray[np.float64]


@dataclass(frozen=True)
class DistanceSummary:
    """Robust figures of a distance map in mm, weighted by surface area; places are RAS mm in the baseline's frame."""

    median: float
    mean: float
    p5: float
    p95: float
    largest: float
    largest_place: tuple[float, float, float]
    smallest: float
    smallest_place: tuple[float, float, float]

    def as_dict(self) -> dict[str, Any]:
        """:return: the figures, ready for JSON."""
        return asdict(self)


def moved_surface(surface: vtkPolyData, matrix: Matrix) -> vtkPolyData:
    """A copy of the surface under a rigid 4x4 transform, with its point data and fresh normals."""
    points, triangles = triangles_of(surface)
    moved = with_point_normals(polydata_from_arrays(transform_points(matrix, points), triangles))
    for index in range(surface.GetPointData().GetNumberOfArrays()):
        array = surface.GetPointData().GetArray(index)
        if array is not None and array.GetNumberOfComponents() == 1:
            moved.GetPointData().AddArray(array)
    return moved


def signed_distances(points_of: vtkPolyData, reference: vtkPolyData) -> Values:
    """Distance of each point of one surface to ``reference`` in mm, positive outside it.

    The nearest point of a surface lies along its normal there, so this is the distance along the normal of the reference.

    :return: (N,), one value a point of ``points_of``.
    """
    distance = vtkImplicitPolyDataDistance()
    distance.SetInput(reference)
    values = vtkDoubleArray()
    distance.FunctionValue(points_of.GetPoints().GetData(), values)
    return vtk_to_numpy(values).astype(np.float64)


def values_nearby(surface: vtkPolyData, values: Values, wanted: vtkPolyData) -> Values:
    """Point values (N,) of one surface at the points (M,) of another, each from the nearest point."""
    return values[cKDTree(triangles_of(surface)[0]).query(triangles_of(wanted)[0])[1]]


def point_areas(surface: vtkPolyData) -> Values:
    """The surface area that belongs to each point (N,): a third of the triangles around it, in mm2."""
    points, triangles = triangles_of(surface)
    corners = points[triangles]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 6.0
    return np.bincount(triangles.ravel(), weights=np.repeat(areas, 3), minlength=len(points)).astype(np.float64)


def smoothed_values(surface: vtkPolyData, values: Values, radius_mm: float) -> Values:
    """Point values (N,) averaged over about ``radius_mm`` along the surface, by diffusion over its edges.

    A step moves values by about one edge length; n steps reach sqrt(n) edges.
    """
    points, triangles = triangles_of(surface)
    edges = _edges(triangles)
    length = float(np.median(np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)))
    steps = int(np.clip(round((radius_mm / max(length, 1e-6)) ** 2), 0, 400))
    if steps == 0:
        return values.copy()
    weight = point_areas(surface) + 1e-12
    neighbours = _adjacency(edges, len(points)) + sparse.identity(len(points), format="csr")
    mixing = neighbours @ sparse.diags(weight)
    mixing = sparse.diags(1.0 / np.asarray(mixing.sum(axis=1)).ravel()) @ mixing
    result = values.astype(np.float64)
    for _ in range(steps):
        result = mixing @ result
    return result


def significant_points(surface: vtkPolyData, values: Values, band: Values, least_area_mm2: float) -> NDArray[np.bool_]:
    """Points whose value lies outside ``+-band`` together with neighbours of the same sign over at least ``least_area_mm2``."""
    _, triangles = triangles_of(surface)
    edges = _edges(triangles)
    areas = point_areas(surface)
    significant = np.zeros(len(values), dtype=bool)
    for beyond in (values > band, values < -band):
        inner = edges[beyond[edges].all(axis=1)]
        patch = connected_components(_adjacency(inner, len(values)), directed=False)[1]
        sizes = np.bincount(patch, weights=areas * beyond)
        significant |= beyond & (sizes[patch] >= least_area_mm2)
    return significant


def summarize(surface: vtkPolyData, values: Values) -> DistanceSummary:
    """Area-weighted summary of point values (N,) of a surface."""
    points, _ = triangles_of(surface)
    areas = point_areas(surface)
    order = np.argsort(values)
    share = np.cumsum(areas[order]) / areas.sum()
    p5, median, p95 = (float(values[order[min(int(np.searchsorted(share, level)), len(order) - 1)]]) for level in (0.05, 0.5, 0.95))
    top, bottom = int(values.argmax()), int(values.argmin())
    return DistanceSummary(
        median=median,
        mean=float(np.average(values, weights=areas)),
        p5=p5,
        p95=p95,
        largest=float(values[top]),
        largest_place=tuple(points[top].tolist()),
        smallest=float(values[bottom]),
        smallest_place=tuple(points[bottom].tolist()),
    )


def symmetric_summary(first: vtkPolyData, first_values: Values, second: vtkPolyData, second_values: Values) -> dict[str, float]:
    """Area-weighted mean and 95th percentile of the sizes (mm) of the distances between two surfaces, both directions together."""
    sizes = np.abs(np.concatenate([first_values, second_values]))
    areas = np.concatenate([point_areas(first), point_areas(second)])
    order = np.argsort(sizes)
    share = np.cumsum(areas[order]) / areas.sum()
    p95 = sizes[order[min(int(np.searchsorted(share, 0.95)), len(order) - 1)]]
    return {"mean": float(np.average(sizes, weights=areas)), "p95": float(p95)}


def add_point_values(surface: vtkPolyData, name: str, values: NDArray) -> None:
    """Attach point values (N,) to a surface as float32 under ``name``."""
    array = numpy_to_vtk(np.asarray(values, dtype=np.float32), deep=True)
    array.SetName(name)
    surface.GetPointData().AddArray(array)


def _edges(triangles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each edge (E, 2) once per triangle that has it in this direction; enough for closed surfaces to name every edge."""
    return np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])


def _adjacency(edges: NDArray[np.int64], count: int) -> sparse.csr_matrix:
    """Symmetric 0/1 matrix (count, count) of the edges."""
    both = np.concatenate([edges, edges[:, ::-1]])
    matrix = sparse.csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count))
    matrix.data[:] = 1.0
    return matrix
