"""Hyperparameters of the fit. The recipe is that of the project's method study; the paper's own is in :func:`paper_training`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class LearningRates:
    """Adam step sizes at the start of the fit, in the unit of each parameter (px, radians, output slices, natural logarithms)."""

    center: float = 0.2
    log_scale: float = 0.04
    angle: float = 0.04
    position: float = 0.06
    log_spread: float = 0.04
    drift: float = 0.04
    log_weight: float = 0.1
    values: float = 0.02


@dataclass(frozen=True)
class DensityControl:
    """Densification, pruning and opacity reset as 3-D Gaussian splatting does them, on the iterations ``start`` to ``stop``.

    ``clone_gradient`` is the mean gradient of the centre, in normalised image coordinates, above which a Gaussian is cloned
    (when smaller than ``split_scale`` of the image side) or split.
    """

    start: int = 500
    stop: int = 20_000
    interval: int = 100
    clone_gradient: float = 2e-4
    split_scale: float = 0.01
    prune_opacity: float = 0.01
    opacity_reset_interval: int = 3000
    max_gaussians: int = 400_000


@dataclass(frozen=True)
class Blends:
    """In-between-frame regularisation: linear blends of consecutive slices as targets between them (MedGS, Marzol et al. 2025)."""

    weight: float = 0.5
    first_iteration: int = 10_000
    low: float = 0.2
    high: float = 0.8


@dataclass(frozen=True)
class SpreadRange:
    """Penalty on the distance of sigma from [``low`` output slices, ``high`` of the whole stack], until ``last_iteration``."""

    low_slices: float = 2.0
    high_fraction: float = 1.0
    image_weight: float = 0.25
    mask_weight: float = 0.5
    last_iteration: int = 20_000


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a fit besides the data.

    :ivar iterations: optimiser steps; 0 fits nothing.
    :ivar slices_per_step: slices rendered in each step.
    :ivar voxels_per_gaussian: target voxels for each Gaussian, which sets their number unless ``gaussians`` does.
    :ivar spread: initial sigma in output slices.
    :ivar size_factor: initial in-plane size relative to the one at which neighbours just overlap.
    :ivar pseudo_image_weight: weight of in-between image targets relative to acquired slices.
    :ivar pseudo_mask_weight: weight of in-between mask targets relative to annotated slices.
    :ivar image_loss_weight: lambda_img of the joint loss.
    :ivar mask_loss_weight: lambda_seg of the joint loss.
    :ivar loss: ``l2`` (method study) or ``l1_ssim`` (paper: 2 L1 + 0.25 (1 - SSIM) for the image, 2 L1 for the mask).
    :ivar initialization: ``guided`` (where the targets have edges) or ``random`` (paper).
    :ivar final_learning_rate: what remains of the learning rates at the end (exponential decay); for the paper only the centre decays.
    """

    iterations: int = 300
    slices_per_step: int = 8
    gaussians: int | None = None
    voxels_per_gaussian: float = 16.0
    min_gaussians: int = 3000
    max_gaussians: int = 1_000_000
    spread: float = 1.0
    size_factor: float = 0.5
    pseudo_image_weight: float = 0.5
    pseudo_mask_weight: float = 0.5
    image_loss_weight: float = 1.0
    mask_loss_weight: float = 1.0
    loss: Literal["l2", "l1_ssim"] = "l2"
    initialization: Literal["guided", "random"] = "guided"
    learning_rates: LearningRates = field(default_factory=LearningRates)
    final_learning_rate: float = 0.02
    decay_center_only: bool = False
    betas: tuple[float, float] = (0.9, 0.99)
    density: DensityControl | None = None
    blends: Blends | None = None
    spread_range: SpreadRange | None = None
    random_background: bool = False
    seed: int = 0


LEAST_DENSITY_INTERVAL = 10
"""Iterations between two changes of the number of Gaussians in shortened runs of the paper's recipe; gradients need some to settle."""


def paper_training(iterations: int = 30_000, gaussians: int = 100_000) -> TrainingConfig:
    """The published recipe (MedGS, Marzol et al. 2025, and the defaults of the authors' tool), its milestones scaled to ``iterations``.

    :param iterations: 30 000 in the paper.
    :param gaussians: number of random initial Gaussians, 100 000 in the paper.
    """
    part = iterations / 30_000
    interval = max(LEAST_DENSITY_INTERVAL, round(100 * part))
    return TrainingConfig(
        iterations=iterations,
        slices_per_step=3,
        gaussians=gaussians,
        loss="l1_ssim",
        initialization="random",
        learning_rates=LearningRates(
            center=1.6e-4, log_scale=5e-3, angle=1e-3, position=1.6e-4, log_spread=5e-3, drift=1.6e-4, log_weight=2.5e-2, values=2.5e-3
        ),
        final_learning_rate=0.01,
        decay_center_only=True,
        betas=(0.9, 0.999),
        pseudo_image_weight=0.0,
        pseudo_mask_weight=0.0,
        density=DensityControl(
            start=round(500 * part),
            stop=round(20_000 * part),
            interval=interval,
            opacity_reset_interval=30 * interval,
        ),
        blends=Blends(first_iteration=round(10_000 * part)),
        spread_range=SpreadRange(last_iteration=round(20_000 * part)),
    )
