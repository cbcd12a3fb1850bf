"""The oracle: every blending in plain torch, for any dtype and device, slow and dense."""

from __future__ import annotations

import torch
from torch import Tensor

from MedGSLib.gaussians import SlicedGaussians
from MedGSLib.raster.interface import ALPHA_MAX, ALPHA_MIN, BLENDINGS, TRANSMITTANCE_MIN, TRUNCATION, blended, check_request


class ReferenceRasterizer:
    """Evaluates every Gaussian in every pixel of its slice; memory is (Gaussians of a slice) x height x width."""

    name = "reference"
    device = "cpu"
    blendings = BLENDINGS

    def rasterize(
        self, sliced: SlicedGaussians, height: int, width: int, *, blending: str, epsilon: float, background: float
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`MedGSLib.raster.interface.Rasterizer.rasterize`."""
        check_request(sliced, height, width, blending)
        bounds = sliced.slice_start.tolist()
        features, weights = [], []
        for start, stop in zip(bounds[:-1], bounds[1:]):
            heights = sliced.weight[start:stop, None, None] * _bumps(sliced.center[start:stop], sliced.conic[start:stop], height, width)
            values = sliced.values[start:stop]
            if blending == "normalized":
                weight = heights.sum(0)
                total = torch.einsum("nhw,nc->hwc", heights, values)
                feature = (total + epsilon * background) / (weight[..., None] + epsilon)
            else:
                visible, weight = _composited(heights)
                total = torch.einsum("nhw,nc->hwc", visible, values)
                feature = blended(total, weight, blending=blending, epsilon=epsilon, background=background)
            features.append(feature)
            weights.append(weight)
        return torch.stack(features), torch.stack(weights)


def _bumps(center: Tensor, conic: Tensor, height: int, width: int) -> Tensor:
    """Truncated Gaussians of height 1 in every pixel; (n, height, width)."""
    rows = torch.arange(height, dtype=center.dtype, device=center.device)
    columns = torch.arange(width, dtype=center.dtype, device=center.device)
    dx = (columns - center[:, :1])[:, None, :]
    dy = (rows - center[:, 1:])[:, :, None]
    a, b, c = conic[:, 0, None, None], conic[:, 1, None, None], conic[:, 2, None, None]
    q = a * dx * dx + 2.0 * b * dx * dy + c * dy * dy
    return torch.where(q < TRUNCATION, torch.exp(-0.5 * q), torch.zeros_like(q))


def _composited(heights: Tensor) -> tuple[Tensor, Tensor]:
    """Share of each Gaussian in each pixel (n, height, width) and accumulated alpha (height, width), front to back in index order."""
    alpha = heights.clamp(max=ALPHA_MAX)
    alpha = torch.where(alpha < ALPHA_MIN, torch.zeros_like(alpha), alpha)
    through = torch.cumprod(1.0 - alpha, dim=0)
    alpha = torch.where(through > TRANSMITTANCE_MIN, alpha, torch.zeros_like(alpha))
    through = torch.cumprod(1.0 - alpha, dim=0)
    before = torch.cat((torch.ones_like(through[:1]), through[:-1])) if len(through) else through
    left = through[-1] if len(through) else torch.ones(heights.shape[1:], dtype=heights.dtype, device=heights.device)
    return alpha * before, 1.0 - left
