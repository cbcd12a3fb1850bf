"""Initial Gaussians: their number, where they lie, what they show, and that the seed decides them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from MedGSLib.gaussians import FoldSettings
from MedGSLib.training.config import TrainingConfig, paper_training
from MedGSLib.training.initialize import gaussian_count, initialize, sample_values


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"gaussians": 77}, 77),
        ({"gaussians": None, "voxels_per_gaussian": 12.0, "min_gaussians": 10}, 9 * 20 * 24 // 12),
        ({"gaussians": None, "voxels_per_gaussian": 12.0, "min_gaussians": 500}, 500),
        ({"gaussians": None, "voxels_per_gaussian": 1.0, "max_gaussians": 321, "min_gaussians": 10}, 321),
    ],
)
def test_number_follows_the_voxels_within_the_limits(targets, changes, count):
    config = replace(TrainingConfig(), **changes)
    assert gaussian_count(targets, config) == count
    assert len(initialize(targets, config, FoldSettings())) == count


@pytest.mark.parametrize("recipe", [TrainingConfig(gaussians=200), paper_training(gaussians=200)])
def test_the_seed_decides_every_parameter(targets, recipe):
    fold = FoldSettings(degree=3)
    first, second, other = (initialize(targets, replace(recipe, seed=seed), fold).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["center"], other["center"])
    assert first["drift"].shape == (200, 3, 2)


def test_guided_gaussians_gather_at_edges_and_show_the_targets(targets):
    state = initialize(targets, TrainingConfig(gaussians=2000), FoldSettings()).state_dict()
    x, y, t = (*state["center"].numpy().T, state["position"].numpy())
    radius = np.sqrt((x - 12.3) ** 2 + (y - 9.2) ** 2 + (2.0 * (t - 4.1)) ** 2)
    near = np.abs(radius - 6.0) < 1.5
    grid = np.meshgrid(np.arange(9), np.arange(20), np.arange(24), indexing="ij")
    voxel_radius = np.sqrt((grid[2] - 12.3) ** 2 + (grid[1] - 9.2) ** 2 + (2.0 * (grid[0] - 4.1)) ** 2)
    assert near.mean() > 1.6 * (np.abs(voxel_radius - 6.0) < 1.5).mean()
    expected = 0.5 + 0.5 * np.tanh((6.0 - radius) / 2.0)
    assert np.abs(state["values"][:, 1].numpy() - expected).mean() < 0.03
    assert torch.all(state["log_spread"] == 0.0)


def test_positions_are_in_the_unit_of_the_coordinates(targets):
    stretched = replace(targets, coordinates=np.concatenate([np.arange(5.0), 4.0 + 3.0 * np.arange(1, 5)]))
    plain = initialize(targets, TrainingConfig(gaussians=300), FoldSettings()).position.detach().numpy()
    moved = initialize(stretched, TrainingConfig(gaussians=300), FoldSettings()).position.detach().numpy()
    inside = np.clip(plain, 0.0, 8.0)
    np.testing.assert_allclose(moved, np.where(inside <= 4, inside, 4 + 3 * (inside - 4)), atol=1e-4)


def test_random_gaussians_cover_the_whole_stack_at_the_paper_s_opacity(targets):
    gaussians = initialize(targets, paper_training(gaussians=500), FoldSettings(degree=7, fold="shrink", blending="alpha"))
    state = gaussians.state_dict()
    assert state["position"].min() < 0.5 and state["position"].max() > 7.5
    assert state["center"].amin() < 1.0 and state["center"][:, 0].max() > 22.0
    assert state["center"][:, 1].max() <= 19.0
    assert torch.allclose(torch.sigmoid(state["log_weight"]), torch.tensor(0.1))
    assert math.exp(state["log_spread"].max()) <= 8.0


def test_unknown_slices_of_a_head_are_filled_from_their_neighbours(targets):
    weights = targets.weights.copy()
    weights[[2, 3, 8], 1] = 0.0
    values = targets.values.copy()
    values[:, 1] = np.arange(9, dtype=np.float32)[:, None, None]
    values[[2, 3, 8], 1] = 99.0
    unknown = replace(targets, weights=weights, values=values)
    at = np.array([[2.0, 3.0, 8.0, 2.5], [4.0] * 4, [5.0] * 4])
    np.testing.assert_allclose(sample_values(unknown, at)[:, 1], [2.0, 3.0, 7.0, 2.5], atol=1e-6)
    np.testing.assert_allclose(sample_values(unknown, at, channels=slice(1, None))[:, 0], [2.0, 3.0, 7.0, 2.5], atol=1e-6)
