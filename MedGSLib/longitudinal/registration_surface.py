"""Rigid registration of two surfaces by trimmed point-to-plane ICP, for time points without volumes.

Growth is what moves outward: a uniform offset along the normals is not counted as misalignment, and the trimming leaves the
worst-fitting share of the surface out, so that local growth does not pull.
Chen and Medioni 1992 (point to plane); Chetverikov et al. 2002 (trimming).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.geometry import Matrix, transform_points
from MedGSLib.longitudinal.registration import LARGEST_ROTATION_DEG, Registration, rotation_deg
from MedGSLib.mesh import vertex_normals
from MedGSLib.metrics_surface import sample_surface, triangles_of

SAMPLES = 2_500
TARGET_SAMPLES = 40_000
KEPT = 0.7
"""Share of the surface that is taken as unchanged."""
ITERATIONS = 40
CONVERGED_MM = 1e-4
LARGEST_RESIDUAL_SHARE = 0.02
"""A registration whose trimmed residual exceeds this share of the surface's radius, and half an edge, was not captured."""
WEAK_DIRECTION = 1e-4


def register_surfaces(baseline: vtkPolyData, followup: vtkPolyData, starts: Sequence[Matrix] = ()) -> Registration:
    """Bring the surface ``followup`` onto ``baseline`` (both RAS mm).

    A surface of revolution does not fix all six degrees of freedom; ``quality["weakest"]`` (0..1) says how well the worst is fixed.

    :param starts: first guesses, follow-up to baseline, beside the identity and coinciding centroids.
    """
    points, triangles = triangles_of(baseline)
    cloud = sample_surface((points, triangles), TARGET_SAMPLES)
    normals = vertex_normals(points, triangles)[cKDTree(points).query(cloud)[1]]
    tree = cKDTree(cloud)
    moving = sample_surface(followup, SAMPLES, seed=1)
    radius = float(np.linalg.norm(cloud - cloud.mean(axis=0), axis=1).mean())
    centroids = np.eye(4)
    centroids[:3, 3] = cloud.mean(axis=0) - moving.mean(axis=0)
    outcomes = [_icp(moving, tree, cloud, normals, start) for start in (np.eye(4), centroids, *starts)]
    matrix, residual, weakest = min(outcomes, key=lambda outcome: outcome[1])
    edge = float(np.median(np.linalg.norm(points[triangles[:, 0]] - points[triangles[:, 1]], axis=1)))
    turned = rotation_deg(matrix)
    captured = residual < LARGEST_RESIDUAL_SHARE * radius + 0.5 * edge and turned < LARGEST_ROTATION_DEG
    quality = {"trimmed_residual_mm": residual, "weakest": weakest, "kept": KEPT}
    if not captured:
        message = (
            f"The registration failed: turned by {turned:.0f} degrees the better parts of the surfaces still differ by {residual:.1f} mm."
        )
    elif weakest < WEAK_DIRECTION:
        message = "The surfaces were registered, but they are so symmetric that one direction is not fixed by their shape."
    else:
        message = f"The surfaces were registered on each other; their better part agrees within {residual:.2f} mm."
    return Registration(matrix, "surface", captured, residual, message, quality)


def _icp(
    moving: NDArray[np.float64], tree: cKDTree, cloud: NDArray[np.float64], normals: NDArray[np.float64], start: Matrix
) -> tuple[Matrix, float, float]:
    """The transform, its trimmed root mean square residual, and the relative weakest eigenvalue of the normal equations."""
    matrix = start.copy()
    residual, weakest, offset = np.inf, 0.0, 0.0
    for _ in range(ITERATIONS):
        placed = transform_points(matrix, moving)
        nearest = tree.query(placed)[1]
        gap = np.einsum("ij,ij->i", cloud[nearest] - placed, normals[nearest])
        best = np.argsort(np.abs(gap - offset))[: int(KEPT * len(gap))]
        source, normal = placed[best], normals[nearest[best]]
        center = source.mean(axis=0)
        scale = float(np.linalg.norm(source - center, axis=1).mean())
        offset = float(np.median(gap[best]))
        rows = np.hstack([np.cross(source - center, normal) / scale, normal])
        step, weakest = _solved(rows, gap[best] - offset)
        update = np.eye(4)
        update[:3, :3] = Rotation.from_rotvec(step[:3] / scale).as_matrix()
        update[:3, 3] = center - update[:3, :3] @ center + step[3:]
        matrix = update @ matrix
        residual = float(np.sqrt(((gap[best] - offset) ** 2).mean()))
        if np.linalg.norm(step) < CONVERGED_MM:
            break
    return matrix, residual, weakest


def _solved(rows: NDArray[np.float64], gap: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The least-squares step (6,), without motion in directions that the shape does not fix, and the weakest eigenvalue."""
    strength, directions = np.linalg.eigh(rows.T @ rows / len(rows))
    wanted = directions.T @ (rows.T @ gap / len(rows))
    step = directions @ np.where(strength > WEAK_DIRECTION, wanted / np.maximum(strength, WEAK_DIRECTION), 0.0)
    return step, float(strength[0])
