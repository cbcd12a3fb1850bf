"""Volumes by the areas of annotated slices, and levels that keep their promise."""

from __future__ import annotations

import numpy as np
import pytest

from MedGSLib.prior.mask_areas import AreaVolume, level_of_areas, volume_of_areas, voxels_of_areas, with_promised_volume

KNOWN = np.arange(9) * 6.0
BETWEEN = np.setdiff1d(np.arange(49.0), KNOWN)
"""Annotated slices 6 mm apart, and the slices of 1 mm between them."""


def test_the_standard_error_is_the_size_of_the_error() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(300):
        semi_axis, middle = rng.uniform(12.0, 20.0), rng.uniform(22.0, 26.0)
        promised = volume_of_areas(np.pi * np.clip(1.0 - ((KNOWN - middle) / semi_axis) ** 2, 0.0, None), KNOWN)
        true = 4.0 / 3.0 * np.pi * semi_axis
        assert promised is not None and promised.standard_error < 0.05 * true
        errors.append((promised.volume - true) / promised.standard_error)
    assert 0.5 < np.sqrt(np.mean(np.square(errors))) < 2.0


def test_straight_courses_are_exact_and_others_as_sure_as_they_are_straight() -> None:
    cone = volume_of_areas(100.0 + 3.0 * KNOWN, KNOWN)
    assert cone is not None and cone.standard_error == pytest.approx(0.0, abs=1e-9)
    assert cone.volume == pytest.approx((100.0 + 3.0 * 24.0) * 48.0)
    rough = volume_of_areas(100.0 + 10.0 * (np.arange(9) % 2), KNOWN)
    assert rough is not None and rough.standard_error == pytest.approx(np.sqrt(7 * 20.0**2 / 480.0) * 6.0)


def test_a_segment_that_ends_is_less_sure_than_one_that_is_cut_off() -> None:
    cut_off = volume_of_areas(np.full(5, 30.0), KNOWN[:5])
    ends = volume_of_areas(np.array([0.0, 30.0, 30.0, 30.0, 30.0, 0.0]), KNOWN[:6])
    assert cut_off is not None and cut_off.standard_error == 0.0
    assert ends is not None and ends.standard_error == pytest.approx(6.0 * np.sqrt(4 * 30.0**2 / 480.0))


def test_irregular_slices_count_as_far_as_they_reach() -> None:
    known = np.array([0.0, 5.0, 13.0, 18.0, 27.0, 30.0])
    straight = volume_of_areas(50.0 + 2.0 * known, known)
    assert straight is not None and straight.standard_error == pytest.approx(0.0, abs=1e-9)
    assert straight.volume == pytest.approx((50.0 + 2.0 * 15.0) * 30.0)


def test_too_few_slices_promise_nothing() -> None:
    assert volume_of_areas(np.array([0.0, 5.0, 8.0, 5.0, 0.0]), np.arange(5.0)) is None
    assert voxels_of_areas(np.array([0.0, 5.0, 8.0, 5.0, 0.0]), np.arange(5.0), np.arange(4) + 0.5) is None


def test_voxels_are_counted_on_the_slices_between() -> None:
    areas = 100.0 + 10.0 * (np.arange(9) % 2)
    whole, between = volume_of_areas(areas, KNOWN), voxels_of_areas(areas, KNOWN, BETWEEN)
    assert whole is not None and between is not None
    assert between.volume == pytest.approx(105.0 * len(BETWEEN)) and between.standard_error == pytest.approx(whole.standard_error)
    finer = voxels_of_areas(areas, KNOWN, np.setdiff1d(np.arange(0.0, 48.25, 0.5), KNOWN))
    assert finer is not None and finer.standard_error == pytest.approx(2.0 * whole.standard_error)


@pytest.fixture
def planes() -> np.ndarray:
    """3000 values above 0 and 3000 below."""
    return np.random.default_rng(1).permutation(np.linspace(-10.0, 10.0, 6001)[:-1]).reshape(6, 25, 40).astype(np.float32)


@pytest.mark.parametrize("wanted", [3400, 3001, 2500])
def test_the_level_leaves_the_promised_number_of_voxels(planes: np.ndarray, wanted: int) -> None:
    level = level_of_areas(planes, 0.0, 2.0, AreaVolume(wanted, 0.0), 1.0)
    assert np.count_nonzero(planes > level) == wanted
    assert abs(level) < 2.0


def test_the_level_goes_no_further_than_the_standard_error_asks(planes: np.ndarray) -> None:
    level = level_of_areas(planes, 0.0, 2.0, AreaVolume(3400.0, 75.0), 2.0)
    assert np.count_nonzero(planes > level) == 3250
    assert level_of_areas(planes, 0.0, 2.0, AreaVolume(3100.0, 150.0), 1.0) == 0.0


@pytest.mark.parametrize(("wanted", "level"), [(5000, -2.0), (500, 2.0), (6000, -2.0), (0, 2.0)])
def test_the_level_stays_within_what_is_allowed(planes: np.ndarray, wanted: int, level: float) -> None:
    assert level_of_areas(planes, 0.0, 2.0, AreaVolume(wanted, 0.0), 1.0) == level


def test_without_a_promise_or_a_segment_the_level_stays(planes: np.ndarray) -> None:
    assert level_of_areas(planes, 0.5, 2.0, None, 1.0) == 0.5
    assert level_of_areas(planes - 20.0, 0.5, 2.0, AreaVolume(100.0, 0.0), 1.0) == 0.5


def test_the_promised_volume_does_not_move_sharp_edges() -> None:
    unsure = np.array([0.0, 0.0, 0.3, 0.4, 0.45, 1.0, 1.0, 1.0], np.float32).reshape(1, 1, 8)
    found = with_promised_volume(unsure, 0.2, AreaVolume(4.0, 0.0), 1.0)[0, 0]
    assert np.flatnonzero(found > 0.5).tolist() == [4, 5, 6, 7]
    assert np.all(np.diff(found) >= 0.0)
    assert found[:2].tolist() == [0.0, 0.0] and found[5:].tolist() == [1.0, 1.0, 1.0]
    fewer = with_promised_volume(unsure, 0.2, AreaVolume(3.0, 0.0), 1.0)
    assert fewer is unsure
