from __future__ import annotations

import numpy as np
import pytest

from MedGSLib.prior.mask_distance import signed_distance_2d, slice_signed_distances, soft_occupancy


@pytest.mark.parametrize("pixel_mm", [(1.0, 1.0), (0.7, 0.7), (1.6, 0.8), (0.5, 1.0)])
def test_distance_to_a_disc_counts_in_columns(pixel_mm: tuple[float, float]) -> None:
    ratio = pixel_mm[0] / pixel_mm[1]
    y, x = np.mgrid[: int(64 / ratio), :64]
    true = 14.3 - np.hypot(ratio * y - 31.7, x - 30.2)
    band = np.abs(true) < 5
    error = signed_distance_2d(true > 0, pixel_mm)[band] - true[band]
    assert abs(error.mean()) < 0.12
    assert np.abs(error).mean() < 0.2 * (1 + ratio)


def test_a_straight_border_lies_half_way_between_pixels() -> None:
    mask = np.zeros((8, 9), bool)
    mask[:, :4] = True
    assert np.array_equal(signed_distance_2d(mask)[3], [3.5, 2.5, 1.5, 0.5, -0.5, -1.5, -2.5, -3.5, -4.5])
    assert np.array_equal(signed_distance_2d(mask.T, (3.0, 1.5))[:, 3], 2 * np.array([3.5, 2.5, 1.5, 0.5, -0.5, -1.5, -2.5, -3.5, -4.5]))


def test_partial_volume_moves_the_border_below_a_pixel() -> None:
    occupancy = np.zeros((6, 10))
    occupancy[:, :4], occupancy[:, 4] = 1.0, 0.25
    crossing = 3 + 0.5 / 0.75
    assert signed_distance_2d(occupancy)[2] == pytest.approx(crossing - np.arange(10), abs=1e-5)


def test_soft_discs_are_more_exact_than_binary_ones() -> None:
    y, x = np.mgrid[:48, :48]
    true = 13.4 - np.hypot(y - 23.3, x - 22.8)
    band = np.abs(true) < 4
    soft = np.abs(signed_distance_2d(np.clip(0.5 + true / 2, 0, 1)) - true)[band].mean()
    assert soft < 0.7 * np.abs(signed_distance_2d(true > 0) - true)[band].mean()


def test_empty_and_full_slices_are_far_from_any_border() -> None:
    assert np.all(signed_distance_2d(np.zeros((8, 20), bool)) == -5.0)
    assert np.all(signed_distance_2d(np.ones((8, 20), bool)) == 5.0)


def test_an_empty_slice_beside_a_filled_one_ends_the_shape_half_way() -> None:
    y, x = np.mgrid[:41, :41]
    occupancy = np.zeros((5, 41, 41), bool)
    occupancy[1] = np.hypot(y - 20, x - 20) < 8.5
    distances = slice_signed_distances(occupancy)
    depth = distances[1].max()
    assert depth == pytest.approx(8.5, abs=0.5)
    assert np.all(distances[0] == -depth) and np.all(distances[2] == -depth)
    assert np.all(distances[3] == -41 / 4)


def test_only_annotated_slices_are_used() -> None:
    occupancy = np.zeros((4, 12, 12), bool)
    occupancy[:, 4:8, 4:8] = True
    occupancy[1] = False
    distances = slice_signed_distances(occupancy, np.array([True, False, True, True]))
    assert distances.shape == (3, 12, 12) and np.all(distances[:, 5, 5] > 0)


def test_soft_occupancy_is_half_on_the_border() -> None:
    values = soft_occupancy(np.array([-50.0, -2.0, 0.0, 2.0, 50.0], np.float32))
    assert values.dtype == np.float32
    assert values == pytest.approx([0.0, 0.5 - 0.5 * np.tanh(1), 0.5, 0.5 + 0.5 * np.tanh(1), 1.0])
