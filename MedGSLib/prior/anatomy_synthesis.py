"""Random volumes that look like anatomy to a small network: tissues, folds, vessels, texture, blur and noise; no patient data is involved.

Organs are painted one over the other, as in the dead leaves model of natural images (Matheron 1968), over thin folded sheets, which are
the zero sets of smooth noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

Volume = NDArray[np.float32]

SIDE = 96
"""Voxels along each axis of a volume."""
REACH = 12
"""Voxels by which the warp may carry a surface outwards."""
WINDOW = (-0.2, 1.3)


@dataclass(frozen=True)
class _Materials:
    """What organs are made of: intensities of the ``tissues``, noise as ``textures`` of some ``contrast``, and where folds run."""

    tissues: NDArray[np.float64]
    textures: list[Volume]
    contrast: float
    folds: list[Volume]


def synthetic_anatomy(rng: Generator) -> Volume:
    """A volume (96, 96, 96), the 0.5 and 99.5 percentiles of its intensities at 0 and 1, clipped a little beyond."""
    tissues = rng.uniform(0, 1, rng.integers(3, 7))
    materials = _Materials(
        tissues,
        [_power_law_noise(rng, rng.uniform(1.5, 3.5)) for _ in range(2)],
        rng.uniform(0, 0.08),
        [_smooth_noise(rng, rng.uniform(2, 6)) for _ in range(2)],
    )
    volume = np.full((SIDE,) * 3, tissues[0], np.float32)
    for _ in range(rng.integers(0, 4)):
        volume = _with_folds(volume, tissues, rng)
    _paint_organs(volume, materials, rng)
    return _as_acquired(volume, rng)


def _filtered_noise(rng: Generator, response: NDArray[np.float64]) -> Volume:
    noise = rng.standard_normal((SIDE,) * 3, np.float32)
    filtered = fft.irfftn(fft.rfftn(noise) * response.astype(np.float32), (SIDE,) * 3)
    return ((filtered - filtered.mean()) / filtered.std()).astype(np.float32)


def _squared_frequency() -> NDArray[np.float64]:
    """Cycles per voxel, squared, on the half grid of a real transform."""
    along, half = fft.fftfreq(SIDE), fft.rfftfreq(SIDE)
    return along[:, None, None] ** 2 + along[None, :, None] ** 2 + half[None, None, :] ** 2


def _smooth_noise(rng: Generator, sigma: float) -> Volume:
    """White noise under a Gaussian of ``sigma`` voxels, of unit variance."""
    return _filtered_noise(rng, np.exp(-2 * (np.pi * sigma) ** 2 * _squared_frequency()))


def _power_law_noise(rng: Generator, exponent: float) -> Volume:
    """Noise whose power falls with that exponent of the frequency, of unit variance."""
    squared = _squared_frequency()
    squared[0, 0, 0] = 1 / SIDE**2
    return _filtered_noise(rng, squared ** (-exponent / 4))


def _step(distance: NDArray[Any]) -> Volume:
    """0 to 1 across one voxel, a partial-volume edge."""
    return np.clip(distance + 0.5, 0, 1).astype(np.float32, copy=False)


def _with_folds(volume: Volume, tissues: NDArray[np.float64], rng: Generator) -> Volume:
    """Sheets of one tissue, in some region, at times lined by another."""
    sigma = rng.uniform(2, 7)
    height = _smooth_noise(rng, sigma) + rng.uniform(0, 0.35) * _smooth_noise(rng, sigma / 2.2)
    height -= rng.uniform(-0.5, 0.5)
    region = _step(12 * (_smooth_noise(rng, rng.uniform(10, 25)) - rng.uniform(-1, 0.8)))
    half_width, sharpness = rng.uniform(0.15, 0.7), sigma * rng.uniform(0.6, 1.4)
    sheet = _step((half_width - np.abs(height)) * sharpness) * region
    if rng.random() < 0.5:
        lining = _step((half_width * rng.uniform(1.3, 2) - np.abs(height)) * sharpness) * region
        volume = volume + lining * (np.float32(rng.choice(tissues)) - volume)
    return volume + sheet * (np.float32(rng.choice(tissues) + rng.normal(0, 0.08)) - volume)


def _paint_organs(volume: Volume, materials: _Materials, rng: Generator) -> None:
    """Warped ellipsoids of all sizes, few large and many small, roughly in order of size, in place."""
    places = np.indices(volume.shape, np.float32)
    for axis in range(3):
        coarse = rng.uniform(1, 5) * _smooth_noise(rng, rng.uniform(4, 16))
        places[axis] += coarse + rng.uniform(0, 1.2) * _smooth_noise(rng, rng.uniform(1.5, 4))
    count = int(np.exp(rng.uniform(np.log(60), np.log(1000))))
    smallest, largest = rng.uniform(1.5, 4), 50
    radii = smallest / np.sqrt(1 - rng.random(count) * (1 - (smallest / largest) ** 2))
    for radius in radii[np.argsort(-radii + rng.uniform(-8, 8, count))]:
        _paint_organ(volume, places, float(radius), materials, rng)


def _paint_organ(volume: Volume, places: Volume, radius: float, materials: _Materials, rng: Generator) -> None:
    semi_axes = radius * np.exp(rng.uniform(-0.7, 0.7, 3))
    if rng.random() < 0.15:
        semi_axes[0] *= rng.uniform(3, 8)
    elif rng.random() < 0.1:
        semi_axes[0] = 0.8 + 0.25 * semi_axes[0]
    axes = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    centre = rng.uniform(-8, SIDE + 8, 3)
    extent = np.sqrt(axes**2 @ semi_axes**2) + REACH
    first = np.maximum(np.floor(centre - extent), 0).astype(int)
    last = np.minimum(np.ceil(centre + extent) + 1, SIDE).astype(int)
    if (last <= first).any():
        return
    box = tuple(slice(begin, end) for begin, end in zip(first, last, strict=True))
    offset = places[(slice(None), *box)] - centre.astype(np.float32)[:, None, None, None]
    along = np.tensordot((axes / semi_axes).T.astype(np.float32), offset, 1)
    inside = _step((1 - np.sqrt(np.square(along).sum(0))) * np.float32(semi_axes.min()))
    volume[box] += inside * (_tissue(box, radius, materials, rng) - volume[box])


def _tissue(box: tuple[slice, ...], radius: float, materials: _Materials, rng: Generator) -> Volume:
    """Intensities inside an organ: even or textured, large organs at times of two tissues folded into each other."""
    texture = materials.textures[rng.integers(2)][box]
    even = rng.choice(materials.tissues) + rng.normal(0, 0.05)
    tissue = np.float32(even) + np.float32(materials.contrast * rng.uniform(0, 1.5)) * texture
    if radius > 7 and rng.random() < 0.35:
        height = np.abs(materials.folds[rng.integers(2)][box])
        share = _step((height - np.float32(rng.uniform(0.2, 0.8))) * np.float32(rng.uniform(3, 8)))
        tissue = share * tissue + (1 - share) * np.float32(rng.choice(materials.tissues))
    return tissue


def _as_acquired(volume: Volume, rng: Generator) -> Volume:
    """With uneven brightness, the scanner's blur and, mostly, its noise, in the usual window."""
    volume = volume + rng.uniform(0, 0.12) * _smooth_noise(rng, 20)
    volume = gaussian_filter(volume, rng.uniform(0.3, 0.9))
    if rng.random() < 0.7:
        grain = gaussian_filter(rng.standard_normal(volume.shape, np.float32), rng.uniform(0, 0.6))
        volume += rng.uniform(0, 0.04) * grain
    low, high = np.percentile(volume, [0.5, 99.5])
    return np.clip((volume - low) / max(high - low, 1e-6), *WINDOW).astype(np.float32)
