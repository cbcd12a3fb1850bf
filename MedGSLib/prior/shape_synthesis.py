"""Random synthetic shapes that teach the shape network how closed surfaces look between slices; no patient data is involved.

A shape is a level-set function on a grid of 19 sub-slices of 64 x 64 pixels. Sub-slices 0, 6, 12, 18 play the annotated slices, and
7 to 11, between the two middle ones, are to be predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter, label

from MedGSLib.prior.mask_distance import cap_empty_slices, signed_distance_2d

SIDE = 64
SUBDIVISION = 6
ANNOTATED = (0, 6, 12, 18)
WANTED = (7, 8, 9, 10, 11)
WANTED_FRACTIONS = tuple((z - ANNOTATED[1]) / SUBDIVISION for z in WANTED)
DEPTH = ANNOTATED[-1] + 1
DISTANCE_LIMIT_PX = 16.0
GAP_RANGE_PX = (1.5, 9.6)

Field = NDArray[np.float32]


@dataclass(frozen=True)
class ShapeSet:
    """``distances`` float16 (N, 9, 64, 64), the 4 annotated and then the 5 wanted sub-slices in px; ``gaps`` float32 (N,) in px."""

    distances: NDArray[np.float16]
    gaps: NDArray[np.float32]


@dataclass(frozen=True)
class _Grid:
    """Pixel coordinates of the sub-slices: z (19, 1, 1), y (1, 64, 1), x (1, 1, 64), all in pixels; ``step`` is that of z."""

    step: float
    z: NDArray[np.float32]
    y: NDArray[np.float32]
    x: NDArray[np.float32]

    @classmethod
    def of_step(cls, step: float) -> _Grid:
        axis = np.arange(SIDE, dtype=np.float32)
        depth = np.arange(DEPTH, dtype=np.float32) * np.float32(step)
        return cls(step, depth[:, None, None], axis[None, :, None], axis[None, None, :])

    @property
    def length(self) -> float:
        return (DEPTH - 1) * self.step


def make_shapes(count: int, seed: int) -> ShapeSet:
    """Draw ``count`` shapes; the same seed gives the same shapes."""
    rng = np.random.default_rng(seed)
    distances = np.empty((count, len(ANNOTATED) + len(WANTED), SIDE, SIDE), np.float16)
    gaps = np.empty(count, np.float32)
    made = 0
    while made < count:
        gap = float(np.exp(rng.uniform(*np.log(GAP_RANGE_PX))))
        inside = _draw_shape(rng, _Grid.of_step(gap / SUBDIVISION))
        sample = _slice_distances(inside)
        if sample is not None:
            distances[made], gaps[made] = sample, gap
            made += 1
    return ShapeSet(distances, gaps)


def _slice_distances(inside: NDArray[np.bool_]) -> Field | None:
    """Distances of the annotated and wanted sub-slices, or None where the shape teaches nothing."""
    middle = inside[ANNOTATED[1] : ANNOTATED[2] + 1]
    if not 0.004 <= middle.mean() <= 0.8 or not (middle[0].any() or middle[-1].any()):
        return None
    slices = inside[list(ANNOTATED + WANTED)]
    distances = np.stack([signed_distance_2d(mask) for mask in slices])
    annotated = len(ANNOTATED)
    filled = np.array([bool(mask.any()) for mask in slices[:annotated]])
    distances[:annotated] = cap_empty_slices(distances[:annotated], filled)
    return np.clip(distances, -DISTANCE_LIMIT_PX, DISTANCE_LIMIT_PX)


def _draw_shape(rng: Generator, grid: _Grid) -> NDArray[np.bool_]:
    family = _FAMILIES[rng.integers(len(_FAMILIES))]
    field = family(rng, grid)
    if family is _random_field:
        return _one_component(rng, field > 0)
    if rng.random() < 0.7:
        scale = float(np.exp(rng.uniform(np.log(2.5), np.log(9.0))))
        field = field + rng.uniform(0.1, 0.35) * scale * _noise(rng, max(1.0, scale / grid.step), scale)
    return field > 0


def _noise(rng: Generator, sigma_z: float, sigma_xy: float) -> Field:
    """Gaussian random field of unit variance."""
    mode = "wrap" if rng.random() < 0.5 else "reflect"
    white = rng.standard_normal((DEPTH, SIDE, SIDE)).astype(np.float32)
    smooth = gaussian_filter(white, (sigma_z, sigma_xy, sigma_xy), mode=mode)
    return smooth / smooth.std()


def _random_field(rng: Generator, grid: _Grid) -> Field:
    """Blobs: an excursion set of an anisotropic Gaussian random field."""
    scale = float(np.exp(rng.uniform(np.log(3.0), np.log(11.0))))
    return scale * (_noise(rng, scale / grid.step * rng.uniform(0.8, 1.3), scale) - np.float32(rng.uniform(-0.3, 1.2)))


def _one_component(rng: Generator, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mostly keep a single component, as segments usually have one."""
    if rng.random() >= 0.7:
        return inside
    components, count = label(inside)
    if count == 0:
        return inside
    central = components[DEPTH // 2, SIDE // 2, SIDE // 2]
    return components == (central or np.bincount(components.ravel())[1:].argmax() + 1)


def _smooth_union(first: Field, second: Field, softness: float) -> Field:
    return (softness * np.logaddexp(first / softness, second / softness)).astype(np.float32)


def _ellipsoids(rng: Generator, grid: _Grid) -> Field:
    """Organs: one to four rotated ellipsoids, merged softly or carved out of each other."""
    field: Field | None = None
    for _ in range(rng.integers(1, 5)):
        centre = np.array([rng.uniform(2, 16) * grid.step, *rng.uniform(14, 50, 2)])
        axes = np.exp(rng.uniform(np.log(3.0), np.log(24.0), 3))
        rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        offsets = (grid.z - centre[0], grid.y - centre[1], grid.x - centre[2])
        local = [sum(offset * rotation[i, j] for i, offset in enumerate(offsets)) / axes[j] for j in range(3)]
        ellipsoid = ((1.0 - np.sqrt(local[0] ** 2 + local[1] ** 2 + local[2] ** 2)) * axes.min()).astype(np.float32)
        if field is None:
            field = ellipsoid
        elif rng.random() < 0.15:
            field = np.minimum(field, -ellipsoid)
        else:
            field = _smooth_union(field, ellipsoid, rng.uniform(0.2, 2.0))
    assert field is not None
    return field


def _tubes(rng: Generator, grid: _Grid) -> Field:
    """Vessels: one to three tubes of varying radius along cubic Bezier curves."""
    field: Field | None = None
    for _ in range(rng.integers(1, 4)):
        curve, radii = _bezier_tube(rng, grid.length)
        tube = np.full((DEPTH, SIDE, SIDE), -99.0, np.float32)
        for start, end, radius_start, radius_end in zip(curve[:-1], curve[1:], radii[:-1], radii[1:]):
            tube = np.maximum(tube, _cone(grid, start, end, radius_start, radius_end))
        field = tube if field is None else _smooth_union(field, tube, rng.uniform(0.2, 2.0))
    assert field is not None
    return field


def _bezier_tube(rng: Generator, length: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Twelve points (z, y, x) along a random curve, and the radius at each."""
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


def _cone(grid: _Grid, start: NDArray, end: NDArray, radius_start: float, radius_end: float) -> Field:
    """Depth inside a round cone between two points (z, y, x)."""
    axis = (end - start).astype(np.float32)
    dz, dy, dx = grid.z - np.float32(start[0]), grid.y - np.float32(start[1]), grid.x - np.float32(start[2])
    along = np.clip((dz * axis[0] + dy * axis[1] + dx * axis[2]) / (float(axis @ axis) + 1e-6), 0, 1)
    distance = np.sqrt((dz - along * axis[0]) ** 2 + (dy - along * axis[1]) ** 2 + (dx - along * axis[2]) ** 2)
    return (radius_start + (radius_end - radius_start) * along - distance).astype(np.float32)


def _star(rng: Generator, grid: _Grid) -> Field:
    """Contours that change from slice to slice: Fourier radii about a wandering centre, at times ending in a cap."""
    knots = np.linspace(-3, DEPTH + 2, rng.integers(4, 8))

    def course(spread: float, mean: float = 0.0) -> Field:
        values = mean + spread * rng.standard_normal(len(knots))
        return CubicSpline(knots, values)(np.arange(DEPTH)).astype(np.float32)[:, None, None]

    base = float(np.exp(rng.uniform(np.log(4.0), np.log(24.0))))
    dy = grid.y - course(rng.uniform(0, 5), SIDE / 2)
    dx = grid.x - course(rng.uniform(0, 5), SIDE / 2)
    angle = np.arctan2(dy, dx)
    radius = course(base * rng.uniform(0.02, 0.3), base)
    for order in range(1, 7):
        spread = base * rng.uniform(0, 0.5) / order**1.3
        radius = radius + course(0.4 * spread, spread * rng.normal()) * np.cos(order * angle)
        radius = radius + course(0.4 * spread, spread * rng.normal()) * np.sin(order * angle)
    field = radius - np.sqrt(dy**2 + dx**2)
    if rng.random() < 0.35:
        z = (grid.z / grid.step - rng.uniform(4, 14)) / rng.uniform(5, 18)
        lateral = ((grid.y - SIDE / 2) / 40) ** 2 + ((grid.x - SIDE / 2) / 40) ** 2
        field = np.minimum(field, 10 * (rng.uniform(0.4, 1.0) - np.sqrt(z**2 + lateral)))
    return field.astype(np.float32)


_FAMILIES: tuple[Callable[[Generator, _Grid], Field], ...] = (_random_field, _ellipsoids, _tubes, _star)
