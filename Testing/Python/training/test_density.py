"""Density control adds where the gradient is large, removes what is transparent, and keeps the moments of the survivors."""

from __future__ import annotations

import math

import pytest
import torch

from MedGSLib.gaussians import PARAMETER_NAMES, FoldedGaussians, FoldSettings
from MedGSLib.training.config import DensityControl, TrainingConfig
from MedGSLib.training.density import DensityController
from MedGSLib.training.optimizer import GaussianOptimizer

SIZE = (40, 100)
SMALL, LARGE = 0.5, 3.0


def logit(opacity: float) -> float:
    return math.log(opacity / (1.0 - opacity))


def row_of_gaussians(scales: list[float], opacities: list[float]) -> FoldedGaussians:
    count = len(scales)
    return FoldedGaussians(
        center=torch.stack([10.0 + 10.0 * torch.arange(count), torch.full((count,), 20.0)], dim=1),
        log_scale=torch.tensor(scales).log()[:, None].expand(-1, 2),
        angle=torch.zeros(count),
        position=torch.zeros(count),
        log_spread=torch.zeros(count),
        drift=torch.zeros(count, 1, 2),
        log_weight=torch.tensor([logit(opacity) for opacity in opacities]),
        values=torch.arange(count)[:, None].float(),
        settings=FoldSettings(blending="alpha"),
    )


def run(gaussians: FoldedGaussians, gradients: list[float], control: DensityControl, iterations: int = 1):
    """Iterations in which each centre feels a given gradient along x, in normalised image coordinates."""
    still = TrainingConfig()
    optimizer = GaussianOptimizer(gaussians, still, frozenset(PARAMETER_NAMES))
    optimizer.set_progress(1e3)
    controller = DensityController(gaussians, control, SIZE, seed=0)
    push = torch.tensor(gradients) / (SIZE[1] / 2.0)
    for iteration in range(1, iterations + 1):
        current = optimizer.gaussians
        if len(current) != len(push):
            push = torch.zeros(len(current))
        optimizer.step((current.center[:, 0] * push).sum() + sum(0.0 * p.sum() for p in current.parameters()))
        controller.after_step(iteration, optimizer)
    return optimizer


def control(**changes) -> DensityControl:
    return DensityControl(**{"start": 0, "stop": 10, "interval": 1, "opacity_reset_interval": 1000, **changes})


def test_small_ones_are_cloned_large_ones_split_and_transparent_ones_pruned():
    gaussians = row_of_gaussians([SMALL, LARGE, SMALL, SMALL, LARGE], [0.5, 0.5, 0.5, 0.005, 0.005])
    optimizer = run(gaussians, [1e-3, 1e-3, 1e-5, 1e-3, 1e-3], control())
    result = optimizer.gaussians
    assert result.values[:, 0].tolist() == [0.0, 2.0, 0.0, 1.0, 1.0]
    scales = result.log_scale.exp()[:, 0].tolist()
    assert scales == pytest.approx([SMALL, SMALL, SMALL, LARGE / 1.6, LARGE / 1.6], rel=1e-4)
    halves = result.center[3:]
    assert not torch.equal(halves[0], halves[1]) and (halves - torch.tensor([20.0, 20.0])).abs().max() < 4 * LARGE
    assert torch.equal(result.center[2], result.center[0])
    moments = optimizer.moments()["center.exp_avg"]
    assert (moments[0] != 0).any() and not moments[2:].any()


def test_the_threshold_is_on_the_mean_over_the_iterations_since_the_last_change():
    gaussians = row_of_gaussians([SMALL] * 3, [0.5] * 3)
    unchanged = run(gaussians, [1.9e-4, 0.0, -1.9e-4], control(interval=5), iterations=5)
    assert len(unchanged.gaussians) == 3
    changed = run(row_of_gaussians([SMALL] * 3, [0.5] * 3), [2.1e-4, 0.0, -2.1e-4], control(interval=5), iterations=5)
    assert changed.gaussians.values[:, 0].tolist() == [0.0, 1.0, 2.0, 0.0, 2.0]


@pytest.mark.parametrize("most", [5, 6, 7, 8])
def test_the_number_never_exceeds_its_limit_and_the_steepest_come_first(most):
    gaussians = row_of_gaussians([SMALL, LARGE, SMALL, LARGE, SMALL], [0.5] * 5)
    result = run(gaussians, [1e-3, 3e-3, 2e-3, 5e-3, 4e-3], control(max_gaussians=most)).gaussians
    assert len(result) == most
    added = result.values[:, 0].long().bincount(minlength=5) - 1
    assert added.tolist() == [0, int(most > 7), 0, int(most > 5), int(most > 6)]


def test_equal_gradients_do_not_break_the_limit():
    result = run(row_of_gaussians([SMALL] * 5, [0.5] * 5), [1e-3] * 5, control(max_gaussians=7)).gaussians
    assert len(result) == 7


@pytest.mark.parametrize(("start", "stop", "changes"), [(0, 10, True), (3, 10, False), (0, 2, False)])
def test_nothing_changes_outside_the_schedule(start, stop, changes):
    gaussians = row_of_gaussians([SMALL] * 3, [0.5] * 3)
    result = run(gaussians, [1e-3] * 3, control(start=start, stop=stop, interval=3), iterations=3).gaussians
    assert (len(result) > 3) == changes


def test_opacities_are_lowered_on_time_and_adam_forgets_them():
    gaussians = row_of_gaussians([SMALL] * 3, [0.5, 0.9, 0.004])
    optimizer = run(gaussians, [0.0] * 3, control(start=100, opacity_reset_interval=4), iterations=4)
    opacities = torch.sigmoid(optimizer.gaussians.log_weight).tolist()
    assert opacities == pytest.approx([0.02, 0.02, 0.004], rel=1e-3)
    assert not optimizer.moments()["log_weight.exp_avg"].any()
