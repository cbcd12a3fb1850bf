"""numba kernels of front-to-back alpha compositing, and their gradients.

The same bands, rows and blocks as the normalised blending. Rules as gsplat's: alpha is at most 0.999, alphas below 1/255 are skipped, and a
pixel is closed before the Gaussian that would leave no more than 1e-4 of the light.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from MedGSLib.raster.interface import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN
from MedGSLib.raster.kernels import (
    MOMENT_BLOCKS,
    PULL,
    Boxes,
    Floats,
    Integers,
    add_moments,
    fill_block,
    row_columns,
    store_gradients,
)
from MedGSLib.raster.lanes import FAST_MATH, LANES, add_product, add_scaled, compiled, copy_block, truncated_gaussian

_MAX, _MIN, _CLOSED = np.float32(ALPHA_MAX), np.float32(ALPHA_MIN), np.float32(TRANSMITTANCE_MIN)
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)

# Blocks of the scratch behind those of the moments: the share of a pixel, the light before the Gaussian, the pull of the Gaussians still
# to come, the light left in the end; then one per channel. The forward pass uses the first two.
_SHARE, _LIGHT, _COMING, _LEFT, _CHANNELS = (MOMENT_BLOCKS + LANES * block for block in range(5))


@njit(inline="always", fastmath=FAST_MATH)
def _alpha(height):
    alpha = height if height < _MAX else _MAX
    return alpha if alpha >= _MIN else _ZERO


@njit(inline="always", fastmath=FAST_MATH)
def _take_light(scratch, opacity, row_term, cross_term, a, dx):
    """From the light before the Gaussian its share of the pixels of one row and the light behind it, 0 where the pixel is closed."""
    for lane in range(LANES):
        along = dx + np.float32(lane)
        alpha = _alpha(opacity * truncated_gaussian(row_term + along * (cross_term + a * along)))
        before = scratch[_LIGHT + lane]
        behind = before * (_ONE - alpha)
        open_pixel = behind > _CLOSED
        scratch[_SHARE + lane] = alpha * before if open_pixel else _ZERO
        scratch[_LIGHT + lane] = behind if open_pixel else _ZERO


@compiled(parallel=True)
def composite(
    center: Floats, conic: Floats, weight: Floats, values: Floats, boxes: Boxes, slice_start: Integers, height: int, width: int, bands: int
) -> tuple[Floats, Floats]:
    """Composite over nothing (S, C, height, width) and accumulated alpha (S, height, width)."""
    slices, channels = slice_start.shape[0] - 1, values.shape[1]
    features = np.empty((slices, channels, height, width), np.float32)
    total = np.empty((slices, height, width), np.float32)
    band_rows = (height + bands - 1) // bands
    stride = width + LANES
    planes = channels + 2
    for job in prange(slices * bands):
        s = job // bands
        top = min(height, (job % bands) * band_rows)
        bottom = min(height, top + band_rows)
        band = np.zeros((bottom - top) * planes * stride, np.float32)
        for row in range(bottom - top):
            band[((row + 1) * planes - 1) * stride : (row + 1) * planes * stride] = _ONE
        scratch = np.empty(_COMING, np.float32)
        for i in range(slice_start[s], slice_start[s + 1]):
            a, b, c = conic[i, 0], conic[i, 1], conic[i, 2]
            for row in range(max(top, boxes[i, 0]), min(bottom, boxes[i, 1])):
                dy = np.float32(row) - center[i, 1]
                first, stop = row_columns(dy, center[i, 0], a, b, c, boxes[i, 2], boxes[i, 3])
                start = (row - top) * planes * stride
                for column in range(first, stop, LANES):
                    light = start + (channels + 1) * stride + column
                    copy_block(scratch, _LIGHT, band, light)
                    _take_light(scratch, weight[i], c * dy * dy, _TWO * b * dy, a, np.float32(column) - center[i, 0])
                    copy_block(band, light, scratch, _LIGHT)
                    for k in range(channels):
                        add_scaled(band, start + k * stride + column, scratch, _SHARE, values[i, k])
                    add_scaled(band, start + channels * stride + column, scratch, _SHARE, _ONE)
        for row in range(top, bottom):
            start = (row - top) * planes * stride
            for k in range(channels):
                features[s, k, row] = band[start + k * stride : start + k * stride + width]
            total[s, row] = band[start + channels * stride : start + channels * stride + width]
    return features, total


@compiled(parallel=True)
def light_rows(features: Floats, total: Floats, feature_gradient: Floats, total_gradient: Floats) -> Floats:
    """What the backward pass reads and updates of each pixel, in padded planar rows flattened from (S, height, C + 3, width + LANES).

    The C feature gradients; the light before the next Gaussian; the pull of the Gaussians still to come; and the light left in the end
    times the gradient of the accumulated alpha.
    """
    slices, channels, height, width = features.shape
    stride = width + LANES
    rows = np.zeros(slices * height * (channels + 3) * stride, np.float32)
    for job in prange(slices * height):
        s, row = job // height, job % height
        light = (job * (channels + 3) + channels) * stride
        coming, left = light + stride, light + 2 * stride
        for column in range(width):
            rows[light + column] = _ONE
            rows[left + column] = total_gradient[s, row, column] * (_ONE - total[s, row, column])
        for k in range(channels):
            start = light + (k - channels) * stride
            for column in range(width):
                rows[start + column] = feature_gradient[s, k, row, column]
                rows[coming + column] += feature_gradient[s, k, row, column] * features[s, k, row, column]
    return rows


@compiled(parallel=True)
def composite_backward(
    center: Floats,
    conic: Floats,
    weight: Floats,
    values: Floats,
    boxes: Boxes,
    slice_start: Integers,
    rows: Floats,
    height: int,
    width: int,
) -> Floats:
    """Gradients (M, 6 + C) of center (2), conic (3), weight (1) and values (C); uses up the rows of :func:`light_rows`."""
    channels = values.shape[1]
    gradients = np.empty((values.shape[0], 6 + channels), np.float32)
    stride = width + LANES
    for s in prange(slice_start.shape[0] - 1):
        scratch = np.empty(_CHANNELS + channels * LANES, np.float32)
        for i in range(slice_start[s], slice_start[s + 1]):
            scratch[:] = _ZERO
            a, b, c = conic[i, 0], conic[i, 1], conic[i, 2]
            for row in range(boxes[i, 0], boxes[i, 1]):
                dy = np.float32(row) - center[i, 1]
                first, stop = row_columns(dy, center[i, 0], a, b, c, boxes[i, 2], boxes[i, 3])
                start = (s * height + row) * (channels + 3) * stride
                for column in range(first, stop, LANES):
                    dx = np.float32(column) - center[i, 0]
                    fill_block(scratch, c * dy * dy, _TWO * b * dy, a, dx)
                    light = start + channels * stride + column
                    for plane in range(3):
                        copy_block(scratch, _LIGHT + plane * LANES, rows, light + plane * stride)
                    for lane in range(LANES):
                        scratch[PULL + lane] = _ZERO
                    for k in range(channels):
                        add_scaled(scratch, PULL, rows, start + k * stride + column, values[i, k])
                    _pull_on_alpha(scratch, weight[i])
                    for plane in range(2):
                        copy_block(rows, light + plane * stride, scratch, _LIGHT + plane * LANES)
                    for k in range(channels):
                        add_product(scratch, _CHANNELS + k * LANES, rows, start + k * stride + column, scratch, _SHARE)
                    add_moments(scratch, dx, dy)
            store_gradients(gradients[i], scratch, _CHANNELS, a, b, c, weight[i])
    return gradients


@njit(inline="always", fastmath=FAST_MATH)
def _pull_on_alpha(scratch, opacity):
    """Turn the pull on the share into the pull on the alpha, d/d alpha = T pull + (left - coming) / (1 - alpha), and pass the light on."""
    for lane in range(LANES):
        height = opacity * scratch[lane]
        alpha = _alpha(height)
        before = scratch[_LIGHT + lane]
        behind = before * (_ONE - alpha)
        open_pixel = behind > _CLOSED
        share = alpha * before if open_pixel else _ZERO
        pull = scratch[PULL + lane]
        coming = scratch[_COMING + lane] - share * pull
        free = open_pixel and alpha > _ZERO and height <= _MAX
        on_alpha = before * pull + (scratch[_LEFT + lane] - coming) / (_ONE - alpha)
        scratch[_SHARE + lane] = share
        scratch[_LIGHT + lane] = behind if open_pixel else _ZERO
        scratch[_COMING + lane] = coming
        scratch[PULL + lane] = on_alpha if free else _ZERO
