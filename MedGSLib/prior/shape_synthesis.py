"""Random synthetic shapes that teach the shape networks how closed surfaces look between slices; no patient data is involved.

A shape is where a level-set function on a cube of 64 voxels a side is positive. Voxels are as long as wide, so that any axis may be the
stack and any number of slices left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import distance_transform_edt, gaussian_filter, label, zoom

SIDE = 64
GAP_RANGE_PX = (1.5, 9.6)
LEAST_FILLED, MOST_FILLED = 0.01, 0.7
COARSE_SCALE = 4.0
"""Random fields smoother than this many voxels are made on every second voxel and interpolated."""
THIN_ROUGHNESS = 0.3
"""Of thin shapes, in that of solid ones, which would tear them."""

Field = NDArray[np.float32]
Family = Callable[[Generator], Field]
"""Draws a level-set function (64, 64, 64), positive inside."""


@dataclass(frozen=True)
class ShapeSet:
    """``packed`` uint8 (N, 32768), the voxels of each shape as bits."""

    packed: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.packed)

    def draw(self, rng: Generator) -> NDArray[np.bool_]:
        """One of the shapes, bool (64, 64, 64), its axes exchanged and reversed at random."""
        shape = np.unpackbits(self.packed[rng.integers(len(self))]).view(bool).reshape(SIDE, SIDE, SIDE)
        return np.flip(shape.transpose(rng.permutation(3)), tuple(np.flatnonzero(rng.random(3) < 0.5)))


def _axes() -> tuple[Field, Field, Field]:
    """Voxel coordinates z (64, 1, 1), y (1, 64, 1), x (1, 1, 64)."""
    axis = np.arange(SIDE, dtype=np.float32)
    return axis[:, None, None], axis[None, :, None], axis[None, None, :]


Z, Y, X = _axes()


def make_shapes(count: int, seed: int, families: tuple[Family, ...] = ()) -> ShapeSet:
    """Draw ``count`` shapes of some families, :data:`SOLID_FAMILIES` by default; the same seed gives the same shapes."""
    rng = np.random.default_rng(seed)
    packed = np.empty((count, SIDE**3 // 8), np.uint8)
    made = 0
    while made < count:
        inside = _draw_shape(rng, families or SOLID_FAMILIES)
        if LEAST_FILLED <= inside.mean() <= MOST_FILLED:
            packed[made] = np.packbits(inside)
            made += 1
    return ShapeSet(packed)


def _draw_shape(rng: Generator, families: tuple[Family, ...]) -> NDArray[np.bool_]:
    family = families[rng.integers(len(families))]
    field = family(rng)
    if family is _random_field:
        return _one_component(rng, field > 0)
    if rng.random() < 0.7:
        scale = float(np.exp(rng.uniform(np.log(2.5), np.log(9.0))))
        share = THIN_ROUGHNESS if family in THIN_FAMILIES else 1.0
        field = field + np.float32(share * rng.uniform(0.1, 0.35) * scale) * _noise(rng, scale)
    return field > 0


def _noise(rng: Generator, scale: float) -> Field:
    """Gaussian random field of unit variance, smooth over ``scale`` voxels."""
    step = 2 if scale > COARSE_SCALE else 1
    white = rng.standard_normal((SIDE // step,) * 3).astype(np.float32)
    smooth = gaussian_filter(white, scale / step)
    smooth = zoom(smooth, step, order=1) if step > 1 else smooth
    return smooth / smooth.std()


def _random_field(rng: Generator) -> Field:
    """Blobs: an excursion set of a Gaussian random field."""
    scale = float(np.exp(rng.uniform(np.log(3.0), np.log(11.0))))
    return _noise(rng, scale) - np.float32(rng.uniform(-0.3, 1.2))


def _one_component(rng: Generator, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mostly keep the largest component, as segments usually have one."""
    if rng.random() >= 0.7:
        return inside
    components, count = label(inside)
    return inside if count == 0 else components == np.bincount(components.ravel())[1:].argmax() + 1


def _smooth_union(first: Field, second: Field, softness: float) -> Field:
    return (softness * np.logaddexp(first / softness, second / softness)).astype(np.float32)


def _ellipsoids(rng: Generator) -> Field:
    """Organs: one to five rotated ellipsoids, merged softly or carved out of each other."""
    field: Field | None = None
    for _ in range(rng.integers(1, 6)):
        centre = np.array([rng.uniform(6, 58), *rng.uniform(10, 54, 2)])
        axes = np.exp(rng.uniform(np.log(2.5), np.log(24.0), 3))
        rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        offsets = (Z - centre[0], Y - centre[1], X - centre[2])
        local = [sum(offset * rotation[i, j] for i, offset in enumerate(offsets)) / axes[j] for j in range(3)]
        ellipsoid = ((1.0 - np.sqrt(local[0] ** 2 + local[1] ** 2 + local[2] ** 2)) * axes.min()).astype(np.float32)
        if field is None:
            field = ellipsoid
        elif rng.random() < 0.2:
            field = np.minimum(field, -ellipsoid)
        else:
            field = _smooth_union(field, ellipsoid, rng.uniform(0.2, 2.0))
    assert field is not None
    return field


def _tubes(rng: Generator) -> Field:
    """Vessels: one to three tubes of varying radius along cubic Bezier curves."""
    field: Field | None = None
    for _ in range(rng.integers(1, 4)):
        curve, radii = _bezier_tube(rng)
        tube = np.full((SIDE, SIDE, SIDE), -99.0, np.float32)
        for start, end, radius_start, radius_end in zip(curve[:-1], curve[1:], radii[:-1], radii[1:]):
            tube = np.maximum(tube, _cone(start, end, radius_start, radius_end))
        field = tube if field is None else _smooth_union(field, tube, rng.uniform(0.2, 2.0))
    assert field is not None
    return field


def _bezier_tube(rng: Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Twelve points (z, y, x) along a random curve, and the radius at each."""
    length = SIDE - 1
    first, last = (np.array([rng.uniform(-0.3, 1.3) * length, *rng.uniform(4, 60, 2)]) for _ in range(2))
    if rng.random() < 0.5:
        first[0], last[0] = -2.0, length + 2.0
        last[1:] = first[1:] + rng.normal(0, 14, 2)
    if rng.random() < 0.5:
        handles = [first + (last - first) * share + rng.normal(0, 5, 3) for share in (1 / 3, 2 / 3)]
    else:
        handles = [(first + last) / 2 + rng.normal(0, 14, 3) for _ in range(2)]
    t = np.linspace(0, 1, 12)[:, None]
    s = 1 - t
    curve = s**3 * first + 3 * s**2 * t * handles[0] + 3 * s * t**2 * handles[1] + t**3 * last
    base = np.exp(rng.uniform(np.log(2.0), np.log(13.0)))
    wave = np.sin(2 * np.pi * t[:, 0] * rng.uniform(0.5, 2.0))
    return curve, base * (1 + rng.uniform(-0.4, 0.4) * (t[:, 0] - 0.5) + 0.2 * rng.normal() * wave)


def _cone(start: NDArray, end: NDArray, radius_start: float, radius_end: float) -> Field:
    """Depth inside a round cone between two points (z, y, x)."""
    axis = (end - start).astype(np.float32)
    dz, dy, dx = Z - np.float32(start[0]), Y - np.float32(start[1]), X - np.float32(start[2])
    along = np.clip((dz * axis[0] + dy * axis[1] + dx * axis[2]) / (float(axis @ axis) + 1e-6), 0, 1)
    distance = np.sqrt((dz - along * axis[0]) ** 2 + (dy - along * axis[1]) ** 2 + (dx - along * axis[2]) ** 2)
    return (radius_start + (radius_end - radius_start) * along - distance).astype(np.float32)


def _star(rng: Generator) -> Field:
    """Contours that change from slice to slice: Fourier radii about a wandering centre, at times ending in a cap."""
    knots = np.linspace(-6, SIDE + 6, rng.integers(5, 20))

    def course(spread: float, mean: float = 0.0) -> Field:
        values = mean + spread * rng.standard_normal(len(knots))
        return CubicSpline(knots, values)(np.arange(SIDE)).astype(np.float32)[:, None, None]

    base = float(np.exp(rng.uniform(np.log(4.0), np.log(24.0))))
    dy = Y - course(rng.uniform(0, 5), SIDE / 2)
    dx = X - course(rng.uniform(0, 5), SIDE / 2)
    angle = np.arctan2(dy, dx)
    radius = course(base * rng.uniform(0.02, 0.3), base)
    for order in range(1, 7):
        spread = base * rng.uniform(0, 0.5) / order**1.3
        radius = radius + course(0.4 * spread, spread * rng.normal()) * np.cos(order * angle)
        radius = radius + course(0.4 * spread, spread * rng.normal()) * np.sin(order * angle)
    field = radius - np.sqrt(dy**2 + dx**2)
    if rng.random() < 0.5:
        z = (Z - rng.uniform(14, 50)) / rng.uniform(8, 40)
        lateral = ((Y - SIDE / 2) / 40) ** 2 + ((X - SIDE / 2) / 40) ** 2
        field = np.minimum(field, 10 * (rng.uniform(0.4, 1.0) - np.sqrt(z**2 + lateral)))
    return field.astype(np.float32)


def _shell(rng: Generator) -> Field:
    """Hollow organs and rings: the outermost voxels of a solid shape, thicker here and thinner there, at times open on a side."""
    solid = _SOLID_LEVEL_SETS[rng.integers(len(_SOLID_LEVEL_SETS))](rng)
    depth = distance_transform_edt(solid > 0).astype(np.float32) - np.float32(0.5)
    thickness = np.float32(np.exp(rng.uniform(np.log(1.5), np.log(8.0))))
    field = np.minimum(depth, thickness * (1 + np.float32(rng.uniform(0, 0.4)) * _noise(rng, rng.uniform(4, 12))) - depth)
    if rng.random() < 0.5:
        normal = rng.standard_normal(3)
        z, y, x = _centred(rng, normal / np.linalg.norm(normal))
        field = np.minimum(field, z + y + x)
    return field


def _centred(rng: Generator, normal: NDArray[np.float64]) -> tuple[Field, Field, Field]:
    """The parts (z, y, x) of the signed distance to a plane near the middle of the cube."""
    parts = [np.float32(share) * (axis - np.float32(rng.uniform(20, 44))) for share, axis in zip(normal, (Z, Y, X))]
    return parts[0], parts[1], parts[2]


def _bones(rng: Generator) -> Field:
    """Bent plates and tapering processes, mostly on a body."""
    field = np.full((SIDE, SIDE, SIDE), -99.0, np.float32)
    if rng.random() < 0.7:
        field = np.maximum(field, _SOLID_LEVEL_SETS[rng.integers(2)](rng))
    for _ in range(rng.integers(1, 4)):
        field = _smooth_union(field, _plate(rng), rng.uniform(0.2, 1.0))
    for _ in range(rng.integers(0, 4)):
        start = rng.uniform(16, 48, 3)
        end = start + rng.normal(0, 16, 3)
        radius = float(np.exp(rng.uniform(np.log(1.2), np.log(6.0))))
        field = _smooth_union(field, _cone(start, end, radius, radius * rng.uniform(0.3, 1.0)), rng.uniform(0.2, 1.0))
    return field


def _plate(rng: Generator) -> Field:
    """A bent sheet of 1.5 to 7 voxels with an elliptic outline."""
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    centre = rng.uniform(16, 48, 3)
    offsets = (Z - np.float32(centre[0]), Y - np.float32(centre[1]), X - np.float32(centre[2]))
    u, v, w = (sum(offset * np.float32(rotation[i, j]) for i, offset in enumerate(offsets)) for j in range(3))
    axes = np.exp(rng.uniform(np.log(5.0), np.log(28.0), 2)).astype(np.float32)
    bend = rng.normal(0, 0.012, 3).astype(np.float32)
    height = w - bend[0] * u * u - bend[1] * v * v - bend[2] * u * v
    half = np.float32(np.exp(rng.uniform(np.log(0.75), np.log(3.5))))
    outline = (1 - np.sqrt((u / axes[0]) ** 2 + (v / axes[1]) ** 2)) * axes.min()
    return np.minimum(half - np.abs(height), outline).astype(np.float32)


_SOLID_LEVEL_SETS: tuple[Family, ...] = (_ellipsoids, _tubes, _star)
SOLID_FAMILIES: tuple[Family, ...] = (_random_field, _ellipsoids, _tubes, _star)
THIN_FAMILIES: tuple[Family, ...] = (_shell, _bones)
"""Sheets and processes, which a slice in between can show and its neighbours miss."""
