"""What is made of rendered slices on the output grid: images true to the input, label maps, fields of surfaces, ways to slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedGSLib.config import preset_config
from MedGSLib.dense import (
    MASK_PRIOR_SHARE,
    boundary_field,
    boundary_fields,
    dense_image,
    dense_occupancy,
    exclusive_labels,
    gaussian_share,
    label_map,
    on_grid,
    true_to_slices,
    way_to_slices,
    with_all_pieces,
)
from MedGSLib.preparation import Preparation, prepare
from MedGSLib.prior.image_config import PriorConfig
from MedGSLib.prior.mask_distance import soft_occupancy
from MedGSLib.progress import Reporter
from MedGSLib.volume import Label, SliceStack

REGULAR = np.arange(5) * 3.0
ONE_MISSING = np.array([0.0, 3.0, 6.0, 12.0, 15.0])
JITTERED = np.array([0.0, 2.8, 6.3, 9.1, 12.0])


def prepared_stack(positions=REGULAR, thickness=None, method="linear", scale=3) -> Preparation:
    image = np.random.default_rng(0).random((5, 16, 18)).astype(np.float32)
    stack = SliceStack(image, None, (), np.ones(5, bool), positions, np.eye(4), slice_thickness_mm=thickness)
    config = replace(preset_config("fast", mode="image", scale=scale), prior=PriorConfig(method=method))
    return prepare(stack, config, Reporter())


def test_the_image_is_the_mean_of_gaussians_and_prior_between_slices():
    prepared = prepared_stack()
    rendered = np.random.default_rng(1).random((13, 16, 18)).astype(np.float32)
    image = dense_image(rendered, prepared)
    np.testing.assert_array_equal(image[::3], prepared.slices)
    between = np.arange(13) % 3 != 0
    np.testing.assert_allclose(image[between], (0.5 * rendered + 0.5 * prepared.prior.image)[between], atol=1e-6)


def test_gaussians_that_only_blur_a_certain_prior_do_not_count():
    doubt = np.full((4, 8, 8), 0.02, np.float32)
    doubt[::2] = 0
    within, astray = (np.full((4, 8, 8), size, np.float32) for size in (0.002, 0.1))
    assert gaussian_share(within, doubt) == pytest.approx(0.5, abs=0.03)
    assert gaussian_share(astray, doubt) < 0.01
    astray[1::2] = 0.002
    assert gaussian_share(astray, doubt) == gaussian_share(within, doubt)


def test_without_a_prior_the_gaussians_speak_alone():
    prepared = prepared_stack(method="none")
    rendered = np.random.default_rng(1).random((13, 16, 18)).astype(np.float32)
    image = dense_image(rendered, prepared)
    np.testing.assert_array_equal(image[1::3], rendered[1::3])
    np.testing.assert_array_equal(image[::3], prepared.slices)


def test_slices_that_are_not_on_the_grid_are_not_put_there():
    prepared = prepared_stack(JITTERED)
    rendered = np.zeros((len(prepared.grid), 16, 18), np.float32)
    image = true_to_slices(rendered, prepared)
    acquired = prepared.grid.acquired
    assert (acquired == -1).any() and (acquired >= 0).any()
    for number, row in enumerate(acquired):
        if row >= 0:
            np.testing.assert_array_equal(image[row], prepared.slices[number])
    assert not image[np.setdiff1d(np.arange(len(image)), acquired)].any()
    assert not rendered.any()


@pytest.mark.parametrize("positions", [REGULAR, ONE_MISSING], ids=["regular", "one missing"])
def test_thick_slices_are_reproduced_by_averaging_the_result(positions):
    prepared = prepared_stack(positions, thickness=3.0)
    assert prepared.profile.kind == "box"
    rendered = on_grid(prepared.prior.image, prepared)
    rendered = rendered + np.random.default_rng(1).normal(0, 0.05, rendered.shape).astype(np.float32)
    image = true_to_slices(rendered, prepared)
    offsets, weights = prepared.profile.weights(3)
    inner = prepared.grid.acquired[1:4]

    def residual(dense: np.ndarray) -> float:
        means = [np.tensordot(weights, dense[row + offsets], axes=1) for row in inner]
        return float(np.abs(np.array(means) - prepared.slices[1:4]).mean())

    assert residual(image) < 0.2 * residual(rendered)
    assert np.abs(image[inner] - prepared.slices[1:4]).mean() > 10 * residual(image)


def test_fields_at_the_targets_reach_an_irregular_grid_by_linear_interpolation():
    prepared = prepared_stack(JITTERED)
    ramp = np.broadcast_to(prepared.targets.coordinates[:, None, None], (13, 4, 4)).astype(np.float32)
    found = on_grid(ramp, prepared)
    wanted = prepared.grid.positions_mm / prepared.step_mm
    np.testing.assert_allclose(found[:, 0, 0], np.minimum(wanted, prepared.targets.coordinates[-1]), atol=1e-5)
    regular = prepared_stack()
    dense = np.zeros((13, 2, 2), np.float32)
    assert on_grid(dense, regular) is dense


def masked_stack() -> tuple[SliceStack, Preparation]:
    """A disc and, on one slice only, a speck of a single pixel; every third output slice is annotated."""
    y, x = np.mgrid[:20, :24]
    mask = np.repeat((np.hypot(y - 9, x - 9) < 6)[None], 5, axis=0)
    mask[2, 16, 20] = True
    labels = (Label(1, "disc", (1.0, 0.0, 0.0)),)
    stack = SliceStack(None, mask[None].astype(np.float32), labels, np.ones(5, bool), REGULAR, np.eye(4))
    return stack, prepare(stack, preset_config("fast", mode="mask", scale=3), Reporter())


def test_the_result_contradicts_no_annotated_slice():
    stack, prepared = masked_stack()
    rendered = np.random.default_rng(2).random((13, 1, 20, 24)).astype(np.float32)
    occupancy = dense_occupancy(rendered, prepared)
    np.testing.assert_array_equal(occupancy[:, ::3] > 0.5, stack.occupancy >= 0.5)
    assert occupancy[0, 6, 16, 20] > 0.5, "not even of a speck that the Gaussians smooth away"


def test_round_thin_pieces_of_an_annotated_slice_the_masks_alone_decide():
    _, prepared = masked_stack()
    occupancy = dense_occupancy(np.zeros((13, 1, 20, 24), np.float32), prepared)[0]
    prior = soft_occupancy(prepared.distances[0])
    round_speck = (6, slice(15, 18), slice(19, 22))
    np.testing.assert_array_equal(occupancy[round_speck], prior[round_speck])
    assert occupancy[6, 9, 9] == pytest.approx(MASK_PRIOR_SHARE * prior[6, 9, 9]), "the disc is thick"


def test_a_thin_piece_that_gaussians_smooth_away_between_annotated_slices_stays():
    prior = np.full((1, 3, 12, 12), 0.01, np.float32)
    prior[0, :, 5, 5:7] = 0.6
    prior[0, 1, 9, 2:9] = 0.9
    mixed = prior * np.float32(2 / 3)
    mixed[0, 1, 9, 2:9] = 0.7
    kept = with_all_pieces(mixed.copy(), prior)
    assert (kept[0, :, 5, 5:7] > 0.5).all() and np.array_equal(kept[0, 1, 9], mixed[0, 1, 9])


def test_gaussians_add_no_islands_where_the_masks_are_certain_that_there_is_nothing():
    _, prepared = masked_stack()
    rendered = np.ones((13, 1, 20, 24), np.float32)
    far = prepared.distances[0] < -4
    assert far.any() and dense_occupancy(rendered, prepared)[0][far].max() < 0.5
    assert MASK_PRIOR_SHARE > 0.5


def test_labels_win_where_they_are_most_likely():
    occupancy = np.array([[0.6, 0.4, 0.45, 0.1, 0.5], [0.3, 0.5, 0.20, 0.1, 0.5]], np.float32)[:, None, None, :]
    apart = np.array([[False, True], [True, False]])
    assert label_map(occupancy, (3, 9), apart)[0, 0, :4].tolist() == [3, 9, 3, 0]
    assert label_map(occupancy, (3, 9), apart)[0, 0, 4] in (3, 9)


def test_surfaces_of_neighbours_meet_where_their_occupancies_are_equal():
    x = np.linspace(-4.0, 4.0, 81, dtype=np.float32)
    left, right = 0.5 - 0.5 * np.tanh(x), 0.5 + 0.5 * np.tanh(x)
    occupancy = np.stack([left, right]).astype(np.float32)[:, None, None, :] * 0.9
    apart = np.array([[False, True], [True, False]])
    first, second = (boundary_field(occupancy, k, apart)[0, 0] for k in range(2))
    assert first[40] == pytest.approx(0.5, abs=1e-6) and second[40] == pytest.approx(0.5, abs=1e-6)
    assert (first[:40] > 0.5).all() and (second[41:] > 0.5).all()
    np.testing.assert_array_equal(boundary_field(occupancy[:1], 0, np.zeros((1, 1), bool)), occupancy[0])


def test_a_field_that_may_move_is_bounded_where_labels_compete_only():
    occupancy = np.random.default_rng(4).random((3, 4, 5, 6)).astype(np.float32) / 2
    apart = ~np.eye(3, dtype=bool)
    free, bound = boundary_fields(occupancy, 1, apart)
    assert bound is not None
    np.testing.assert_allclose(bound, 0.5 + 0.5 * (occupancy[1] - np.maximum(occupancy[0], occupancy[2])), atol=1e-6)
    np.testing.assert_array_equal(np.minimum(free, bound), boundary_field(occupancy, 1, apart))
    np.testing.assert_array_equal(label_map(occupancy, (5, 6, 7), apart) == 6, np.minimum(free, bound) > 0.5)
    alone = boundary_fields(occupancy, 1, np.zeros((3, 3), bool))
    assert alone[0] is not None and alone[1] is None


def test_segments_that_share_many_voxels_do_not_compete():
    outer = np.zeros((3, 20, 20), np.float32)
    outer[:, 2:18, 2:18] = 1.0
    inner = np.zeros_like(outer)
    inner[:, 8:12, 8:12] = 1.0
    neighbour = np.zeros_like(outer)
    neighbour[:, 17:20] = 1.0
    empty = np.zeros_like(outer)
    apart = exclusive_labels(np.stack([outer, inner, empty]))
    assert apart.tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    thin = np.zeros_like(outer)
    thin[:, :3, 2:18] = 1.0
    assert not exclusive_labels(np.stack([outer, thin]))[0, 1]
    assert exclusive_labels(np.stack([inner, neighbour]))[0, 1]
    nested = label_map(np.stack([outer, inner]), (4, 7), np.zeros((2, 2), bool))
    np.testing.assert_array_equal(nested, np.where(inner > 0, 7, np.where(outer > 0, 4, 0)))


def test_the_way_to_known_slices_is_0_on_them_and_1_between_and_beyond():
    known = np.array([0.0, 4.0, 10.0])
    way = way_to_slices(np.array([0.0, 2.0, 4.0, 7.0, 10.0, -0.5, 11.0, 1.0]), known)
    np.testing.assert_allclose(way, [0, 1, 0, 1, 0, 1, 1, np.sqrt(0.75)], atol=1e-12)
    assert way_to_slices(np.array([[0.0, 0.4], [5.0, 0.0]]), np.array([0.0])).tolist() == [[0.0, 0.4], [1.0, 0.0]]
