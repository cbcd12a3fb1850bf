"""Planes on coarser or finer pixels; the first pixel keeps its place."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

Planes = NDArray[np.float32]
Steps = tuple[float, float]


def stepped_shape(shape: tuple[int, ...], steps: Steps) -> tuple[int, int]:
    """Pixels (h, w) ``steps`` (row, column) apart whose last ones lie on or behind the last ones of ``shape`` (H, W)."""
    height, width = (math.ceil((side - 1) / step) + 1 for side, step in zip(shape, steps, strict=True))
    return height, width


def resampled(planes: Planes, steps: Steps, shape: tuple[int, int], order: int) -> Planes:
    """Planes (N, H, W) on ``shape`` (h, w) pixels ``steps`` (row, column) given pixels apart, by splines of ``order``."""
    out = np.empty((len(planes), *shape), np.float32)
    for source, target in zip(planes, out, strict=True):
        affine_transform(source, steps, output_shape=shape, output=target, order=order, mode="nearest")
    return out
