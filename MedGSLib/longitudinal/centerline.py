"""The centreline of a tubular surface without VMTK: a deep path through its voxels, then centred in sections perpendicular to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import splev, splprep
from scipy.ndimage import distance_transform_edt, label
from skimage.graph import MCP_Geometric
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkPoints
from vtkmodules.vtkCommonDataModel import vtkPolyData, vtkStaticCellLocator
from vtkmodules.vtkImagingStencil import vtkImageStencilToImage, vtkPolyDataToImageStencil

from MedGSLib.errors import InputError
from MedGSLib.longitudinal.sections import SurfaceCutter

Points = NDArray[np.float64]

VOXELS = 250_000
"""Size of the grid on which the first path is sought."""
REFINEMENTS = 3
SPLINE_TOLERANCE_MM = 0.35
STEP_MM = 2.0
LEAST_POINTS = 6


@dataclass(frozen=True)
class Centerline:
    """A smooth curve through the middle of a vessel, RAS mm, from one end of the part with full sections to the other.

    :ivar points: (N, 3). :ivar tangents: unit vectors (N, 3). :ivar positions_mm: arc length (N,), 0 where the vessel itself begins.
    :ivar length_mm: arc length from wall to wall, the rounded ends included.
    """

    points: Points
    tangents: Points
    positions_mm: Points
    length_mm: float


def compute_centerline(surface: vtkPolyData, step_mm: float = 1.0) -> Centerline:
    """The centreline of the longest course through a closed surface; side branches are passed by.

    It runs in the direction of increasing superior coordinate where that differs by more than its right or anterior one.

    :raises InputError: if the surface has no course longer than its own width.
    """
    path = _voxel_path(surface)
    cutter = SurfaceCutter(surface)
    curve = _resampled(path, STEP_MM, 4.0 * SPLINE_TOLERANCE_MM)
    for _ in range(REFINEMENTS):
        centers = [cutter.loop_around(point, tangent) for point, tangent in zip(*curve, strict=True)]
        found = np.array([loop.centroid for loop in centers if loop is not None])
        if len(found) < LEAST_POINTS:
            raise InputError("The segment is not tubular enough for a centreline.")
        curve = _resampled(_monotone(found, curve[0][-1] - curve[0][0]), STEP_MM, SPLINE_TOLERANCE_MM)
    points, tangents = _resampled(curve[0], step_mm, 0.0)
    along = np.abs(points[-1] - points[0])
    if (points[-1] - points[0])[2 if along[2] > 0.5 * along.max() else int(along.argmax())] < 0:
        points, tangents = points[::-1], -tangents[::-1]
    inner = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    before, after = _to_wall(surface, points[0], -tangents[0]), _to_wall(surface, points[-1], tangents[-1])
    return Centerline(points, tangents, inner + before, float(inner[-1] + before + after))


def _voxel_path(surface: vtkPolyData) -> Points:
    """Points (N, 3) of the cheapest path between the two ends of the largest piece, cheap where it is far from the wall."""
    inside, origin, step = _voxelized(surface)
    depth = distance_transform_edt(inside) * step
    first = _farthest(inside, _index_of_largest(depth))
    second = _farthest(inside, first)
    cost = np.where(inside, (depth.max() / np.maximum(depth, 0.5 * step)) ** 2, -1.0)
    search = MCP_Geometric(cost, fully_connected=True)
    search.find_costs([first], [second])
    path = np.array(search.traceback(second))
    depths = depth[tuple(path.T)]
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))]) * step
    kept = (arc > depths) & (arc[-1] - arc > depths)
    if kept.sum() < LEAST_POINTS:
        raise InputError("The segment is not tubular enough for a centreline.")
    return origin + path[kept][:, ::-1] * step


def _voxelized(surface: vtkPolyData) -> tuple[NDArray[np.bool_], Points, float]:
    """Voxels [k, j, i] inside the largest piece of a closed surface, the RAS place of the first one, and their size in mm."""
    bounds = np.array(surface.GetBounds()).reshape(3, 2)
    step = float((np.prod(np.ptp(bounds, axis=1)) / VOXELS) ** (1.0 / 3.0))
    origin = bounds[:, 0] - 1.5 * step
    size = np.ceil(np.ptp(bounds, axis=1) / step).astype(int) + 4
    stencil = vtkPolyDataToImageStencil()
    stencil.SetInputData(surface)
    stencil.SetOutputOrigin(*origin)
    stencil.SetOutputSpacing(step, step, step)
    stencil.SetOutputWholeExtent(0, int(size[0]) - 1, 0, int(size[1]) - 1, 0, int(size[2]) - 1)
    image = vtkImageStencilToImage()
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetInsideValue(1)
    image.SetOutsideValue(0)
    image.SetOutputScalarTypeToUnsignedChar()
    image.Update()
    inside = vtk_to_numpy(image.GetOutput().GetPointData().GetScalars()).reshape(size[::-1]) > 0
    pieces, count = label(inside)
    if count == 0:
        raise InputError("The surface mesh encloses nothing, so it has no centreline.")
    return pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax()), origin, step


def _farthest(inside: NDArray[np.bool_], start: tuple[int, ...]) -> tuple[int, ...]:
    """The voxel with the longest shortest way within the mask from ``start``."""
    search = MCP_Geometric(np.where(inside, 1.0, -1.0), fully_connected=True)
    costs = search.find_costs([start])[0]
    costs[~np.isfinite(costs)] = -1.0
    return _index_of_largest(costs)


def _index_of_largest(values: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(int(values.argmax()), values.shape))


def _resampled(points: Points, step_mm: float, tolerance_mm: float) -> tuple[Points, Points]:
    """Points and unit tangents about every ``step_mm`` on a cubic spline that passes within ``tolerance_mm`` (rms) of the given ones."""
    distinct = points[np.concatenate([[True], np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-6])]
    if len(distinct) < 4:
        raise InputError("The segment is not tubular enough for a centreline.")
    spline, _ = splprep(distinct.T, s=len(distinct) * tolerance_mm**2, k=3)
    fine = np.array(splev(np.linspace(0.0, 1.0, 2000), spline)).T
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    count = max(LEAST_POINTS, int(round(arc[-1] / step_mm)) + 1)
    at = np.interp(np.linspace(0.0, arc[-1], count), arc, np.linspace(0.0, 1.0, 2000))
    tangents = np.array(splev(at, spline, der=1)).T
    return np.array(splev(at, spline)).T, tangents / np.linalg.norm(tangents, axis=1, keepdims=True)


def _monotone(points: Points, direction: Points) -> Points:
    """The points without those that step back against the course, which sections that cross each other can produce."""
    kept = [points[0]]
    for index in range(1, len(points)):
        ahead = points[min(index + 1, len(points) - 1)] - points[max(index - 2, 0)]
        if (points[index] - kept[-1]) @ (ahead if np.any(ahead) else direction) > 0.0:
            kept.append(points[index])
    return np.array(kept)


def _to_wall(surface: vtkPolyData, start: Points, direction: Points) -> float:
    """Distance from a point inside along a unit vector to the wall, 0 where there is none."""
    locator = vtkStaticCellLocator()
    locator.SetDataSet(surface)
    locator.BuildLocator()
    hits = vtkPoints()
    far = start + direction * surface.GetLength()
    if not locator.IntersectWithLine(start.tolist(), far.tolist(), 1e-6, hits, None) or hits.GetNumberOfPoints() == 0:
        return 0.0
    return float(min(np.linalg.norm(np.array(hits.GetPoint(index)) - start) for index in range(hits.GetNumberOfPoints())))
