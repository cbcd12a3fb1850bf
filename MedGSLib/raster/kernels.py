"""numba kernels of the CPU rasterizer: sums of truncated Gaussians along pixel rows, and their gradients."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from MedGSLib.raster.interface import TRUNCATION

_Q = np.float32(TRUNCATION)
_HALF = np.float32(0.5)
_GRADIENT_BLOCK = 256


@njit(inline="always")
def _row_span(dy, x, a, b, c, width):
    """First and one-past-last column where the Gaussian is inside its truncation in the row at distance dy."""
    room = b * b * dy * dy - a * (c * dy * dy - _Q)
    if room <= 0:
        return 0, 0
    reach = math.sqrt(room) / a
    middle = x - b * dy / a
    return max(0, math.ceil(middle - reach)), min(width - 1, math.floor(middle + reach)) + 1


@njit(parallel=True, fastmath=True, cache=True)
def splat_rows(geometry, features, slice_start, height, width, bands):
    """Sum of ``features * g`` over the pairs of each slice; (S, K, height, width)."""
    slices = slice_start.shape[0] - 1
    channels = features.shape[1]
    image = np.zeros((slices, channels, height, width), np.float32)
    band_rows = (height + bands - 1) // bands
    for job in prange(slices * bands):
        s = job // bands
        top = (job % bands) * band_rows
        bottom = min(height, top + band_rows)
        for i in range(slice_start[s], slice_start[s + 1]):
            x, y, a, b, c = geometry[i, 0], geometry[i, 1], geometry[i, 2], geometry[i, 3], geometry[i, 4]
            half = math.sqrt(_Q * a / (a * c - b * b))
            step = math.exp(-a)
            for row in range(max(top, math.ceil(y - half)), min(bottom, math.floor(y + half) + 1)):
                dy = np.float32(row) - y
                first, last = _row_span(dy, x, a, b, c, width)
                dx = np.float32(first) - x
                g = np.float32(math.exp(-_HALF * (a * dx * dx + c * dy * dy) - b * dx * dy))
                ratio = np.float32(math.exp(-a * (dx + _HALF) - b * dy))
                for column in range(first, last):
                    for k in range(channels):
                        image[s, k, row, column] += features[i, k] * g
                    g *= ratio
                    ratio *= np.float32(step)
    return image


@njit(parallel=True, fastmath=True, cache=True)
def splat_rows_backward(geometry, features, slice_index, image_gradient):
    """Gradients of :func:`splat_rows` for geometry (M, 5) and features (M, K)."""
    pairs, channels = features.shape
    height, width = image_gradient.shape[2:]
    geometry_gradient = np.zeros((pairs, 5), np.float32)
    feature_gradient = np.zeros((pairs, channels), np.float32)
    for block in prange((pairs + _GRADIENT_BLOCK - 1) // _GRADIENT_BLOCK):
        for i in range(block * _GRADIENT_BLOCK, min(pairs, (block + 1) * _GRADIENT_BLOCK)):
            s = slice_index[i]
            x, y, a, b, c = geometry[i, 0], geometry[i, 1], geometry[i, 2], geometry[i, 3], geometry[i, 4]
            half = math.sqrt(_Q * a / (a * c - b * b))
            step = math.exp(-a)
            sx = sy = sxx = sxy = syy = np.float32(0)
            for row in range(max(0, math.ceil(y - half)), min(height, math.floor(y + half) + 1)):
                dy = np.float32(row) - y
                first, last = _row_span(dy, x, a, b, c, width)
                dx = np.float32(first) - x
                g = np.float32(math.exp(-_HALF * (a * dx * dx + c * dy * dy) - b * dx * dy))
                ratio = np.float32(math.exp(-a * (dx + _HALF) - b * dy))
                for column in range(first, last):
                    pull = np.float32(0)
                    for k in range(channels):
                        value = image_gradient[s, k, row, column]
                        feature_gradient[i, k] += g * value
                        pull += features[i, k] * value
                    pull *= g
                    sx += pull * dx
                    sy += pull * dy
                    sxx += pull * dx * dx
                    sxy += pull * dx * dy
                    syy += pull * dy * dy
                    dx += np.float32(1)
                    g *= ratio
                    ratio *= np.float32(step)
            geometry_gradient[i, 0] = a * sx + b * sy
            geometry_gradient[i, 1] = b * sx + c * sy
            geometry_gradient[i, 2] = -_HALF * sxx
            geometry_gradient[i, 3] = -sxy
            geometry_gradient[i, 4] = -_HALF * syy
    return geometry_gradient, feature_gradient
