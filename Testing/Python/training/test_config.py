"""The paper's recipe is the published one, and its milestones keep their share of a shorter run."""

from __future__ import annotations

import pytest

from MedGSLib.training.config import paper_training


def test_the_paper_s_recipe_has_the_published_numbers():
    recipe = paper_training()
    assert (recipe.iterations, recipe.gaussians, recipe.slices_per_step, recipe.loss) == (30_000, 100_000, 3, "l1_ssim")
    rates = recipe.learning_rates
    assert (rates.center, rates.values, rates.log_weight, rates.log_scale, rates.angle) == (1.6e-4, 2.5e-3, 2.5e-2, 5e-3, 1e-3)
    assert rates.center * recipe.final_learning_rate == pytest.approx(1.6e-6)
    density = recipe.density
    assert (density.start, density.stop, density.interval, density.opacity_reset_interval) == (500, 20_000, 100, 3000)
    assert (density.clone_gradient, density.prune_opacity) == (2e-4, 0.01)
    assert (recipe.blends.first_iteration, recipe.blends.low, recipe.blends.high, recipe.blends.weight) == (10_000, 0.2, 0.8, 0.5)
    assert (recipe.spread_range.low_slices, recipe.spread_range.high_fraction, recipe.spread_range.last_iteration) == (2.0, 1.0, 20_000)
    assert (recipe.spread_range.image_weight, recipe.spread_range.mask_weight) == (0.25, 0.5)
    assert recipe.pseudo_image_weight == recipe.pseudo_mask_weight == 0.0


def test_milestones_of_a_shorter_run_keep_their_share():
    recipe = paper_training(iterations=3000, gaussians=50)
    assert (recipe.density.start, recipe.density.stop, recipe.density.interval) == (50, 2000, 10)
    assert (recipe.density.opacity_reset_interval, recipe.blends.first_iteration) == (300, 1000)
    assert recipe.gaussians == 50
    short = paper_training(iterations=60).density
    assert (short.interval, short.opacity_reset_interval) == (10, 300)
