"""The terms of the loss against formulas written out by hand and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from MedGSLib.training.config import SpreadRange, TrainingConfig
from MedGSLib.training.losses import SSIM_RADIUS, fidelity, spread_penalty, ssim


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape)).float()


def test_ssim_is_that_of_scikit_image_away_from_the_border():
    first, second = images(0, 2, 1, 30, 34), images(1, 2, 1, 30, 34)
    second = 0.7 * first + 0.3 * second
    found = ssim(first, second).numpy()
    inner = slice(SSIM_RADIUS, -SSIM_RADIUS)
    for k in range(2):
        _, expected = structural_similarity(
            first[k, 0].double().numpy(),
            second[k, 0].double().numpy(),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            truncate=10 / 3,
            use_sample_covariance=False,
            full=True,
        )
        np.testing.assert_allclose(found[k, 0, inner, inner], expected[inner, inner], atol=2e-5)
    assert float(ssim(first, first).min()) == pytest.approx(1.0, abs=1e-5)


def test_l2_is_the_weighted_mean_over_slices_and_heads():
    rendered, wanted = images(2, 3, 2, 6, 7), images(3, 3, 2, 6, 7)
    weights = torch.tensor([[1.0, 0.5], [0.0, 2.0], [0.25, 0.0]])
    config = TrainingConfig(image_loss_weight=3.0, mask_loss_weight=0.5)
    expected = 0.0
    for slice_, head in np.ndindex(3, 2):
        squared = float(((rendered[slice_, head] - wanted[slice_, head]) ** 2).mean())
        expected += squared * float(weights[slice_, head]) * (3.0 if head == 0 else 0.5) / 6.0
    assert float(fidelity(rendered, wanted, weights, config, has_image=True)) == pytest.approx(expected, rel=1e-5)


def test_without_an_image_every_head_counts_as_a_mask():
    rendered, wanted, weights = images(2, 2, 1, 6, 7), images(3, 2, 1, 6, 7), torch.ones(2, 1)
    config = TrainingConfig(image_loss_weight=100.0, mask_loss_weight=2.0)
    expected = 2.0 * float(((rendered - wanted) ** 2).mean())
    assert float(fidelity(rendered, wanted, weights, config, has_image=False)) == pytest.approx(expected, rel=1e-5)


def test_l1_ssim_is_the_paper_s_sum():
    rendered, wanted = images(4, 3, 2, 20, 22), images(5, 3, 2, 20, 22)
    weights = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    config = TrainingConfig(loss="l1_ssim", image_loss_weight=1.5, mask_loss_weight=3.0)
    absolute = (rendered - wanted).abs().mean(dim=(2, 3))
    dissimilarity = 1.0 - float(ssim(rendered[:, :1], wanted[:, :1]).mean())
    expected = 1.5 * (2.0 * float(absolute[:, 0].mean()) + 0.25 * dissimilarity) + 3.0 * 2.0 * float(absolute[[0, 2], 1].sum()) / 3.0
    assert float(fidelity(rendered, wanted, weights, config, has_image=True)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["l2", "l1_ssim"])
def test_a_head_of_weight_zero_has_neither_value_nor_gradient(loss):
    rendered, wanted = images(6, 2, 2, 16, 16).requires_grad_(), images(7, 2, 2, 16, 16)
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    config = TrainingConfig(loss=loss)
    value = fidelity(rendered, wanted, weights, config, has_image=True)
    value.backward()
    assert not rendered.grad[0, 1].any() and not rendered.grad[1, 0].any()
    assert rendered.grad[0, 0].any() and rendered.grad[1, 1].any()
    changed = wanted.clone()
    changed[0, 1] += 5.0
    changed[1, 0] -= 5.0
    assert torch.equal(fidelity(rendered, changed, weights, config, has_image=True), value)


def test_spread_penalty_is_the_distance_from_the_allowed_range():
    log_spread = torch.log(torch.tensor([0.5, 3.0, 25.0]))
    limits = SpreadRange(low_slices=2.0, high_fraction=1.0)
    expected = ((2.0 - 0.5) / 20 + 0.0 + (25.0 - 20.0) / 20) / 3
    assert float(spread_penalty(log_spread, 20.0, limits)) == pytest.approx(expected, rel=1e-5)
    inside = torch.full((4,), math.log(5.0))
    assert float(spread_penalty(inside, 20.0, limits)) == 0.0
