"""Where the Gaussians start: spread over the stack, denser where the targets have edges."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_gradient_magnitude, map_coordinates

from MedGSLib.gaussians import FoldedGaussians, FoldSettings
from MedGSLib.training.config import TrainingConfig
from MedGSLib.training.targets import TrainingTargets

UNIFORM_SHARE = 0.5
OVERLAP = 0.75
SMALLEST_PX, LARGEST_PX = 0.3, 6.0


def gaussian_count(targets: TrainingTargets, config: TrainingConfig) -> int:
    """How many Gaussians the targets get: a fixed number of voxels for each, within the limits of the configuration."""
    if config.gaussians is not None:
        return config.gaussians
    voxels = targets.values[:, 0].size
    return int(np.clip(voxels / config.voxels_per_gaussian, config.min_gaussians, config.max_gaussians))


def initialize(targets: TrainingTargets, config: TrainingConfig, fold: FoldSettings) -> FoldedGaussians:
    """The Gaussians before the first step, as ``config.initialization`` says.

    :return: parameters on the CPU, seeded by ``config.seed``.
    """
    build = _random if config.initialization == "random" else _guided
    return build(targets, config, fold)


def _guided(targets: TrainingTargets, config: TrainingConfig, fold: FoldSettings) -> FoldedGaussians:
    generator = np.random.default_rng(config.seed)
    count = gaussian_count(targets, config)
    density = _edge_density(_guide(targets))
    chosen = _stratified_draw(density, count, generator)
    index = np.stack(np.unravel_index(chosen, density.shape)) + generator.uniform(-0.5, 0.5, (3, count))
    per_voxel = density.ravel()[chosen] * count
    root_tau = math.sqrt(2.0 * math.pi)
    size = OVERLAP * np.sqrt(1.0 / (per_voxel * root_tau * config.spread))
    size = np.clip(size * config.size_factor, SMALLEST_PX, LARGEST_PX)
    return FoldedGaussians(
        center=_tensor(index[[2, 1]].T),
        log_scale=_tensor(np.log(np.stack([size, size], axis=1))),
        angle=torch.zeros(count),
        position=_tensor(np.interp(index[0], np.arange(len(targets.coordinates)), targets.coordinates)),
        log_spread=torch.full((count,), math.log(config.spread)),
        drift=torch.zeros(count, fold.degree, 2),
        log_weight=torch.zeros(count),
        values=_tensor(sample_values(targets, index)),
        settings=fold,
    )


def _random(targets: TrainingTargets, config: TrainingConfig, fold: FoldSettings) -> FoldedGaussians:
    generator = np.random.default_rng(config.seed)
    count = gaussian_count(targets, config)
    height, width = targets.size
    last = float(targets.coordinates[-1])
    spacing_px = math.sqrt(height * width / count)
    return FoldedGaussians(
        center=_tensor(generator.uniform((0, 0), (width - 1, height - 1), (count, 2))),
        log_scale=torch.full((count, 2), math.log(max(spacing_px, SMALLEST_PX))),
        angle=torch.zeros(count),
        position=_tensor(generator.uniform(0.0, last, count)),
        log_spread=_tensor(np.log(generator.uniform(0.01, 1.0, count) * max(last, 1.0))),
        drift=_tensor(generator.normal(0.0, 0.01, (count, fold.degree, 2)) / max(last, 1.0) ** np.arange(1, fold.degree + 1)[:, None]),
        log_weight=torch.full((count,), math.log(0.1 / 0.9)),
        values=_tensor(generator.uniform(0.0, 1.0, (count, targets.channels))),
        settings=fold,
    )


def sample_values(targets: TrainingTargets, index_tyx: NDArray[np.float64], channels: slice = slice(None)) -> NDArray[np.float32]:
    """The targets at fractional (slice, row, column) indices, shape (3, N); channels unknown in a slice are filled from its neighbours.

    :return: float32 (N, C).
    """
    known = [_filled(targets.values[:, c], targets.weights[:, c]) for c in range(targets.channels)[channels]]
    return np.stack([map_coordinates(channel, index_tyx, order=1, mode="nearest") for channel in known], axis=1)


def _filled(channel: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    known = np.flatnonzero(weight > 0)
    if len(known) in (0, len(weight)):
        return channel
    filled = channel.copy()
    for t in np.flatnonzero(weight <= 0):
        after = int(np.searchsorted(known, t))
        below, above = known[max(after - 1, 0)], known[min(after, len(known) - 1)]
        share = 0.0 if above == below else (t - below) / (above - below)
        filled[t] = (1.0 - share) * channel[below] + share * channel[above]
    return filled


def _guide(targets: TrainingTargets) -> NDArray[np.float32]:
    """The sum of the heads, the image at half weight where there are masks too, so that both kinds of edge attract Gaussians."""
    channels = [_filled(targets.values[:, c], targets.weights[:, c]) for c in range(targets.channels)]
    image_share = 0.5 if targets.channels > 1 else 1.0
    if targets.has_image:
        channels[0] = image_share * channels[0]
    return np.sum(channels, axis=0, dtype=np.float32)


def _edge_density(guide: NDArray[np.float32]) -> NDArray[np.float64]:
    gradient = gaussian_gradient_magnitude(guide, 1.0).astype(np.float64)
    total = gradient.sum()
    edges = gradient / total if total > 0 else np.full(guide.shape, 1.0 / guide.size)
    return UNIFORM_SHARE / guide.size + (1.0 - UNIFORM_SHARE) * edges


def _stratified_draw(density: NDArray[np.float64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Voxel indices drawn in proportion to ``density``, one from each of ``count`` equal shares of its cumulative sum."""
    cumulative = np.cumsum(density.ravel())
    ticks = (np.arange(count) + generator.random(count)) / count * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, ticks), density.size - 1)


def _tensor(values: NDArray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
