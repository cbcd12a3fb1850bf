"""CT numbers of the synthetic abdomen around the aneurysm, at any point of the anatomy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from MedGSLib.phantom_shape import AneurysmSurface, TubeCoordinates

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FAT_HU, MUSCLE_HU, BOWEL_HU, THROMBUS_HU, LUMEN_HU = -95.0, 55.0, 25.0, 60.0, 290.0
CORTICAL_HU, CANCELLOUS_HU, DISC_HU = 480.0, 190.0, 85.0
VERTEBRA_PERIOD_MM, DISC_MM, CORTEX_MM = 34.0, 7.0, 2.5
TEXTURE_HU, TEXTURE_WAVES, TEXTURE_SEED = 9.0, 14, 20
LUMEN_RADIUS_MM, LUMEN_SHIFT_MM = 12.0, 6.0


def tissue_hu(points: Array, surface: AneurysmSurface) -> tuple[Array, Mask, Mask]:
    """CT numbers of points (N, 3) in the anatomy's frame, and whether each lies within the outer wall and within the lumen.

    :return: HU (N,), inside the aneurysm (N,) bool, inside the lumen (N,) bool.
    """
    where = surface.locate(points)
    wall = surface.signed_distance_at(where) >= 0.0
    lumen = wall & (_lumen_depth(where, surface) >= 0.0)
    hu = _surroundings(points) + _texture(points)
    hu[wall] = THROMBUS_HU + 0.5 * _texture(points[wall])
    hu[lumen] = LUMEN_HU
    return hu, wall, lumen


def _lumen_depth(where: TubeCoordinates, surface: AneurysmSurface) -> Array:
    """Distance inside the lumen, which lies off centre in the sac and ends 1.5 mm before the wall in the necks."""
    shape = surface.shape
    bulge = np.cos(np.clip(where.u / shape.sac_half_length_mm, -1.0, 1.0) * np.pi / 2.0) ** 2
    neck = shape.neck_radius_mm - 1.5
    radius = neck + (LUMEN_RADIUS_MM - neck) * bulge
    return radius - np.sqrt(where.tangential**2 + (where.normal - LUMEN_SHIFT_MM * bulge) ** 2 + where.binormal**2)


def _surroundings(points: Array) -> Array:
    x, y, z = points.T
    hu = np.full(len(points), FAT_HU)
    for centre, axes in (
        ((-33.0, 24.0, 18.0), (14.0, 10.0, 22.0)),
        ((36.0, 20.0, -24.0), (11.0, 13.0, 16.0)),
        ((24.0, 34.0, 30.0), (15.0, 8.0, 12.0)),
    ):
        hu[_ellipsoid(points, centre, axes)] = BOWEL_HU
    for side in (-1.0, 1.0):
        hu[np.hypot((x - 6.0 - side * (36.0 - 0.1 * z)) / 12.0, (y + 46.0) / 15.0) < 1.0] = MUSCLE_HU
    hu[(np.abs(x - 6.0) < 5.0) & (y < -66.0) & (np.mod(z, VERTEBRA_PERIOD_MM) < 15.0)] = CORTICAL_HU
    body = 1.0 - np.hypot((x - 6.0) / 24.0, (y + 54.0 + 0.0015 * z**2) / 19.0)
    height = np.abs(np.mod(z + 9.0, VERTEBRA_PERIOD_MM) - VERTEBRA_PERIOD_MM / 2.0)
    end_plate = VERTEBRA_PERIOD_MM / 2.0 - DISC_MM / 2.0
    hu[body > 0.0] = DISC_HU
    bone = (body > 0.0) & (height < end_plate)
    hu[bone] = CORTICAL_HU
    hu[bone & (body > CORTEX_MM / 21.0) & (height < end_plate - CORTEX_MM)] = CANCELLOUS_HU
    return hu


def _ellipsoid(points: Array, centre: tuple[float, float, float], axes: tuple[float, float, float]) -> Mask:
    return (((points - centre) / axes) ** 2).sum(axis=1) < 1.0


def _texture(points: Array) -> Array:
    """A smooth pattern that belongs to the anatomy: plane waves of 12 to 45 mm length, the same at every date."""
    generator = np.random.default_rng(TEXTURE_SEED)
    directions = generator.normal(size=(TEXTURE_WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    waves = 2.0 * np.pi * directions / generator.uniform(12.0, 45.0, (TEXTURE_WAVES, 1))
    phases = generator.uniform(0.0, 2.0 * np.pi, TEXTURE_WAVES)
    return TEXTURE_HU * np.sqrt(2.0 / TEXTURE_WAVES) * np.cos(points @ waves.T + phases).sum(axis=1)
