from __future__ import annotations

import numpy as np
import pytest

from MedGSLib.baselines.poisson import poisson


def ball(heights: np.ndarray, radius: float, row_step: float = 1.0, size: int = 40) -> np.ndarray:
    """Slices of a ball, heights and radius in px of the column direction."""
    y, x = np.mgrid[:size, :size]
    flat = np.hypot((y - size / 2) * row_step, x - size / 2)
    return np.hypot(flat[None], heights[:, None, None]) <= radius


@pytest.mark.parametrize("row_step", [1.0, 0.6])
def test_a_ball_between_slices_keeps_its_size(row_step: float) -> None:
    coordinates, gap = np.arange(7.0), 4.0
    occupancy = ball((coordinates - 3) * gap, 10.0, row_step)
    wanted = np.arange(25) / 4
    field = poisson(occupancy, coordinates, wanted, (gap / row_step, gap))
    volume = np.count_nonzero(field > 0.5) * row_step
    assert volume == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.05)
    middle = np.sqrt(np.count_nonzero(field[12] > 0.5) * row_step / np.pi)
    assert middle == pytest.approx(10.0, abs=0.35)
    assert field.min() >= 0 and field.max() <= 1 and field[12, 20, 20] > 0.9 and field[12, 2, 2] < 0.1


def test_a_tube_that_leaves_the_stack_is_not_closed_there() -> None:
    y, x = np.mgrid[:30, :30]
    tube = np.repeat((np.hypot(y - 15, x - 15) < 6)[None], 4, axis=0)
    field = poisson(tube, np.array([0.0, 1.0, 2.5, 3.5]), np.linspace(0, 3.5, 8), (5.0, 5.0))
    areas = np.count_nonzero(field > 0.5, axis=(1, 2))
    assert areas == pytest.approx(np.full(8, tube[0].sum()), rel=0.08)


def test_nothing_and_a_single_slice_stay_what_they_are() -> None:
    empty = np.zeros((3, 12, 12), bool)
    assert not poisson(empty, np.arange(3.0), np.arange(3.0)).any()
    single = ball(np.zeros(1), 5.0, size=16)
    assert np.array_equal(poisson(single, np.zeros(1), np.zeros(2)) > 0.5, np.repeat(single, 2, axis=0))
