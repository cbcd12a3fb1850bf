"""Adam over rows that come and go: learning rates, what stays frozen, and moments that follow their rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from MedGSLib.gaussians import PARAMETER_NAMES
from MedGSLib.training.optimizer import GaussianOptimizer

EVERYTHING = frozenset(PARAMETER_NAMES)


def pull(optimizer: GaussianOptimizer, steps: int = 3) -> None:
    """Some steps towards zero of every parameter."""
    for _ in range(steps):
        optimizer.step(sum((p**2).sum() + 0.3 * p.sum() for p in optimizer.gaussians.parameters()))


def test_only_trainable_parameters_move(start, config):
    gaussians = start()
    before = {name: value.clone() for name, value in gaussians.state_dict().items()}
    pull(GaussianOptimizer(gaussians, config, frozenset({"values"})))
    changed = {name for name, value in gaussians.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"values"}


def test_frozen_heads_stay_bit_for_bit_while_the_others_move(start, config):
    gaussians = start()
    before = gaussians.values.detach().clone()
    pull(GaussianOptimizer(gaussians, config, EVERYTHING, frozen_heads=1))
    assert torch.equal(gaussians.values[:, 0], before[:, 0])
    assert not torch.equal(gaussians.values[:, 1], before[:, 1])


def test_the_first_step_is_as_long_as_the_learning_rate(start, config):
    gaussians = start(degree=2)
    before = {name: value.clone() for name, value in gaussians.state_dict().items()}
    optimizer = GaussianOptimizer(gaussians, config, EVERYTHING)
    optimizer.step(sum((p * 3.0).sum() for p in gaussians.parameters()))
    for name, value in gaussians.state_dict().items():
        rate = getattr(config.learning_rates, name)
        assert torch.allclose(before[name] - value, torch.full_like(value, rate), atol=3e-6), name


@pytest.mark.parametrize("center_only", [False, True])
def test_rates_decay_exponentially_to_their_share(start, config, center_only):
    chosen = replace(config, final_learning_rate=0.01, decay_center_only=center_only)
    gaussians = start()
    optimizer = GaussianOptimizer(gaussians, chosen, EVERYTHING)
    optimizer.set_progress(0.5)
    before = {name: value.clone() for name, value in gaussians.state_dict().items()}
    optimizer.step(sum(p.sum() for p in gaussians.parameters()))
    moved = {name: float((before[name] - value).mean()) for name, value in gaussians.state_dict().items()}
    extent = float(before["center"].amax()) + 1.0 if center_only else 1.0
    assert moved["center"] == pytest.approx(0.1 * config.learning_rates.center * extent, rel=1e-3)
    assert moved["values"] == pytest.approx((1.0 if center_only else 0.1) * config.learning_rates.values, rel=1e-3)


def test_moments_follow_their_rows(start, config):
    gaussians = start(degree=2)
    optimizer = GaussianOptimizer(gaussians, config, EVERYTHING)
    pull(optimizer)
    before = optimizer.moments()
    keep = torch.tensor([140, 2, 77])
    optimizer.follow(gaussians.subset(torch.tensor([140, 2, 77, 5, 5])), keep, added=2)
    after = optimizer.moments()
    assert after.keys() == before.keys()
    for name, value in after.items():
        if name.endswith(".step"):
            assert float(value) == 3.0
        else:
            assert torch.equal(value[:3], before[name][keep]) and not value[3:].any(), name
    pull(optimizer, steps=1)
    assert len(optimizer.gaussians) == 5


def test_a_new_optimizer_with_the_stored_moments_takes_the_same_steps(start, config):
    one, two = start(), start()
    first = GaussianOptimizer(one, config, EVERYTHING)
    pull(first, 4)
    second = GaussianOptimizer(two, config, EVERYTHING)
    second.follow(one.subset(torch.arange(len(one))), torch.arange(0), added=0)
    second.load_moments(first.moments())
    pull(first, 3)
    pull(second, 3)
    for name, value in first.gaussians.state_dict().items():
        assert torch.equal(value, second.gaussians.state_dict()[name]), name


def test_forgetting_clears_one_parameter_only(start, config):
    optimizer = GaussianOptimizer(start(), config, EVERYTHING)
    pull(optimizer)
    before = optimizer.moments()
    optimizer.forget("log_weight")
    after = optimizer.moments()
    assert not after["log_weight.exp_avg"].any() and not after["log_weight.exp_avg_sq"].any()
    assert torch.equal(after["center.exp_avg"], before["center.exp_avg"]) and before["log_weight.exp_avg"].any()
