"""The loop that fits Gaussians to targets: resumable, cancellable, the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from MedGSLib.errors import Cancelled, MedGSError
from MedGSLib.gaussians import PARAMETER_NAMES, FoldedGaussians
from MedGSLib.progress import Reporter
from MedGSLib.raster import Rasterizer
from MedGSLib.training.checkpoint import FIT_STAGE, CheckpointStore, cpu_copy
from MedGSLib.training.config import TrainingConfig
from MedGSLib.training.density import DensityController
from MedGSLib.training.losses import fidelity, spread_penalty
from MedGSLib.training.optimizer import GaussianOptimizer
from MedGSLib.training.targets import TrainingTargets

ALL_PARAMETERS = frozenset(PARAMETER_NAMES)
REPORT_EVERY = 10
LOSS_SMOOTHING = 0.05

IterationHook = Callable[[int, FoldedGaussians], None]
"""Called after each iteration with its number (from 1) and the Gaussians."""


@dataclass(frozen=True)
class FitReport:
    """How a fit went: its iterations, how many of them an earlier process had done, the last smoothed loss, the number of Gaussians."""

    iterations: int
    resumed_from: int
    loss: float
    gaussians: int


def fit(
    gaussians: FoldedGaussians,
    targets: TrainingTargets,
    config: TrainingConfig,
    rasterizer: Rasterizer,
    reporter: Reporter,
    *,
    checkpoints: CheckpointStore | None = None,
    trainable: frozenset[str] = ALL_PARAMETERS,
    frozen_heads: int = 0,
    on_iteration: IterationHook | None = None,
) -> tuple[FoldedGaussians, FitReport]:
    """Fit ``gaussians`` to ``targets``; the loop continues from the checkpoint of the same run where there is one.

    :param trainable: names of the parameters that move.
    :param frozen_heads: this many first head values stay as they are (mask-head refinement).
    :param on_iteration: called after each iteration, e.g. to save or to test.
    :return: the fitted Gaussians (another object where density control changed their number) and a report.
    :raises MedGSError: when the loss is no number any more.
    :raises Cancelled: when the reporter's callback answers False; a checkpoint is written first.
    """
    run = _Run(gaussians, targets, config, rasterizer, trainable, frozen_heads)
    first = run.restore(checkpoints) if checkpoints is not None else 0
    reporter.start(FIT_STAGE, config.iterations)
    done = first
    try:
        while done < config.iterations:
            run.iterate(done)
            done += 1
            if on_iteration is not None:
                on_iteration(done, run.gaussians)
            if checkpoints is not None and checkpoints.is_due() and math.isfinite(run.loss):
                run.store(checkpoints, done)
            if done % REPORT_EVERY == 0 or done == config.iterations:
                _refuse_divergence(run.loss)
                reporter.step(done, loss=run.loss)
    except (Cancelled, KeyboardInterrupt):
        if checkpoints is not None:
            run.store(checkpoints, done)
        raise
    return run.gaussians, FitReport(config.iterations, first, run.loss, len(run.gaussians))


def _refuse_divergence(loss: float) -> None:
    if not math.isfinite(loss):
        raise MedGSError("The fit diverged: its loss is not a number any more; choose smaller loss weights or another preset.")


class _Run:
    """The moving parts of one fit."""

    def __init__(
        self,
        gaussians: FoldedGaussians,
        targets: TrainingTargets,
        config: TrainingConfig,
        rasterizer: Rasterizer,
        trainable: frozenset[str],
        frozen_heads: int,
    ) -> None:
        device = gaussians.center.device
        self._config, self._rasterizer, self._targets = config, rasterizer, targets
        self._values = torch.from_numpy(targets.values).to(device)
        self._weights = torch.from_numpy(targets.weights).to(device)
        self._coordinates = torch.from_numpy(targets.coordinates).to(device, torch.float32)
        self._acquired = np.flatnonzero(targets.acquired)
        self._smoothed_loss = torch.zeros((), device=device)
        self._optimizer = GaussianOptimizer(gaussians, config, trainable, frozen_heads)
        self._density_may_act = trainable == ALL_PARAMETERS and gaussians.settings.blending != "normalized"
        self._density = self._density_controller(gaussians)

    def _density_controller(self, gaussians: FoldedGaussians) -> DensityController | None:
        """Density control that stops at one Gaussian for each pixel of the used slices, if not at its own limit.

        None where the recipe has none, where some parameters are frozen, and where weights are no opacities.
        """
        control = self._config.density
        if control is None or not self._density_may_act:
            return None
        pixels = len(self._targets.used) * self._targets.size[0] * self._targets.size[1]
        most = min(control.max_gaussians, max(pixels, self._config.gaussians or 0))
        return DensityController(gaussians, replace(control, max_gaussians=most), self._targets.size, self._config.seed)

    @property
    def gaussians(self) -> FoldedGaussians:
        return self._optimizer.gaussians

    @property
    def loss(self) -> float:
        return float(self._smoothed_loss)

    def iterate(self, iteration: int) -> None:
        self._optimizer.set_progress(iteration / self._config.iterations)
        chosen = torch.from_numpy(self._chosen_slices(iteration)).to(self._values.device)
        blends = self._config.blends
        with_blends = blends is not None and iteration >= blends.first_iteration and self._targets.has_image
        between = self._between(iteration, chosen) if with_blends else self._coordinates[:0]
        rendered = self._render(torch.cat([self._coordinates[chosen], between]), iteration)
        own = rendered[: len(chosen)]
        loss = fidelity(own, self._values[chosen], self._weights[chosen], self._config, self._targets.has_image)
        if with_blends:
            loss = loss + self._blend_loss(chosen, between, rendered[len(chosen) :, 0])
        loss = loss + self._spread_loss(iteration)
        self._optimizer.step(loss)
        if self._density is not None:
            self._density.after_step(iteration + 1, self._optimizer)
        self._smoothed_loss += (1.0 if iteration == 0 else LOSS_SMOOTHING) * (loss.detach() - self._smoothed_loss)

    def _render(self, coordinates: Tensor, iteration: int) -> Tensor:
        """(B, C, H, W) at the given stack coordinates."""
        settings = self.gaussians.settings
        background = settings.background
        if self._config.random_background:
            background = float(np.random.default_rng([self._config.seed, iteration, 1]).random())
        features, _ = self._rasterizer.rasterize(
            self.gaussians.at(coordinates),
            *self._targets.size,
            blending=settings.blending,
            epsilon=settings.epsilon,
            background=background,
        )
        return features.permute(0, 3, 1, 2)

    def _chosen_slices(self, iteration: int) -> NDArray[np.int64]:
        """The slices of a step: the next of an endless shuffled sequence, or with blends three consecutive acquired slices.

        They depend on seed and iteration alone, so that a resumed run takes the same ones.
        """
        config, used = self._config, self._targets.used
        if config.blends is not None and len(self._acquired) >= 3:
            middle = np.random.default_rng([config.seed, iteration]).integers(1, len(self._acquired) - 1)
            return self._acquired[middle - 1 : middle + 2]
        wanted = np.arange(iteration * config.slices_per_step, (iteration + 1) * config.slices_per_step)
        rounds = {int(r): np.random.default_rng([config.seed, int(r)]).permutation(used) for r in np.unique(wanted // len(used))}
        return np.unique([rounds[int(n // len(used))][n % len(used)] for n in wanted])

    def _between(self, iteration: int, chosen: Tensor) -> Tensor:
        """Random coordinates between consecutive chosen slices."""
        blends = self._config.blends
        assert blends is not None
        shares = np.random.default_rng([self._config.seed, iteration, 2]).uniform(blends.low, blends.high, len(chosen) - 1)
        left, right = self._coordinates[chosen[:-1]], self._coordinates[chosen[1:]]
        return left + torch.from_numpy(shares).to(left) * (right - left)

    def _blend_loss(self, chosen: Tensor, between: Tensor, rendered: Tensor) -> Tensor:
        """L1 distance of the rendered in-between images (B-1, H, W) from linear blends of their neighbours."""
        blends = self._config.blends
        assert blends is not None
        left, right = self._coordinates[chosen[:-1]], self._coordinates[chosen[1:]]
        share = ((between - left) / (right - left))[:, None, None]
        blend = (1.0 - share) * self._values[chosen[:-1], 0] + share * self._values[chosen[1:], 0]
        return blends.weight * self._config.image_loss_weight * (rendered - blend).abs().mean()

    def _spread_loss(self, iteration: int) -> Tensor | float:
        limits = self._config.spread_range
        if limits is None or iteration >= limits.last_iteration:
            return 0.0
        heads_with_mask = self._targets.channels > (1 if self._targets.has_image else 0)
        weight = (limits.image_weight if self._targets.has_image else 0.0) + (limits.mask_weight if heads_with_mask else 0.0)
        length = float(self._targets.coordinates[-1] - self._targets.coordinates[0])
        return weight * spread_penalty(self.gaussians.log_spread, length, limits)

    def store(self, checkpoints: CheckpointStore, done: int) -> None:
        """Write parameters and optimiser state after ``done`` iterations."""
        tensors = {f"gaussians.{name}": value for name, value in self.gaussians.state_dict().items()}
        tensors |= {f"adam.{name}": value for name, value in self._optimizer.moments().items()}
        if self._density is not None:
            tensors |= {f"density.{name}": value for name, value in self._density.state().items()}
        checkpoints.save(FIT_STAGE, cpu_copy(tensors), {"iteration": done, "loss": self.loss})

    def restore(self, checkpoints: CheckpointStore) -> int:
        """Continue from the stored state.

        :return: the iterations already done.
        """
        stored = checkpoints.load(FIT_STAGE)
        if stored is None:
            return 0
        device = self.gaussians.center.device
        groups: dict[str, dict[str, Tensor]] = {"gaussians": {}, "adam": {}, "density": {}}
        for key, value in stored.tensors.items():
            group, name = key.split(".", 1)
            groups[group][name] = value.to(device)
        gaussians = FoldedGaussians.from_state(groups["gaussians"], self.gaussians.settings)
        self._optimizer.follow(gaussians, torch.arange(0), added=0)
        self._optimizer.load_moments(groups["adam"])
        self._density = self._density_controller(gaussians)
        if self._density is not None:
            self._density.load_state(groups["density"])
        self._smoothed_loss.fill_(stored.facts["loss"])
        return int(stored.facts["iteration"])
