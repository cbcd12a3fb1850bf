"""numba kernels that cut folded Gaussians through slices, and their gradients: one pass over the pairs instead of one per operation.

The formulas are those of :meth:`MedGSLib.gaussians.FoldedGaussians.at`; float32 and float64 are read and written, a pair is computed in
float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from MedGSLib.raster.cpu import as_array, start_threads
from MedGSLib.raster.lanes import FAST_MATH, compiled

Floats = NDArray[Any]
Integers = NDArray[np.int64]

GAUSSIANS_PER_JOB = 1024

start_threads()


class Cut(torch.autograd.Function):
    """``Cut.apply(center, ..., values, t, slice_start, slice_index, gaussian_index, shrinks, opacities)``.

    The first eight are the tensors of :data:`MedGSLib.gaussians.PARAMETER_NAMES`, t (S,) the stack coordinates; the pairs (M,) are sorted
    by slice and, in a slice, by Gaussian. ``shrinks``: the stack factor multiplies the in-plane scales, not the weight; ``opacities``:
    weights are sigmoids, not exponentials. Gives centre (M, 2), conic (M, 3), weight (M,) and values (M, C).
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        *tensors, shrinks, opacities = arguments
        center, log_scale, angle, position, log_spread, drift, log_weight, values, t, slice_start, slice_index, gaussian_index = tensors
        traits = torch.from_numpy(traits_of(*map(as_array, (log_scale, angle, log_spread, log_weight)), opacities))
        ctx.save_for_backward(position, drift, traits, t, slice_start, gaussian_index)
        ctx.kinds = shrinks, opacities
        cuts = cut(*map(as_array, (center, position, drift, values, traits, t, slice_index, gaussian_index)), shrinks)
        return tuple(torch.from_numpy(found) for found in cuts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        arrays = [as_array(tensor) for tensor in (*ctx.saved_tensors, *gradients)]
        found = cut_backward(*arrays, *ctx.kinds)
        return *(torch.from_numpy(gradient) for gradient in found), *(None,) * 6


# Columns of what is worked out once for each Gaussian.
_PER_SPREAD, _FIRST, _SECOND, _COSINE, _SINE, _WEIGHT, _TRAITS = range(7)


@compiled(parallel=True)
def traits_of(log_scale: Floats, angle: Floats, log_spread: Floats, log_weight: Floats, opacities: bool) -> Floats:
    """Per Gaussian: 1 / sigma, the inverse squares of both scales, cosine, sine, weight in the middle; (N, 6) float64."""
    traits = np.empty((angle.shape[0], _TRAITS), np.float64)
    for i in prange(angle.shape[0]):
        traits[i, _PER_SPREAD] = math.exp(-log_spread[i])
        traits[i, _FIRST], traits[i, _SECOND] = math.exp(-2.0 * log_scale[i, 0]), math.exp(-2.0 * log_scale[i, 1])
        traits[i, _COSINE], traits[i, _SINE] = math.cos(angle[i]), math.sin(angle[i])
        traits[i, _WEIGHT] = 1.0 / (1.0 + math.exp(-log_weight[i])) if opacities else math.exp(log_weight[i])
    return traits


@compiled(parallel=True)
def cut(
    center: Floats,
    position: Floats,
    drift: Floats,
    values: Floats,
    traits: Floats,
    t: Floats,
    slice_index: Integers,
    gaussian_index: Integers,
    shrinks: bool,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Centre (M, 2), conic (M, 3), weight (M,) and values (M, C)."""
    pairs, degree, heads = gaussian_index.shape[0], drift.shape[1], values.shape[1]
    centers, conics = np.empty((pairs, 2), center.dtype), np.empty((pairs, 3), center.dtype)
    weights, found = np.empty(pairs, center.dtype), np.empty((pairs, heads), center.dtype)
    for pair in prange(pairs):
        i = gaussian_index[pair]
        distance = float(position[i]) - t[slice_index[pair]]
        factor = math.exp(-0.5 * (distance * traits[i, _PER_SPREAD]) ** 2)
        for axis in range(2):
            offset = 0.0
            for power in range(degree - 1, -1, -1):
                offset = distance * (drift[i, power, axis] + offset)
            centers[pair, axis] = center[i, axis] + offset
        widening = 1.0 / (factor * factor) if shrinks else 1.0
        first, second = traits[i, _FIRST] * widening, traits[i, _SECOND] * widening
        cosine, sine = traits[i, _COSINE], traits[i, _SINE]
        conics[pair, 0] = cosine * cosine * first + sine * sine * second
        conics[pair, 1] = cosine * sine * (first - second)
        conics[pair, 2] = sine * sine * first + cosine * cosine * second
        weights[pair] = traits[i, _WEIGHT] * (1.0 if shrinks else factor)
        for k in range(heads):
            found[pair, k] = values[i, k]
    return centers, conics, weights, found


@njit(inline="always", fastmath=FAST_MATH)
def _pull_on_shape(traits, widening, on_conic):
    """Gradients of both log scales and the angle."""
    first, second = traits[_FIRST] * widening, traits[_SECOND] * widening
    cosine, sine = traits[_COSINE], traits[_SINE]
    crossed = cosine * sine * on_conic[1]
    on_first = -2.0 * first * (cosine * cosine * on_conic[0] + crossed + sine * sine * on_conic[2])
    on_second = -2.0 * second * (sine * sine * on_conic[0] - crossed + cosine * cosine * on_conic[2])
    turned = 2.0 * cosine * sine * (on_conic[2] - on_conic[0]) + (cosine * cosine - sine * sine) * on_conic[1]
    return on_first, on_second, (first - second) * turned


@njit(inline="always", fastmath=FAST_MATH)
def _pull_on_path(drift, distance, on_center, to_center, to_drift):
    """Gradient of the distance; those of the centre and the drift are added to what is there."""
    on_distance = 0.0
    for axis in range(2):
        pull, power, slope = on_center[axis], 1.0, 0.0
        to_center[axis] += pull
        for k in range(drift.shape[0]):
            slope += (k + 1) * drift[k, axis] * power
            power *= distance
            to_drift[k, axis] += pull * power
        on_distance += pull * slope
    return on_distance


@compiled(parallel=True)
def cut_backward(
    position: Floats,
    drift: Floats,
    traits: Floats,
    t: Floats,
    slice_start: Integers,
    gaussian_index: Integers,
    center_gradient: Floats,
    conic_gradient: Floats,
    weight_gradient: Floats,
    values_gradient: Floats,
    shrinks: bool,
    opacities: bool,
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats, Floats, Floats]:
    """Gradients of the eight parameters; each job adds up those of its own Gaussians, slice by slice."""
    count, heads = position.shape[0], values_gradient.shape[1]
    to_center, to_scale, to_drift = np.zeros((count, 2), position.dtype), np.zeros((count, 2), position.dtype), np.zeros_like(drift)
    to_angle, to_position = np.zeros_like(position), np.zeros_like(position)
    to_spread, to_weight = np.zeros_like(position), np.zeros_like(position)
    to_values = np.zeros((count, heads), position.dtype)
    for job in prange((count + GAUSSIANS_PER_JOB - 1) // GAUSSIANS_PER_JOB):
        lowest, end = job * GAUSSIANS_PER_JOB, (job + 1) * GAUSSIANS_PER_JOB
        for s in range(t.shape[0]):
            start, stop = slice_start[s], slice_start[s + 1]
            pair = start + np.searchsorted(gaussian_index[start:stop], lowest)
            while pair < stop and gaussian_index[pair] < end:
                i = gaussian_index[pair]
                distance = float(position[i]) - t[s]
                spreads = distance * traits[i, _PER_SPREAD]
                factor = math.exp(-0.5 * spreads * spreads)
                widening = 1.0 / (factor * factor) if shrinks else 1.0
                on_first, on_second, on_angle = _pull_on_shape(traits[i], widening, conic_gradient[pair])
                to_scale[i, 0] += on_first
                to_scale[i, 1] += on_second
                to_angle[i] += on_angle
                weight = traits[i, _WEIGHT]
                on_weight = weight * weight_gradient[pair] * (1.0 if shrinks else factor)
                to_weight[i] += on_weight * (1.0 - weight) if opacities else on_weight
                on_exponent = on_first + on_second if shrinks else on_weight

                to_spread[i] += on_exponent * spreads * spreads
                on_distance = _pull_on_path(drift[i], distance, center_gradient[pair], to_center[i], to_drift[i])
                to_position[i] += on_distance - on_exponent * spreads * traits[i, _PER_SPREAD]
                for k in range(heads):
                    to_values[i, k] += values_gradient[pair, k]
                pair += 1
    return to_center, to_scale, to_angle, to_position, to_spread, to_drift, to_weight, to_values
