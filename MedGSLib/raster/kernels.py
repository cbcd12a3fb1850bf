"""numba kernels of the normalised blending: weighted sums of truncated Gaussians over pixel rows, and their gradients.

Bands of rows accumulate in planar scratch rows, ``[row, channel, column]`` with LANES spare columns at the right, so that a block may
reach over the image border. Every pixel sums its Gaussians in their order whatever the bands and threads: results do not depend on either.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from MedGSLib.raster.interface import TRUNCATION
from MedGSLib.raster.lanes import FAST_MATH, LANES, add_product, add_scaled, compiled, copy_block, truncated_gaussian

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Boxes = NDArray[np.int32]

PAIRS_PER_JOB = 256

_Q = np.float32(TRUNCATION)
_ONE = np.float32(1)
_TWO = np.float32(2)
_HALF = np.float32(0.5)
_ZERO = np.float32(0)

# Blocks of the scratch of a pair's gradient: the Gaussian, the pull of the pixels on its height, six moments, then one per channel.
PULL, _SUM, _X, _Y, _XX, _XY, _YY, MOMENT_BLOCKS = (LANES * block for block in range(1, 9))


@njit(inline="always", fastmath=FAST_MATH)
def _ceil_within(value, low, high):
    """Smallest integer not below value, kept in low..high; NaN gives low."""
    bounded = value if value > np.float32(low) else np.float32(low)
    bounded = bounded if bounded < np.float32(high) else np.float32(high)
    whole = np.int64(bounded)
    return whole + (1 if np.float32(whole) < bounded else 0)


@njit(inline="always", fastmath=FAST_MATH)
def _stop_within(value, low, high):
    """One past the largest integer not above value, kept in low..high; NaN gives low."""
    if not value > np.float32(low) - _ONE:
        return low
    return np.int64((value if value < np.float32(high - 1) else np.float32(high - 1)) + _ONE)


@njit(inline="always", fastmath=FAST_MATH)
def row_columns(dy, x, a, b, c, first, stop):
    """Columns first..stop of the bounding box, narrowed to the truncation ellipse in the row at dy when more than a block would be read."""
    if stop - first <= LANES:
        return first, stop
    room = b * b * dy * dy - a * (c * dy * dy - _Q)
    if not room > _ZERO:
        return first, first
    reach = np.float32(math.sqrt(room)) / a
    middle = x - b * dy / a
    return _ceil_within(middle - reach, first, stop), _stop_within(middle + reach, first, stop)


@compiled(parallel=True)
def bounding_boxes(center: Floats, conic: Floats, height: int, width: int) -> Boxes:
    """Rows and columns (M, 4) = (first row, stop row, first column, stop column) inside the image that each truncated Gaussian touches."""
    boxes = np.empty((center.shape[0], 4), np.int32)
    for i in prange(center.shape[0]):
        x, y = center[i, 0], center[i, 1]
        a, b, c = conic[i, 0], conic[i, 1], conic[i, 2]
        determinant = a * c - b * b
        ratio = _Q / determinant if determinant > _ZERO else np.float32(np.inf)
        half_height, half_width = np.float32(math.sqrt(ratio * a)), np.float32(math.sqrt(ratio * c))
        boxes[i, 0] = _ceil_within(y - half_height, 0, height)
        boxes[i, 1] = _stop_within(y + half_height, 0, height)
        boxes[i, 2] = _ceil_within(x - half_width, 0, width)
        boxes[i, 3] = _stop_within(x + half_width, 0, width)
    return boxes


@njit(inline="always", fastmath=FAST_MATH)
def fill_block(scratch, row_term, cross_term, a, dx):
    """The truncated Gaussian of one row in the lanes from distance dx on, into the first block of the scratch."""
    for lane in range(LANES):
        along = dx + np.float32(lane)
        scratch[lane] = truncated_gaussian(row_term + along * (cross_term + a * along))


@compiled(parallel=True)
def splat(
    center: Floats,
    conic: Floats,
    weight: Floats,
    values: Floats,
    boxes: Boxes,
    slice_start: Integers,
    height: int,
    width: int,
    bands: int,
    epsilon: float,
    background: float,
) -> tuple[Floats, Floats]:
    """Features (S, C, height, width) and weight (S, height, width) of the normalised blending."""
    slices, channels = slice_start.shape[0] - 1, values.shape[1]
    features = np.empty((slices, channels, height, width), np.float32)
    total = np.empty((slices, height, width), np.float32)
    band_rows = (height + bands - 1) // bands
    stride = width + LANES
    for job in prange(slices * bands):
        s = job // bands
        top = min(height, (job % bands) * band_rows)
        bottom = min(height, top + band_rows)
        band = np.zeros((bottom - top) * (channels + 1) * stride, np.float32)
        scratch = np.empty(LANES, np.float32)
        for i in range(slice_start[s], slice_start[s + 1]):
            a, b, c = conic[i, 0], conic[i, 1], conic[i, 2]
            for row in range(max(top, boxes[i, 0]), min(bottom, boxes[i, 1])):
                dy = np.float32(row) - center[i, 1]
                first, stop = row_columns(dy, center[i, 0], a, b, c, boxes[i, 2], boxes[i, 3])
                start = (row - top) * (channels + 1) * stride
                for column in range(first, stop, LANES):
                    fill_block(scratch, c * dy * dy, _TWO * b * dy, a, np.float32(column) - center[i, 0])
                    for k in range(channels):
                        add_scaled(band, start + k * stride + column, scratch, 0, weight[i] * values[i, k])
                    add_scaled(band, start + channels * stride + column, scratch, 0, weight[i])
        _divide(band, features[s], total[s], top, bottom, np.float32(epsilon), np.float32(background))
    return features, total


@njit(fastmath=FAST_MATH)
def _divide(band, features, total, top, bottom, epsilon, background):
    """Weighted means of the rows top..bottom from their sums."""
    channels, _, width = features.shape
    stride = width + LANES
    for row in range(top, bottom):
        start = (row - top) * (channels + 1) * stride
        weights = start + channels * stride
        for column in range(width):
            total[row, column] = band[weights + column]
        for k in range(channels):
            for column in range(width):
                features[k, row, column] = (band[start + k * stride + column] + epsilon * background) / (total[row, column] + epsilon)


@compiled(parallel=True)
def sum_gradients(features: Floats, total: Floats, feature_gradient: Floats, total_gradient: Floats, epsilon: float) -> Floats:
    """Gradients of the sums behind features and weight, in padded planar rows flattened from (S, height, C + 1, width + LANES)."""
    slices, channels, height, width = features.shape
    stride = width + LANES
    result = np.zeros(slices * height * (channels + 1) * stride, np.float32)
    for job in prange(slices * height):
        s, row = job // height, job % height
        start = job * (channels + 1) * stride
        last = start + channels * stride
        for column in range(width):
            result[last + column] = total_gradient[s, row, column]
        for k in range(channels):
            for column in range(width):
                pull = feature_gradient[s, k, row, column] / (total[s, row, column] + np.float32(epsilon))
                result[start + k * stride + column] = pull
                result[last + column] -= pull * features[s, k, row, column]
    return result


@compiled(parallel=True)
def splat_backward(
    center: Floats,
    conic: Floats,
    weight: Floats,
    values: Floats,
    boxes: Boxes,
    slice_index: Integers,
    sums: Floats,
    height: int,
    width: int,
) -> Floats:
    """Gradients (M, 6 + C) of center (2), conic (3), weight (1) and values (C) from those of the sums."""
    pairs, channels = values.shape
    gradients = np.empty((pairs, 6 + channels), np.float32)
    stride = width + LANES
    for job in prange((pairs + PAIRS_PER_JOB - 1) // PAIRS_PER_JOB):
        scratch = np.empty(MOMENT_BLOCKS + channels * LANES, np.float32)
        for i in range(job * PAIRS_PER_JOB, min(pairs, (job + 1) * PAIRS_PER_JOB)):
            scratch[:] = _ZERO
            a, b, c = conic[i, 0], conic[i, 1], conic[i, 2]
            for row in range(boxes[i, 0], boxes[i, 1]):
                dy = np.float32(row) - center[i, 1]
                first, stop = row_columns(dy, center[i, 0], a, b, c, boxes[i, 2], boxes[i, 3])
                start = (slice_index[i] * height + row) * (channels + 1) * stride
                for column in range(first, stop, LANES):
                    dx = np.float32(column) - center[i, 0]
                    fill_block(scratch, c * dy * dy, _TWO * b * dy, a, dx)
                    copy_block(scratch, PULL, sums, start + channels * stride + column)
                    for k in range(channels):
                        add_product(scratch, MOMENT_BLOCKS + k * LANES, sums, start + k * stride + column, scratch, 0)
                        add_scaled(scratch, PULL, sums, start + k * stride + column, values[i, k])
                    add_moments(scratch, dx, dy)
            store_gradients(gradients[i], scratch, MOMENT_BLOCKS, a, b, c, weight[i])
            for k in range(channels):
                gradients[i, 6 + k] *= weight[i]
    return gradients


@njit(inline="always", fastmath=FAST_MATH)
def add_moments(scratch, dx, dy):
    """Add the force on the exponent, height times pull, to the moment blocks: its sum and its moments in x, y, xx, xy and yy."""
    for lane in range(LANES):
        along = dx + np.float32(lane)
        force = scratch[lane] * scratch[PULL + lane]
        sideways = force * along
        scratch[_SUM + lane] += force
        scratch[_X + lane] += sideways
        scratch[_Y + lane] += force * dy
        scratch[_XX + lane] += sideways * along
        scratch[_XY + lane] += sideways * dy
        scratch[_YY + lane] += force * dy * dy


@njit(inline="always", fastmath=FAST_MATH)
def _lane_sum(scratch, block):
    result = _ZERO
    for lane in range(LANES):
        result += scratch[block + lane]
    return result


@njit(inline="always", fastmath=FAST_MATH)
def store_gradients(gradient, scratch, channel_blocks, a, b, c, weight):
    """One pair's gradients (6 + C) from its moment and channel blocks; q's derivatives are 2(a dx + b dy), dx^2, 2 dx dy and dy^2."""
    x, y = _lane_sum(scratch, _X), _lane_sum(scratch, _Y)
    gradient[0] = weight * (a * x + b * y)
    gradient[1] = weight * (b * x + c * y)
    gradient[2] = -_HALF * weight * _lane_sum(scratch, _XX)
    gradient[3] = -weight * _lane_sum(scratch, _XY)
    gradient[4] = -_HALF * weight * _lane_sum(scratch, _YY)
    gradient[5] = _lane_sum(scratch, _SUM)
    for k in range(gradient.shape[0] - 6):
        gradient[6 + k] = _lane_sum(scratch, channel_blocks + k * LANES)
