"""The CPU backend: numba kernels behind torch autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from MedGSLib.errors import BackendError
from MedGSLib.gaussians import SlicedGaussians
from MedGSLib.raster import kernels
from MedGSLib.raster.interface import check_request


class CpuRasterizer:
    """Renders on the CPU with numba."""

    name = "cpu"
    blendings = frozenset({"normalized"})

    def rasterize(
        self, sliced: SlicedGaussians, height: int, width: int, *, blending: str, epsilon: float, background: float
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`MedGSLib.raster.interface.Rasterizer.rasterize`."""
        check_request(sliced, height, width, blending)
        if blending not in self.blendings:
            raise BackendError(f"The CPU rasterizer cannot do the blending {blending!r}.")
        geometry = torch.cat((sliced.center, sliced.conic), dim=1)
        weight = sliced.weight[:, None]
        features = torch.cat((sliced.values * weight, weight), dim=1)
        image: Tensor = _Splat.apply(geometry, features, sliced.slice_start, sliced.slice_index, height, width)
        image = image.permute(0, 2, 3, 1)
        total, weight = image[..., :-1], image[..., -1]
        return (total + epsilon * background) / (weight[..., None] + epsilon), weight


class _Splat(torch.autograd.Function):
    """Sums of features times Gaussian; (S, K, height, width)."""

    @staticmethod
    def forward(ctx, geometry: Tensor, features: Tensor, slice_start: Tensor, slice_index: Tensor, height: int, width: int) -> Tensor:
        ctx.save_for_backward(geometry, features, slice_index)
        bands = max(1, min(height, 8 // max(1, slice_start.numel() - 1)))
        return torch.from_numpy(
            kernels.splat_rows(geometry.detach().contiguous().numpy(), features.detach().contiguous().numpy(), slice_start.numpy(),
                               height, width, bands)
        )

    @staticmethod
    def backward(ctx, gradient: Tensor):
        geometry, features, slice_index = (tensor.detach().contiguous().numpy() for tensor in ctx.saved_tensors)
        parts = kernels.splat_rows_backward(geometry, features, slice_index, gradient.contiguous().numpy())
        return *(torch.from_numpy(part) for part in parts), None, None, None, None
