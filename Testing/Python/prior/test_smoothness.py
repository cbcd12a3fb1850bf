"""Smoothness of a stack, and the blur that brings rows to it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from MedGSLib.prior.smoothness import CERTAIN, matching_blur, sharpness, structure_ratio


def _edges(size: int = 400, seed: int = 0) -> np.ndarray:
    """Columns of random plateaus, (size, 64), the plateaus long against the lags used here."""
    generator = np.random.default_rng(seed)
    levels = generator.random((size // 40, 64))
    shifts = generator.integers(0, 40, 64)
    columns = np.repeat(levels, 40, axis=0)
    return np.stack([np.roll(columns[:, number], shift) for number, shift in enumerate(shifts)], axis=1).astype(np.float32)


def test_the_ratio_tells_noise_edges_and_ramps_apart() -> None:
    noise = np.random.default_rng(1).random((2000, 8)).astype(np.float32)
    ramp = np.linspace(0, 1, 50, dtype=np.float32)[:, None]
    assert structure_ratio(noise) == pytest.approx(1.0, abs=0.05)
    assert structure_ratio(_edges(), lag=4) == pytest.approx(2.0, abs=0.05)
    assert structure_ratio(ramp) == pytest.approx(4.0, abs=1e-3)


def test_the_ratio_ignores_contrast_and_what_lies_outside_the_window() -> None:
    rows = _edges()
    assert structure_ratio(0.1 + 0.5 * rows, 4) == pytest.approx(structure_ratio(rows, 4), abs=1e-3)
    assert structure_ratio(np.where(rows > 0.9, 50.0, rows).astype(np.float32), 4) < 2.2


@pytest.mark.parametrize("values", [np.zeros((2, 3), np.float32), np.zeros((9, 3), np.float32)])
def test_too_few_or_constant_samples_count_as_noise(values: np.ndarray) -> None:
    assert structure_ratio(values) == 1.0


@pytest.mark.parametrize("true_sigma", [1.5, 2.5])
def test_the_blur_of_an_overlapping_stack_is_recovered(true_sigma: float) -> None:
    lag = 4
    stack = gaussian_filter1d(_edges(seed=2), true_sigma, axis=0)[::lag]
    found = matching_blur(_edges(seed=3), lag, structure_ratio(stack))
    assert found == pytest.approx(true_sigma, rel=0.15)


def test_rows_as_smooth_as_the_stack_stay_as_they_are() -> None:
    rows = _edges()
    assert matching_blur(rows, 4, structure_ratio(rows, 4) + 0.05) == 0.0
    assert matching_blur(gaussian_filter1d(rows, 3.0, axis=0), 4, 2.3) == 0.0


def test_a_stack_without_any_structure_asks_for_the_widest_blur_at_most() -> None:
    assert matching_blur(_edges(), 4, 4.0) == pytest.approx(1.2 * 4)


def test_motion_fades_out_as_the_stack_gets_smooth() -> None:
    assert sharpness(1.5) == sharpness(None) == 1.0
    assert 0 < sharpness(2.1) < 1
    assert sharpness(CERTAIN) == sharpness(3.0) == 0.0
