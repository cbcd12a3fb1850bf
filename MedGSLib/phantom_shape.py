"""The outer surface of a synthetic abdominal aortic aneurysm, in closed form.

The surface is a tube around a planar, sine-shaped centreline: perpendicular to the centreline at height u its sections are curves
r(u, angle) around the centreline point, and each end is a half sphere. A local bump of the radius stands for growth. In this form
the largest diameter perpendicular to the centreline, the volume and the place of the growth are known to any accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.spatial.distance import pdist
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.geometry import Matrix, transform_points
from MedGSLib.mesh import occupancy_to_mesh, polydata_from_arrays, with_point_normals
from MedGSLib.metrics_surface import triangles_of

Array = NDArray[np.float64]

NEWTON_STEPS = 6
QUADRATURE_POINTS = 721


@dataclass(frozen=True)
class AneurysmShape:
    """Sizes in mm; the anatomy's own frame is x = right, y = anterior, z = superior, with the middle of the sac at the origin.

    ``growth_mm`` is the height of a Gaussian bump of standard deviation ``growth_width_mm`` on the wall, at height ``growth_z_mm``
    and at ``growth_angle_deg`` around the centreline (0 = towards ``bow_direction``).
    """

    neck_radius_mm: float = 10.0
    sac_radius_mm: float = 27.0
    sac_half_length_mm: float = 38.0
    half_length_mm: float = 42.0
    bow_mm: float = 6.0
    bow_direction_deg: float = 40.0
    growth_mm: float = 0.0
    growth_z_mm: float = 0.0
    growth_angle_deg: float = 50.0
    growth_width_mm: float = 9.0


@dataclass(frozen=True)
class TubeCoordinates:
    """Where points lie relative to the centreline, each (N,).

    ``u`` is the height of the nearest centreline point; the offset from it in mm is split along its tangent, in-plane normal and binormal.
    """

    u: Array
    tangential: Array
    normal: Array
    binormal: Array

    @property
    def distance(self) -> Array:
        """Distance to the centreline (N,)."""
        return np.sqrt(self.tangential**2 + self.normal**2 + self.binormal**2)

    @property
    def angle(self) -> Array:
        """Angle around the centreline (N,), 0 along the in-plane normal."""
        return np.arctan2(self.binormal, self.normal)


class AneurysmSurface:
    """The implicit surface of an :class:`AneurysmShape`; points are in the anatomy's own frame, mm."""

    def __init__(self, shape: AneurysmShape) -> None:
        self.shape = shape
        bow = np.deg2rad(shape.bow_direction_deg)
        self._lateral = np.array([np.cos(bow), np.sin(bow), 0.0])
        self._binormal = np.array([np.sin(bow), -np.cos(bow), 0.0])
        self._wave = np.pi / (2.0 * shape.half_length_mm)

    def centerline(self, u: Array) -> Array:
        """Points (N, 3) at heights ``u`` (N,)."""
        return self._bow(u)[:, None] * self._lateral + np.asarray(u)[:, None] * (0.0, 0.0, 1.0)

    def frame(self, u: Array) -> tuple[Array, Array, Array]:
        """Unit tangent, in-plane normal and binormal (N, 3) of the centreline at heights ``u`` (N,)."""
        slope = self._slope(u)
        length = np.sqrt(1.0 + slope**2)
        along = np.array([0.0, 0.0, 1.0])
        tangent = (along + slope[:, None] * self._lateral) / length[:, None]
        normal = (self._lateral - slope[:, None] * along) / length[:, None]
        return tangent, normal, np.broadcast_to(self._binormal, normal.shape)

    def locate(self, points: Array) -> TubeCoordinates:
        """Nearest centreline point of each point (N, 3) by Newton's method; beyond the ends it is the end point."""
        lateral, binormal, height = points @ self._lateral, points @ self._binormal, points[:, 2]
        limit = self.shape.half_length_mm
        u = np.clip(height, -limit, limit)
        for _ in range(NEWTON_STEPS):
            offset, slope = lateral - self._bow(u), self._slope(u)
            curvature = 1.0 + slope**2 - offset * self._bend(u)
            u = np.clip(u + (height - u + offset * slope) / np.maximum(curvature, 0.2), -limit, limit)
        along, offset, slope = height - u, lateral - self._bow(u), self._slope(u)
        length = np.sqrt(1.0 + slope**2)
        return TubeCoordinates(u, (along + offset * slope) / length, (offset - along * slope) / length, binormal)

    def radius(self, u: Array, angle: Array) -> Array:
        """Distance r(u, angle) of the wall from the centreline."""
        return self._base_radius(u) + self._bump(u, angle)

    def signed_distance(self, points: Array) -> Array:
        """Distance of points (N, 3) to the wall, positive inside.

        First order, f / |grad f| with f = r(u, angle) - |p - c(u)|: exact on the surface and at the ends, within 0.1 mm at 3 mm from it.
        """
        return self.signed_distance_at(self.locate(points))

    def signed_distance_at(self, where: TubeCoordinates) -> Array:
        """:meth:`signed_distance` of points whose tube coordinates are known."""
        distance = np.maximum(where.distance, 1e-9)
        radius = self.radius(where.u, where.angle)
        step = 1e-4
        per_mm = self._stretch(where.u) * np.maximum(1.0 - self._curvature(where.u) * where.normal, 0.1)
        along = (self.radius(where.u + step, where.angle) - radius) / step / per_mm
        around = (self.radius(where.u, where.angle + step) - radius) / step / np.maximum(distance, 1.0)
        return (radius - distance) / np.sqrt(1.0 + along**2 + around**2)

    def max_diameter_mm(self) -> float:
        """The largest outer-to-outer diameter of all sections perpendicular to the centreline."""
        angle = np.linspace(0.0, 2.0 * np.pi, 361)[:-1]
        best = 0.0
        for u in np.linspace(-self.shape.half_length_mm, self.shape.half_length_mm, 337):
            radius = self.radius(np.full_like(angle, u), angle)
            best = max(best, float(pdist(np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])).max()))
        return best

    def volume_mm3(self) -> float:
        """The enclosed volume: integral of r^2/2 - curvature r^3 cos(angle)/3 over angle and arc length, plus two half spheres."""
        limit = self.shape.half_length_mm
        u = np.linspace(-limit, limit, QUADRATURE_POINTS)
        angle = np.linspace(0.0, 2.0 * np.pi, 361)[:-1]
        heights, angles = np.meshgrid(u, angle, indexing="ij")
        radius = self.radius(heights, angles)
        section = (radius**2 / 2.0 - self._curvature(heights) * radius**3 * np.cos(angles) / 3.0).mean(axis=1) * 2.0 * np.pi
        ends = 2.0 / 3.0 * np.pi * (self._base_radius(u[[0, -1]]) ** 3).sum()
        return float(trapezoid(section * self._stretch(u), u) + ends)

    def length_mm(self) -> float:
        """Arc length of the centreline between the outermost points of the two half spheres."""
        u = np.linspace(-self.shape.half_length_mm, self.shape.half_length_mm, QUADRATURE_POINTS)
        return float(trapezoid(self._stretch(u), u) + self._base_radius(u[[0, -1]]).sum())

    def wall_point(self, u: float, angle: float) -> Array:
        """The point (3,) of the wall at a height and an angle (rad)."""
        height = np.array([u])
        _, normal, binormal = self.frame(height)
        outward = np.cos(angle) * normal + np.sin(angle) * binormal
        return (self.centerline(height) + self.radius(height, np.array([angle]))[:, None] * outward)[0]

    def project(self, points: Array) -> Array:
        """Points (N, 3) moved onto the wall along the ray from their nearest centreline point."""
        where = self.locate(points)
        centre = self.centerline(where.u)
        scale = self.radius(where.u, where.angle) / np.maximum(where.distance, 1e-9)
        return centre + (points - centre) * scale[:, None]

    def mesh(self, to_ras: Matrix, step_mm: float = 1.0) -> vtkPolyData:
        """A triangle mesh whose points lie exactly on the wall, in RAS mm, given the anatomy's pose."""
        reach = self.shape.sac_radius_mm + self.shape.bow_mm + self.shape.growth_mm + 2.0 * step_mm
        height = self.shape.half_length_mm + self.shape.neck_radius_mm + 2.0 * step_mm
        axes = [np.arange(-limit, limit + step_mm, step_mm) for limit in (height, reach, reach)]
        z, y, x = np.meshgrid(*axes, indexing="ij")
        distance = self.signed_distance(np.column_stack([x.ravel(), y.ravel(), z.ravel()])).reshape(x.shape)
        index_to_own = np.diag([step_mm, step_mm, step_mm, 1.0])
        index_to_own[:3, 3] = (axes[2][0], axes[1][0], axes[0][0])
        points, triangles = triangles_of(occupancy_to_mesh(0.5 + 0.5 * np.tanh(distance / step_mm / 2.0), index_to_own))
        return with_point_normals(polydata_from_arrays(transform_points(to_ras, self.project(points)), triangles))

    def _base_radius(self, u: Array) -> Array:
        shape = self.shape
        phase = np.clip(np.asarray(u) / shape.sac_half_length_mm, -1.0, 1.0) * np.pi / 2.0
        return shape.neck_radius_mm + (shape.sac_radius_mm - shape.neck_radius_mm) * np.cos(phase) ** 2

    def _bump(self, u: Array, angle: Array) -> Array:
        shape = self.shape
        turn = np.asarray(angle) - np.deg2rad(shape.growth_angle_deg)
        around = shape.sac_radius_mm * np.abs(np.arctan2(np.sin(turn), np.cos(turn)))
        along = np.asarray(u) - shape.growth_z_mm
        return shape.growth_mm * np.exp(-0.5 * (along**2 + around**2) / shape.growth_width_mm**2)

    def _bow(self, u: Array) -> Array:
        return self.shape.bow_mm * np.sin(self._wave * u)

    def _slope(self, u: Array) -> Array:
        return self.shape.bow_mm * self._wave * np.cos(self._wave * u)

    def _bend(self, u: Array) -> Array:
        return -self.shape.bow_mm * self._wave**2 * np.sin(self._wave * u)

    def _stretch(self, u: Array) -> Array:
        return np.sqrt(1.0 + self._slope(u) ** 2)

    def _curvature(self, u: Array) -> Array:
        return self._bend(u) / self._stretch(u) ** 3
