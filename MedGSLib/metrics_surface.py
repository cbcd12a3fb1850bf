"""Measures of closed triangle surfaces in millimetres, and distances between two of them.

A surface is a ``vtkPolyData`` or a pair (points (P, 3) in mm, triangles (T, 3) of point indices).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Tuple, Union

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, QhullError, cKDTree
from scipy.spatial.distance import cdist

from MedGSLib.errors import InputError

Triangles = Tuple[NDArray[np.float64], NDArray[np.int64]]
Surface = Union[Triangles, Any]
"""A (points, triangles) pair or a vtkPolyData."""

DENSE_SAMPLES = 150_000
QUERY_SAMPLES = 15_000
_BLOCK = 2048


@dataclass(frozen=True)
class SurfaceDistance:
    """Symmetric distances between two surfaces in mm: mean, and 95th percentile (the larger of the two directions)."""

    chamfer_mm: float
    hd95_mm: float


@dataclass(frozen=True)
class Topology:
    """How a surface hangs together.

    :ivar components: number of connected pieces; :ivar boundary_edges: edges of one triangle only (holes).
    :ivar crowded_edges: edges of more than two triangles; :ivar flipped_edges: edges whose two triangles disagree on the outside.
    :ivar pinched_points: points at which two sheets of surface touch.
    :ivar euler: Euler characteristic, 2 for each piece without a handle.
    """

    components: int
    boundary_edges: int
    crowded_edges: int
    flipped_edges: int
    pinched_points: int
    euler: int

    @property
    def closed(self) -> bool:
        """No holes."""
        return self.boundary_edges == 0

    @property
    def manifold(self) -> bool:
        """Each inner edge belongs to two triangles and the triangles of each point form one fan."""
        return self.crowded_edges == 0 and self.pinched_points == 0

    @property
    def oriented(self) -> bool:
        """All triangles agree on the outside."""
        return self.flipped_edges == 0


def triangles_of(surface: Surface) -> Triangles:
    """Points float64 (P, 3) and triangles int64 (T, 3) of a surface.

    :raises InputError: if it has no triangle or a face that is not one.
    """
    if isinstance(surface, tuple):
        points, triangles = (np.asarray(part) for part in surface)
    else:
        points, triangles = _polydata_arrays(surface)
    if len(triangles) == 0:
        raise InputError("The surface has no triangles, so it cannot be measured.")
    return points.astype(np.float64), triangles.astype(np.int64)


def _polydata_arrays(polydata: Any) -> tuple[NDArray, NDArray]:
    from vtk.util.numpy_support import vtk_to_numpy

    polygons = polydata.GetPolys()
    if polydata.GetNumberOfPoints() == 0 or polygons.GetNumberOfCells() == 0:
        return np.empty((0, 3)), np.empty((0, 3), np.int64)
    if polygons.IsHomogeneous() != 3:
        raise InputError("The surface has faces with more than three corners, so it cannot be measured.")
    return vtk_to_numpy(polydata.GetPoints().GetData()), vtk_to_numpy(polygons.GetConnectivityArray()).reshape(-1, 3)


def sample_surface(surface: Surface, count: int, seed: int = 0) -> NDArray[np.float64]:
    """Points (count, 3) spread evenly by area over the surface; the same seed gives the same points."""
    points, triangles = triangles_of(surface)
    corners = points[triangles]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    rng = np.random.default_rng(seed)
    chosen = corners[rng.choice(len(triangles), count, p=areas / areas.sum())]
    share = rng.random((count, 2))
    share = np.where(share.sum(axis=1, keepdims=True) > 1, 1 - share, share)
    return chosen[:, 0] + share[:, :1] * (chosen[:, 1] - chosen[:, 0]) + share[:, 1:] * (chosen[:, 2] - chosen[:, 0])


def surface_distance(first: Surface, second: Surface, seed: int = 0, samples: int = DENSE_SAMPLES) -> SurfaceDistance:
    """Chamfer distance (mean of both directed mean distances) and HD95 between two surfaces, by samples spread evenly by area.

    The spacing of the ``samples`` on each surface is a floor under both figures, the same for all methods compared.
    """
    clouds = [sample_surface(surface, samples, seed + k) for k, surface in enumerate((first, second))]
    queries = min(QUERY_SAMPLES, samples)
    forth = cKDTree(clouds[1]).query(clouds[0][:queries])[0]
    back = cKDTree(clouds[0]).query(clouds[1][:queries])[0]
    hd95 = max(float(np.percentile(forth, 95)), float(np.percentile(back, 95)))
    return SurfaceDistance(float(forth.mean() + back.mean()) / 2, hd95)


def volume_mm3(surface: Surface) -> float:
    """Signed enclosed volume by the divergence theorem; positive for outward normals, exact for a closed surface."""
    points, triangles = triangles_of(surface)
    a, b, c = np.moveaxis((points - points.mean(axis=0))[triangles], 1, 0)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6.0)


def surface_area_mm2(surface: Surface) -> float:
    """Total area of the triangles."""
    return float(np.linalg.norm(_face_normals(surface), axis=1).sum() / 2.0)


def roughness_deg(surface: Surface) -> float:
    """Mean angle between the normals of neighbouring triangles, in degrees; 0 is flat, staircases are rough."""
    _, triangles = triangles_of(surface)
    normals = _face_normals(surface)
    lengths = np.linalg.norm(normals, axis=1)
    normals = normals / np.maximum(lengths, 1e-12)[:, None]
    left, right = _face_pairs(triangles)
    proper = (lengths[left] > 1e-12) & (lengths[right] > 1e-12)
    cosines = np.einsum("ij,ij->i", normals[left[proper]], normals[right[proper]])
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean())


def max_diameter_mm(surface: Surface) -> float:
    """The largest distance between any two points of the surface (3-D Feret diameter), exact."""
    points, triangles = triangles_of(surface)
    used = points[np.unique(triangles)]
    try:
        used = used[ConvexHull(used).vertices]
    except QhullError:  # a flat surface has no hull, but few points
        used = np.unique(used, axis=0)
    return max(float(cdist(used[k : k + _BLOCK], used[k:]).max()) for k in range(0, len(used), _BLOCK))


def topology(surface: Surface) -> Topology:
    """Connectedness, closedness, manifoldness and orientation of a surface."""
    points, triangles = triangles_of(surface)
    directed = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    forward = directed[:, 0] < directed[:, 1]
    edges, owner, counts = np.unique(np.sort(directed, axis=1), axis=0, return_inverse=True, return_counts=True)
    balance = np.bincount(owner.ravel(), weights=np.where(forward, 1.0, -1.0))
    used = np.unique(triangles)
    ends = (np.ones(len(edges), bool), (edges[:, 0], edges[:, 1]))
    _, label = connected_components(coo_matrix(ends, shape=(len(points), len(points))), directed=False)
    return Topology(
        components=len(np.unique(label[used])),
        boundary_edges=int(np.count_nonzero(counts == 1)),
        crowded_edges=int(np.count_nonzero(counts > 2)),
        flipped_edges=int(np.count_nonzero((counts == 2) & (balance != 0))),
        pinched_points=_pinched_points(triangles),
        euler=len(used) - len(edges) + len(triangles),
    )


def _pinched_points(triangles: NDArray[np.int64]) -> int:
    """Points whose triangles form more than one fan: corners that share an edge at their point are joined, then counted."""
    corner_point = triangles.ravel()
    count = len(corner_point)
    face = np.repeat(np.arange(len(triangles)), 3)
    links = []
    for turn in (1, 2):
        other = np.roll(triangles, -turn, axis=1).ravel()
        links.append(np.stack([corner_point, other, np.arange(count), face], axis=1))
    spokes = np.concatenate(links)
    spokes = spokes[np.lexsort((spokes[:, 1], spokes[:, 0]))]
    same = (spokes[1:, 0] == spokes[:-1, 0]) & (spokes[1:, 1] == spokes[:-1, 1])
    joined = (np.ones(int(same.sum()), bool), (spokes[:-1][same, 2], spokes[1:][same, 2]))
    fans, fan = connected_components(coo_matrix(joined, shape=(count, count)), directed=False)
    fan_point = np.empty(fans, np.int64)
    fan_point[fan] = corner_point
    return int(np.count_nonzero(np.bincount(fan_point) > 1))


def _face_normals(surface: Surface) -> NDArray[np.float64]:
    """Normals (T, 3) whose length is twice the area of their triangle."""
    points, triangles = triangles_of(surface)
    corners = points[triangles]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _face_pairs(triangles: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the triangles on either side of each shared edge."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    faces = np.tile(np.arange(len(triangles)), 3)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, faces = edges[order], faces[order]
    same = (edges[1:] == edges[:-1]).all(axis=1)
    return faces[:-1][same], faces[1:][same]
