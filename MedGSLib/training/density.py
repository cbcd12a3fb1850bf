"""Densification, pruning and opacity reset of 3-D Gaussian splatting (Kerbl et al. 2023), for the paper's recipe."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from MedGSLib.gaussians import FoldedGaussians
from MedGSLib.training.config import DensityControl
from MedGSLib.training.optimizer import GaussianOptimizer

SPLIT_SHRINK = math.log(1.6)
RESET_TO_PRUNE = 2.0
"""Opacity after a reset, relative to the one below which Gaussians are pruned: they must live long enough to recover."""


class DensityController:
    """Watches the gradients of the centres and adds, splits and prunes Gaussians on the schedule of ``control``.

    :param size: (H, W) in px; gradients are measured in units of half an image side, as 3-D Gaussian splatting does.
    """

    def __init__(self, gaussians: FoldedGaussians, control: DensityControl, size: tuple[int, int], seed: int) -> None:
        self._gaussians = gaussians
        self._control = control
        self._half_size = torch.tensor([size[1] / 2.0, size[0] / 2.0], device=gaussians.center.device)
        self._split_px = control.split_scale * max(size)
        self._seed = seed
        self._clear()

    def _clear(self) -> None:
        count = len(self._gaussians)
        self._gradient = torch.zeros(count, device=self._gaussians.center.device)
        self._seen = torch.zeros_like(self._gradient)

    def state(self) -> dict[str, Tensor]:
        """The gradients recorded since the last change (N,), for a checkpoint."""
        return {"gradient": self._gradient, "seen": self._seen}

    def load_state(self, stored: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state` gave."""
        self._gradient, self._seen = stored["gradient"], stored["seen"]

    def after_step(self, iteration: int, optimizer: GaussianOptimizer) -> None:
        """Record the gradients of ``iteration`` (counted from 1) and change the set of Gaussians when it is time."""
        control = self._control
        if iteration > control.stop:
            return
        gradient = self._gaussians.center.grad
        if gradient is not None:
            length = (gradient * self._half_size).norm(dim=1)
            self._gradient += length
            self._seen += length > 0
        if iteration > control.start and iteration % control.interval == 0:
            self._densify_and_prune(iteration, optimizer)
        if iteration % control.opacity_reset_interval == 0:
            self._reset_opacity(optimizer)

    @torch.no_grad()
    def _densify_and_prune(self, iteration: int, optimizer: GaussianOptimizer) -> None:
        gaussians = self._gaussians
        mean_gradient = self._gradient / self._seen.clamp(min=1.0)
        wanted = mean_gradient > self._control.clone_gradient
        room = max(0, self._control.max_gaussians - len(gaussians))
        if int(wanted.sum()) > room:
            steepest = mean_gradient.topk(room).indices
            wanted = torch.zeros_like(wanted).index_fill_(0, steepest, True)
        large = gaussians.log_scale.amax(dim=1) > math.log(self._split_px)
        opacity = torch.sigmoid(gaussians.log_weight)
        alive = opacity > min(self._control.prune_opacity, float(opacity.median()))
        split, clone = wanted & large & alive, wanted & ~large & alive
        keep = torch.nonzero(alive & ~split).squeeze(1)
        sources = torch.cat([torch.nonzero(clone).squeeze(1), torch.nonzero(split).squeeze(1).repeat(2)])
        self._gaussians = gaussians.subset(torch.cat([keep, sources]))
        self._separate(self._gaussians, slice(len(keep) + int(clone.sum()), None), iteration)
        optimizer.follow(self._gaussians, keep, added=len(sources))
        self._clear()

    def _separate(self, gaussians: FoldedGaussians, halves: slice, iteration: int) -> None:
        """Move the halves of split Gaussians to random places inside their parent, and shrink them.

        The places depend on seed and iteration alone, so that a resumed run takes the same ones.
        """
        scale = torch.exp(gaussians.log_scale[halves])
        generator = np.random.default_rng([self._seed, iteration, 3])
        offset = torch.from_numpy(generator.standard_normal(tuple(scale.shape))).to(scale) * scale
        cosine, sine = torch.cos(gaussians.angle[halves]), torch.sin(gaussians.angle[halves])
        turned = torch.stack([cosine * offset[:, 0] - sine * offset[:, 1], sine * offset[:, 0] + cosine * offset[:, 1]], dim=1)
        gaussians.center[halves] += turned
        gaussians.log_scale[halves] -= SPLIT_SHRINK

    @torch.no_grad()
    def _reset_opacity(self, optimizer: GaussianOptimizer) -> None:
        opacity = RESET_TO_PRUNE * self._control.prune_opacity
        limit = math.log(opacity / (1.0 - opacity))
        self._gaussians.log_weight.clamp_(max=limit)
        optimizer.forget("log_weight")
