"""Matrices, slice axes and output grids."""

from __future__ import annotations

import numpy as np
import pytest

from MedGSLib import geometry
from MedGSLib.errors import InputError


def test_flip_is_its_own_inverse_for_points_and_matrices() -> None:
    matrix = np.eye(4)
    matrix[:3] = np.random.default_rng(0).normal(size=(3, 4))
    points = np.random.default_rng(1).normal(size=(5, 3))
    assert np.array_equal(geometry.flip_ras_lps(geometry.flip_ras_lps(matrix)), matrix)
    flipped = geometry.transform_points(geometry.flip_ras_lps(matrix), points)
    assert np.allclose(flipped, geometry.flip_ras_lps(geometry.transform_points(matrix, points)))
    assert np.array_equal(geometry.flip_ras_lps(np.array([1.0, 2.0, 3.0])), [-1.0, -2.0, 3.0])


def test_flip_takes_four_points_for_points() -> None:
    points = np.arange(12.0).reshape(4, 3)
    assert np.array_equal(geometry.flip_ras_lps(points), points * [-1.0, -1.0, 1.0])


def test_flip_keeps_its_input() -> None:
    point = np.array([1.0, 2.0, 3.0])
    geometry.flip_ras_lps(point)
    assert np.array_equal(point, [1.0, 2.0, 3.0])


def test_spacing_of_an_oblique_matrix() -> None:
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3] = turn * [0.5, 0.7, 3.0]
    assert np.allclose(geometry.spacing(matrix), [0.5, 0.7, 3.0])


def test_shifted_origin_keeps_physical_points() -> None:
    matrix = np.diag([-0.5, 0.7, 3.0, 1.0])
    moved = geometry.shifted_origin(matrix, (4, 5, 6))
    assert np.allclose(geometry.transform_points(moved, np.array([1, 2, 3])), geometry.transform_points(matrix, np.array([5, 7, 9])))


@pytest.mark.parametrize(("mm", "axis"), [((1, 1, 3), 2), ((3, 1, 1), 0), ((1, 3, 1), 1), ((1, 1, 1), 2), ((1.005, 1.0, 1.0), 2)])
def test_auto_takes_the_largest_spacing(mm: tuple[float, float, float], axis: int) -> None:
    assert geometry.slice_axis(np.diag([*mm, 1.0]), (5, 6, 7)) == axis


@pytest.mark.parametrize(("choice", "axis"), [("i", 0), ("j", 1), ("k", 2)])
def test_a_named_axis_is_taken(choice: str, axis: int) -> None:
    assert geometry.slice_axis(np.diag([1.0, 1.0, 3.0, 1.0]), (5, 6, 7), choice) == axis


def test_an_unknown_axis_is_refused() -> None:
    with pytest.raises(InputError, match="'x' is none of auto, i, j, k"):
        geometry.slice_axis(np.eye(4), (5, 6, 7), "x")


@pytest.mark.parametrize("choice", ["k", "auto"])
def test_a_single_slice_is_refused_whatever_its_spacing(choice: str) -> None:
    with pytest.raises(InputError, match="at least 2 are needed"):
        geometry.slice_axis(np.diag([1.0, 1.0, 0.2, 1.0]), (50, 60, 1), choice)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_orders_of_arrays_and_columns_belong_together(axis: int) -> None:
    ijk = np.array([4, 5, 6])
    voxels = np.zeros((9, 8, 7))
    voxels[ijk[2], ijk[1], ijk[0]] = 1.0
    column, row, along = geometry.stack_columns(axis)
    assert along == axis
    assert voxels.transpose(geometry.stack_order(axis))[ijk[along], ijk[row], ijk[column]] == 1.0


@pytest.mark.parametrize(("gap", "pixel", "scale"), [(5.0, 1.0, 5), (1.0, 1.0, 1), (0.2, 1.0, 1), (50.0, 1.0, 8), (2.4, 1.0, 2)])
def test_default_scale(gap: float, pixel: float, scale: int) -> None:
    assert geometry.default_scale(gap, pixel) == scale


@pytest.mark.parametrize("scale", [1, 2, 3, 8])
def test_a_regular_stack_of_s_slices_gets_s_minus_1_times_k_plus_1(scale: int) -> None:
    grid = geometry.output_grid(np.arange(7) * 2.5, scale=scale)
    assert len(grid) == 6 * scale + 1
    assert np.array_equal(grid.acquired, np.arange(7) * scale)
    assert np.allclose(grid.positions_mm[grid.acquired], np.arange(7) * 2.5)
    assert grid.spacing_mm == pytest.approx(2.5 / scale)


def test_a_long_stack_keeps_its_last_slice_despite_rounding() -> None:
    positions = np.cumsum(np.full(1001, 0.1)) - 0.1
    grid = geometry.output_grid(positions, scale=3)
    assert len(grid) == 3001
    assert np.array_equal(grid.acquired, np.arange(1001) * 3)


def test_a_spacing_is_met_by_whole_subdivisions() -> None:
    grid = geometry.output_grid(np.arange(4) * 5.0, spacing_mm=1.3)
    assert grid.spacing_mm == pytest.approx(1.25)
    assert len(grid) == 13


def test_a_spacing_wider_than_the_gap_keeps_the_slices() -> None:
    assert len(geometry.output_grid(np.arange(4) * 5.0, spacing_mm=12.0)) == 4


@pytest.mark.parametrize("arguments", [{"scale": 10**9}, {"spacing_mm": 1e-9}])
def test_more_slices_than_anybody_wants_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match="would have .* slices; choose a smaller scale"):
        geometry.output_grid(np.arange(4) * 5.0, **arguments)


def test_missing_slices_stay_on_the_grid() -> None:
    grid = geometry.output_grid(np.array([0.0, 3.0, 6.0, 12.0, 15.0]), scale=2)
    assert len(grid) == 11
    assert np.array_equal(grid.acquired, [0, 2, 4, 8, 10])


def test_irregular_slices_off_the_grid_are_marked() -> None:
    positions = np.array([0.0, 3.0, 6.0, 10.1, 13.1])
    grid = geometry.output_grid(positions, scale=2)
    assert np.array_equal(grid.acquired[:3], [0, 2, 4])
    assert np.array_equal(grid.acquired[3:], [-1, -1])
    assert grid.positions_mm[-1] <= positions[-1]


def test_jitter_within_tolerance_counts_as_regular() -> None:
    positions = np.arange(5) * 3.0 + np.array([0.0, 0.01, -0.01, 0.01, 0.0])
    assert np.array_equal(geometry.output_grid(positions, scale=4).acquired, np.arange(5) * 4)


@pytest.mark.parametrize("arguments", [{}, {"scale": 2, "spacing_mm": 1.0}, {"scale": 0}, {"spacing_mm": 0.0}, {"spacing_mm": -1.0}])
def test_unusable_grids_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InputError):
        geometry.output_grid(np.arange(4) * 5.0, **arguments)


@pytest.mark.parametrize(("gap", "decimals"), [(0.625, 2), (1.25, 1), (3.3333, 1), (0.7, 3)])
def test_positions_rounded_by_a_header_stay_on_the_grid_to_the_last_slice(gap: float, decimals: int) -> None:
    true = np.arange(200) * gap
    positions = np.round(true, decimals)
    grid = geometry.output_grid(positions, scale=4)
    assert np.array_equal(grid.acquired, np.arange(200) * 4)
    assert np.abs(grid.positions_mm[grid.acquired] - true).max() <= 0.1 + 1e-6
    assert geometry.regular_gap(positions) == pytest.approx(positions[-1] / 199)


def test_missing_slices_are_found_although_positions_are_rounded() -> None:
    places = np.delete(np.arange(60), [7, 8, 31])
    found = geometry.lattice(np.round(places * 1.25, 1))
    assert found is not None
    assert np.array_equal(found[1], places)
    assert found[0] == pytest.approx(1.25, abs=0.002)


def test_a_slice_out_of_place_makes_no_finer_grid() -> None:
    positions = np.array([0.0, 3.0, 6.0, 6.1, 9.0, 12.0])
    grid = geometry.output_grid(positions, scale=3)
    assert grid.spacing_mm <= 1.0
    assert len(grid) < 20


def test_small_differences_that_add_up_are_irregular() -> None:
    positions = np.concatenate([np.arange(50) * 2.98, 50 * 2.98 + np.arange(50) * 3.02])
    assert geometry.regular_gap(positions) is None
    grid = geometry.output_grid(positions, scale=2)
    found = grid.acquired >= 0
    assert np.abs(grid.positions_mm[grid.acquired[found]] - positions[found]).max() <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("positions", "expected"), [([0, 3, 6], True), ([0, 3.02, 6, 9], True), ([0, 3.05, 6, 9], False), ([-2, 1], True), ([0, 1, 3], False)]
)
def test_even_spacing_is_told_to_a_hundredth_of_the_gap(positions: list[float], expected: bool) -> None:
    assert geometry.is_evenly_spaced(np.array(positions, float)) is expected
