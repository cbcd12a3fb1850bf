"""Plane sections of a closed surface, and diameters of point sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import cdist
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.metrics_surface import triangles_of

Points = NDArray[np.float64]

CONTOUR_SMOOTHING_MM = 1.5
CONTOUR_POINTS = 256
LARGEST_SMOOTHING_SHARE = 0.02
"""Smoothing is limited to this share of a contour's length, so that small ones keep their shape."""
EXACT_CORNERS = 2000
DIRECTIONS = 1500
"""Search directions on the half sphere, about 4 degrees apart."""


@dataclass(frozen=True)
class Loop:
    """One closed contour of a plane section.

    :ivar points: (K, 3), the start of each of its K line segments; ``links`` (K, 2) numbers the nodes that each segment joins.
    :ivar area_mm2: the area inside, and ``centroid`` (3,) its centre.
    :ivar around_origin: whether the point that the plane was put through lies inside.
    """

    points: Points
    links: NDArray[np.int64]
    area_mm2: float
    centroid: Points
    around_origin: bool


class SurfaceCutter:
    """Cuts one closed triangle surface by many planes."""

    def __init__(self, surface: vtkPolyData) -> None:
        self._points, self._triangles = triangles_of(surface)
        self._corners = np.ascontiguousarray(self._triangles.T)

    def heights(self, normal: Points) -> Points:
        """Extent of the surface along a unit vector: the coordinate (N,) of each point."""
        return self._points @ normal

    def loops(self, origin: Points, normal: Points) -> list[Loop]:
        """The contours in which the plane through ``origin`` (3,) with unit ``normal`` (3,) meets the surface."""
        height = (self._points - origin) @ normal
        above = height > 0.0
        first, second, third = (above[corner] for corner in self._corners)
        crossing = self._triangles[(first != second) | (second != third)]
        if len(crossing) == 0:
            return []
        starts, ends, node = self._segments(crossing, height)
        labels = connected_components(
            sparse.coo_matrix((np.ones(len(node)), (node[:, 0], node[:, 1])), shape=(node.max() + 1,) * 2), False
        )[1]
        owner = labels[node[:, 0]]
        found = []
        for label in np.unique(owner):
            own = owner == label
            found.append(_loop(starts[own], ends[own], node[own], origin, normal))
        return found

    def loop_around(self, origin: Points, normal: Points) -> Loop | None:
        """The contour around ``origin``, the smallest where several are nested, or None."""
        around = [loop for loop in self.loops(origin, normal) if loop.around_origin]
        return min(around, key=lambda loop: loop.area_mm2) if around else None

    def _segments(self, crossing: NDArray[np.int64], height: Points) -> tuple[Points, Points, NDArray[np.int64]]:
        """Start and end points (M, 3) of the line in each triangle, wound as the triangles are, and numbers (M, 2) of their nodes."""
        a, b = crossing, np.roll(crossing, -1, axis=1)
        falls = (height[a] > 0.0) & (height[b] <= 0.0)
        rises = (height[a] <= 0.0) & (height[b] > 0.0)
        edges = [np.stack([a[change], b[change]], axis=1) for change in (falls, rises)]
        ends = []
        for edge in edges:
            share = (height[edge[:, 0]] / (height[edge[:, 0]] - height[edge[:, 1]]))[:, None]
            ends.append(self._points[edge[:, 0]] * (1.0 - share) + self._points[edge[:, 1]] * share)
        both = np.concatenate(edges)
        key = both.min(axis=1) * len(self._points) + both.max(axis=1)
        node = np.unique(key, return_inverse=True)[1].reshape(2, -1).T
        return ends[0], ends[1], node


def smoothed_contour(loop: Loop, normal: Points, width_mm: float = CONTOUR_SMOOTHING_MM) -> Points:
    """Points (N, 3) of a contour after a Gaussian of standard deviation ``width_mm`` along it, scaled to enclose the same area.

    The largest diameter of a rough contour is biased by its roughness, as it picks the two farthest bumps; this removes most of it.
    """
    ordered = loop.points[_order_around(loop.links)]
    closed = np.concatenate([ordered, ordered[:1]])
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    if arc[-1] <= 0.0 or len(loop.points) < 8:
        return loop.points
    at = np.linspace(0.0, arc[-1], CONTOUR_POINTS, endpoint=False)
    even = np.stack([np.interp(at, arc, closed[:, axis]) for axis in range(3)], axis=1)
    width = min(width_mm, LARGEST_SMOOTHING_SHARE * arc[-1])
    frequency = np.fft.rfftfreq(CONTOUR_POINTS, arc[-1] / CONTOUR_POINTS)
    kept = np.exp(-2.0 * (np.pi * frequency * width) ** 2)[:, None]
    smooth = np.fft.irfft(np.fft.rfft(even, axis=0) * kept, CONTOUR_POINTS, axis=0)
    area = abs(np.cross(smooth - loop.centroid, np.roll(smooth, -1, axis=0) - loop.centroid).sum(axis=0) @ normal) / 2.0
    return loop.centroid + (smooth - loop.centroid) * np.sqrt(loop.area_mm2 / max(area, 1e-9))


def _order_around(links: NDArray[np.int64]) -> NDArray[np.int64]:
    """The segments (K,) of one contour in their order around it, given the start and end node (K, 2) of each."""
    following = dict(zip(links[:, 0].tolist(), range(len(links)), strict=True))
    after = [following.get(end, 0) for end in links[:, 1].tolist()]
    order = [0]
    while (at := after[order[-1]]) != 0 and len(order) < len(links):
        order.append(at)
    return np.array(order)


def _loop(starts: Points, ends: Points, links: NDArray[np.int64], origin: Points, normal: Points) -> Loop:
    """Area and centroid of a contour by Green's theorem, and its winding number about the origin; only its orientation matters."""
    across = _in_plane(normal)
    p, q = (starts - origin) @ across.T, (ends - origin) @ across.T
    cross = p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]
    area = cross.sum() / 2.0
    if abs(area) < 1e-12:
        return Loop(starts, links, 0.0, starts.mean(axis=0), False)
    middle = ((p + q) * cross[:, None]).sum(axis=0) / (6.0 * area)
    turns = np.arctan2(cross, (p * q).sum(axis=1)).sum() / (2.0 * np.pi)
    return Loop(starts, links, float(abs(area)), origin + middle @ across, bool(abs(turns) > 0.5))


def _in_plane(normal: Points) -> Points:
    """Two unit vectors (2, 3) that span the plane with this normal."""
    helper = np.eye(3)[int(np.argmin(np.abs(normal)))]
    first = np.cross(normal, helper)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(normal, first)])


def max_diameter(points: Points) -> tuple[float, Points]:
    """The largest distance between two points (Feret diameter); beyond 2000 corners of the hull to within 0.1 %, else exact.

    :param points: (N, 3), also when they lie in a plane.
    :return: the distance and its two end points (2, 3).
    """
    corners = _hull(np.asarray(points, dtype=np.float64))
    if len(corners) > EXACT_CORNERS:
        ends = _extreme_pair(corners)
    else:
        apart = cdist(corners, corners)
        ends = corners[list(np.unravel_index(int(apart.argmax()), apart.shape))]
    return float(np.linalg.norm(ends[1] - ends[0])), ends


def _extreme_pair(corners: Points) -> Points:
    """The ends (2, 3) of the widest of many directions spread evenly over the sphere, then improved from end to end."""
    count = np.arange(DIRECTIONS) + 0.5
    height, turn = 1.0 - count / DIRECTIONS, np.pi * (1.0 + 5.0**0.5) * count
    ring = np.sqrt(1.0 - height**2)
    along = np.stack([ring * np.cos(turn), ring * np.sin(turn), height]).T @ corners.T
    first = corners[int(along[int(np.ptp(along, axis=1).argmax())].argmax())]
    for _ in range(8):
        second = corners[int(cdist(first[None], corners).argmax())]
        first, second = second, first
    return np.stack([first, second])


def width_across(points: Points, direction: Points) -> float:
    """Extent of points (N, 3) along a unit vector."""
    return float(np.ptp(points @ direction))


def _hull(points: Points) -> Points:
    """The corners of the convex hull in the dimension that the points span, or all points where they are too few or collinear."""
    if len(points) < 8:
        return points
    centered = points - points.mean(axis=0)
    _, size, axes = np.linalg.svd(centered[:: max(1, len(centered) // 2000)], full_matrices=False)
    flat = size[2] < 1e-7 * max(size[0], 1e-12)
    try:
        return points[ConvexHull(centered @ axes[:2].T if flat else centered).vertices]
    except QhullError:
        return points
