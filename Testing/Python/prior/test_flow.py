"""Motion-compensated interpolation follows what moves between slices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from MedGSLib.prior.flow import SlicePair, flow_interpolate, optical_flow


@pytest.fixture
def texture():
    return gaussian_filter(np.random.default_rng(0).random((64, 80)), 3).astype(np.float32) * 8 - 3.5


@pytest.mark.parametrize("method", ["tvl1", "dis"])
def test_flow_points_from_the_fixed_to_the_moving_image(texture, method):
    moving = np.roll(texture, (2, -3), axis=(0, 1))
    row, column = optical_flow(texture, moving, method)[:, 12:-12, 12:-12]
    assert np.median(row) == pytest.approx(2, abs=0.3)
    assert np.median(column) == pytest.approx(-3, abs=0.3)


def test_midway_is_half_the_motion(texture):
    pair = SlicePair(texture, np.roll(texture, 4, axis=1))
    expected = np.roll(texture, 2, axis=1)
    inside = np.s_[8:-8, 12:-12]
    blend = 0.5 * (texture + np.roll(texture, 4, axis=1))
    assert np.abs(pair.at(0.5) - expected)[inside].mean() < 0.25 * np.abs(blend - expected)[inside].mean()
    np.testing.assert_allclose(pair.at(0.0), texture, atol=1e-4)


def test_irregular_coordinates_and_ends(texture):
    slices = np.stack([texture, texture + 1, texture + 2])
    dense = flow_interpolate(slices, np.array([0.0, 1.0, 3.0]), np.array([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_array_equal(dense[[0, 1, 2, 4, 5]], slices[[0, 0, 1, 2, 2]])
    assert dense[3].mean() == pytest.approx(texture.mean() + 1.5, abs=0.05)


@pytest.mark.parametrize("shape", [(4, 5), (40, 3), (32, 32)])
def test_nothing_to_match_is_a_plain_blend(shape):
    zero, one = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    np.testing.assert_allclose(SlicePair(zero, one).at(0.25), 0.25, atol=1e-6)
