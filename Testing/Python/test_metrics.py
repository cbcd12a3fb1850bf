from __future__ import annotations

import numpy as np
import pytest

from MedGSLib import metrics


def test_psnr_of_a_known_error() -> None:
    reference = np.zeros((4, 5))
    assert metrics.psnr(reference + 0.1, reference) == pytest.approx(20.0)
    assert metrics.psnr(reference + 10.0, reference, data_range=100.0) == pytest.approx(20.0)
    assert metrics.psnr(reference, reference) == pytest.approx(100.0)


def test_mean_psnr_is_the_mean_of_decibels_not_of_errors() -> None:
    reference = np.zeros((2, 4, 4))
    reconstructed = np.stack([np.full((4, 4), 0.1), np.full((4, 4), 0.01)])
    assert metrics.mean_psnr(reconstructed, reference) == pytest.approx(30.0)


def test_ssim_is_one_for_equal_slices_and_falls_with_blur_and_noise() -> None:
    rng = np.random.default_rng(0)
    reference = rng.random((32, 40))
    assert metrics.ssim(reference, reference) == pytest.approx(1.0)
    noisy = metrics.ssim(reference + 0.1 * rng.standard_normal(reference.shape), reference)
    assert 0.0 < metrics.ssim(np.full_like(reference, 0.5), reference) < noisy < 1.0
    stack = np.stack([reference, reference])
    assert metrics.mean_ssim(stack, stack) == pytest.approx(1.0)


def test_sharpness_of_a_half_contrast_copy_is_a_quarter() -> None:
    reference = np.random.default_rng(1).random((6, 7, 8))
    assert metrics.sharpness(0.5 * reference + 3.0, reference) == pytest.approx(0.25)


def test_dice_of_known_overlap_and_of_nothing() -> None:
    first, second = np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), bool)
    assert metrics.dice(first, second) == 1.0
    assert metrics.mean_slice_dice(first, second) == 1.0
    first[0, 0], second[0, :2] = True, True
    assert metrics.dice(first, second) == pytest.approx(2 * 4 / (4 + 8))
    second[1, 0, 0] = True
    assert metrics.mean_slice_dice(first, second) == pytest.approx((8 / 12 + 0.0) / 2)
