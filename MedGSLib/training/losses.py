"""The terms of the loss: fidelity of image and mask heads, and the paper's regularisers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from MedGSLib.training.config import SpreadRange, TrainingConfig

SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def fidelity(rendered: Tensor, wanted: Tensor, weights: Tensor, config: TrainingConfig, has_image: bool) -> Tensor:
    """The weighted distance of rendered slices from their targets.

    :param rendered: (B, C, H, W).
    :param wanted: (B, C, H, W).
    :param weights: (B, C), 0 where a channel is unknown.
    :return: the scalar ``lambda_img * image + lambda_seg * mask`` of the recipe that ``config.loss`` names.
    """
    channel_weights = torch.full_like(weights, config.mask_loss_weight)
    if has_image:
        channel_weights[:, 0] = config.image_loss_weight
    difference = rendered - wanted
    if config.loss == "l2":
        return ((difference * difference).mean(dim=(2, 3)) * weights * channel_weights).mean()
    loss = (2.0 * difference.abs().mean(dim=(2, 3)) * weights * channel_weights).sum() / rendered.shape[0]
    if has_image:
        dissimilarity = 1.0 - ssim(rendered[:, :1], wanted[:, :1]).mean(dim=(1, 2, 3))
        loss = loss + 0.25 * config.image_loss_weight * (dissimilarity * weights[:, 0]).mean()
    return loss


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """The structural similarity map of two (B, 1, H, W) images of data range 1 (Wang et al. 2004; Gaussian window, sigma 1.5)."""
    ticks = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=first.dtype, device=first.device)
    window = torch.exp(-(ticks**2) / (2.0 * SSIM_SIGMA**2))
    window = window / window.sum()
    moments = torch.cat([first, second, first * first, second * second, first * second], dim=1)
    channels = moments.shape[1]
    column = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    moments = functional.conv2d(moments, column, padding=(SSIM_RADIUS, 0), groups=channels)
    moments = functional.conv2d(moments, column.transpose(2, 3), padding=(0, SSIM_RADIUS), groups=channels)
    mean_1, mean_2, square_1, square_2, product = moments.split(1, dim=1)
    covariance = product - mean_1 * mean_2
    variances = square_1 - mean_1**2 + square_2 - mean_2**2
    numerator = (2.0 * mean_1 * mean_2 + SSIM_C1) * (2.0 * covariance + SSIM_C2)
    return numerator / ((mean_1**2 + mean_2**2 + SSIM_C1) * (variances + SSIM_C2))


def spread_penalty(log_spread: Tensor, stack_length: float, limits: SpreadRange) -> Tensor:
    """Mean distance of sigma, as a fraction of the stack, from its allowed range (MedGS, Marzol et al. 2025).

    :param log_spread: (N,) ln sigma in output slices.
    :param stack_length: output slices from the first to the last.
    """
    fraction = torch.exp(log_spread) / stack_length
    low = limits.low_slices / stack_length
    return (functional.relu(low - fraction) + functional.relu(fraction - limits.high_fraction)).mean()
