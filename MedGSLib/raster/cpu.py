"""The CPU backend: numba kernels behind torch autograd."""

from __future__ import annotations

import os
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from MedGSLib.errors import BackendError
from MedGSLib.gaussians import SlicedGaussians
from MedGSLib.raster import kernels, kernels_alpha
from MedGSLib.raster.interface import BLENDINGS, blended, check_request
from MedGSLib.raster.lanes import LANES

_BAND_BYTES = 1 << 19
_BAND_ROWS = 16
_JOBS_PER_THREAD = 4


class CpuRasterizer:
    """Renders on the CPU with numba, in float32; the result does not depend on the number of threads.

    :param threads: threads of the kernels; None leaves numba's setting alone.
    """

    name = "cpu"
    device = "cpu"
    blendings = BLENDINGS

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads
        start_threads()

    def rasterize(
        self, sliced: SlicedGaussians, height: int, width: int, *, blending: str, epsilon: float, background: float
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`MedGSLib.raster.interface.Rasterizer.rasterize`; the features are a view of planar (S, C, height, width) memory."""
        check_request(sliced, height, width, blending)
        if sliced.center.device.type != "cpu":
            raise BackendError(f"The CPU rasterizer cannot render Gaussians that are on the device {sliced.center.device}.")
        if self.threads is not None:
            numba.set_num_threads(self.threads)
        pairs = [tensor.float() for tensor in (sliced.center, sliced.conic, sliced.weight, sliced.values)]
        if blending == "normalized":
            image = (height, width, epsilon, background)
            features, weight = _NormalizedSplat.apply(*pairs, sliced.slice_start, sliced.slice_index, image)
            return features.permute(0, 2, 3, 1), weight
        composite, weight = _Composite.apply(*pairs, sliced.slice_start, (height, width))
        composite = composite.permute(0, 2, 3, 1)
        return blended(composite, weight, blending=blending, epsilon=epsilon, background=background), weight


def start_threads() -> None:
    """Start numba's threads, on its own work queue unless NUMBA_THREADING_LAYER says otherwise.

    OpenMP threads spin while they wait, which costs many times the work itself where other programs share the cores; and numba's may share
    one OpenMP runtime with torch, whose number of threads it overwrites.
    """
    if "NUMBA_THREADING_LAYER" not in os.environ:
        settings: Any = numba.config
        settings.THREADING_LAYER = "workqueue"
    torch_threads = torch.get_num_threads()
    numba.get_num_threads()
    torch.set_num_threads(torch_threads)


def as_array(tensor: Tensor) -> NDArray[Any]:
    """What a kernel reads of a tensor."""
    return tensor.detach().contiguous().numpy()


def _bands(slices: int, height: int, width: int, planes: int) -> int:
    """Bands of rows a slice is cut into: enough jobs for the threads, and scratch that stays in the cache."""
    for_threads = -(-_JOBS_PER_THREAD * numba.get_num_threads() // max(1, slices))
    for_cache = -(-height * planes * (width + LANES) * 4 // _BAND_BYTES)
    return min(max(for_threads, for_cache), -(-height // _BAND_ROWS))


class _NormalizedSplat(torch.autograd.Function):
    """Weighted means: features (S, C, height, width) and weight (S, height, width)."""

    @staticmethod
    def forward(
        ctx: Any,
        center: Tensor,
        conic: Tensor,
        weight: Tensor,
        values: Tensor,
        slice_start: Tensor,
        slice_index: Tensor,
        image: tuple[int, int, float, float],
    ) -> tuple[Tensor, Tensor]:
        height, width, epsilon, background = image
        pairs = [as_array(tensor) for tensor in (center, conic, weight, values)]
        boxes = kernels.bounding_boxes(pairs[0], pairs[1], height, width)
        bands = _bands(slice_start.numel() - 1, height, width, values.shape[1] + 1)
        features, total = kernels.splat(*pairs, boxes, as_array(slice_start), height, width, bands, epsilon, background)
        outputs = torch.from_numpy(features), torch.from_numpy(total)
        ctx.save_for_backward(center, conic, weight, values, slice_index, torch.from_numpy(boxes), *outputs)
        ctx.epsilon = epsilon
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *pairs, slice_index, boxes, features, total = (as_array(tensor) for tensor in ctx.saved_tensors)
        sums = kernels.sum_gradients(features, total, as_array(gradients[0]), as_array(gradients[1]), ctx.epsilon)
        found = kernels.splat_backward(*pairs, boxes, slice_index, sums, *total.shape[1:])
        return *_pair_gradients(found), None, None, None


class _Composite(torch.autograd.Function):
    """Front-to-back composites over nothing: (S, C, height, width) and accumulated alpha (S, height, width)."""

    @staticmethod
    def forward(
        ctx: Any, center: Tensor, conic: Tensor, weight: Tensor, values: Tensor, slice_start: Tensor, image: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        pairs = [as_array(tensor) for tensor in (center, conic, weight, values)]
        boxes = kernels.bounding_boxes(pairs[0], pairs[1], *image)
        bands = _bands(slice_start.numel() - 1, *image, values.shape[1] + 2)
        features, total = kernels_alpha.composite(*pairs, boxes, as_array(slice_start), *image, bands)
        outputs = torch.from_numpy(features), torch.from_numpy(total)
        ctx.save_for_backward(center, conic, weight, values, slice_start, torch.from_numpy(boxes), *outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *pairs, slice_start, boxes, features, total = (as_array(tensor) for tensor in ctx.saved_tensors)
        rows = kernels_alpha.light_rows(features, total, as_array(gradients[0]), as_array(gradients[1]))
        found = kernels_alpha.composite_backward(*pairs, boxes, slice_start, rows, *total.shape[1:])
        return *_pair_gradients(found), None, None


def _pair_gradients(columns: NDArray[np.float32]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = torch.from_numpy(columns)
    return found[:, :2], found[:, 2:5], found[:, 5], found[:, 6:]
