"""Volumes with irregular slices, and stacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.volume import Label, SliceStack, Volume


@pytest.fixture
def a_volume() -> Volume:
    return Volume(np.zeros((5, 3, 4), dtype=np.int16), np.diag([-0.5, -0.5, 3.0, 1.0]))


@pytest.fixture
def a_stack() -> SliceStack:
    plane = np.eye(4)
    plane[:3, :3] = np.array([[0.0, 0.0, 1.0], [0.7, 0.0, 0.0], [0.0, -0.4, 0.0]])
    plane[:3, 3] = (7.0, 8.0, 9.0)
    return SliceStack(
        image=np.arange(5 * 3 * 4, dtype=np.float32).reshape(5, 3, 4),
        occupancy=np.zeros((2, 5, 3, 4), dtype=np.float32),
        labels=(Label(1, "a"), Label(2, "b")),
        annotated=np.array([True, False, True, False, True]),
        positions_mm=np.array([0.0, 2.0, 4.0, 7.0, 9.0]),
        plane_to_ras=plane,
    )


def test_shape_ijk(a_volume: Volume) -> None:
    assert a_volume.shape_ijk == (4, 3, 5)


def test_irregular_positions_are_kept_and_the_median_gap_is_the_spacing(a_volume: Volume) -> None:
    placed = a_volume.with_positions(np.array([10.0, 12.0, 14.0, 19.0, 21.0]))
    assert np.array_equal(placed.positions_mm, [0.0, 2.0, 4.0, 9.0, 11.0])
    assert np.allclose(geometry.spacing(placed.ijk_to_ras), [0.5, 0.5, 2.0])
    assert np.array_equal(placed.ijk_to_ras[:3, 3], a_volume.ijk_to_ras[:3, 3])


def test_decreasing_positions_are_distances_from_the_first_slice(a_volume: Volume) -> None:
    assert np.array_equal(a_volume.with_positions(np.array([5.0, 4.0, 1.0, 0.0, -1.0])).positions_mm, [0.0, 1.0, 4.0, 5.0, 6.0])


def test_regular_positions_become_the_spacing(a_volume: Volume) -> None:
    placed = a_volume.with_positions(np.arange(5) * 1.25)
    assert placed.positions_mm is None
    assert geometry.spacing(placed.ijk_to_ras)[2] == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0, 1, 2], "5 slices along k, and 3"),
        ([0, 1, 1, 2, 3], "without repeats"),
        ([0, 2, 1, 3, 4], "all increase or all decrease"),
        ([0, 1, 2, 3, np.nan], "all increase"),
    ],
)
def test_positions_that_do_not_fit_are_refused(a_volume: Volume, positions: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        a_volume.with_positions(np.array(positions, dtype=float))


def test_facts_of_a_stack(a_stack: SliceStack) -> None:
    assert a_stack.shape == (5, 3, 4)
    assert a_stack.gap_mm == 2.0 and a_stack.annotated_gap_mm == 4.5
    assert replace(a_stack, annotated=np.arange(5) == 2).annotated_gap_mm == 2.0
    assert a_stack.pixel_mm == pytest.approx((0.4, 0.7))
    assert np.allclose(a_stack.coordinates, [0.0, 1.0, 2.0, 3.5, 4.5])


def test_index_to_ras_scales_the_slice_step_alone(a_stack: SliceStack) -> None:
    point = geometry.transform_points(a_stack.index_to_ras(0.5), np.array([1.0, 2.0, 4.0]))
    assert np.allclose(point, geometry.transform_points(a_stack.plane_to_ras, np.array([1.0, 2.0, 2.0])))


def test_a_selection_keeps_every_slice_where_it_is(a_stack: SliceStack) -> None:
    chosen = a_stack.select(np.array([1, 3, 4]))
    assert np.array_equal(chosen.positions_mm, [0.0, 5.0, 7.0])
    assert np.array_equal(chosen.annotated, [False, False, True])
    assert chosen.occupancy is not None and chosen.occupancy.shape == (2, 3, 3, 4)
    assert chosen.image is not None and a_stack.image is not None
    assert np.array_equal(chosen.image[1], a_stack.image[3])
    here = geometry.transform_points(chosen.plane_to_ras, np.array([1.0, 2.0, chosen.positions_mm[1]]))
    there = geometry.transform_points(a_stack.plane_to_ras, np.array([1.0, 2.0, a_stack.positions_mm[3]]))
    assert np.allclose(here, there)
