from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from MedGSLib.metrics import dice
from MedGSLib.prior.mask_distance import slice_signed_distances
from MedGSLib.prior.mask_guided import guided_distances
from MedGSLib.prior.mask_motion import MotionChain

SIZE = 72
COUNT = 25
CUBIC = (1.0, 1.0)


def moving_disc(contrast: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A bright textured disc that swings sideways and breathes along the stack, on a textured ground."""
    rng = np.random.default_rng(seed)
    texture = gaussian_filter(rng.standard_normal((SIZE, SIZE)), 2.0)
    texture /= texture.std()
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    image, mask = [], []
    for t in range(COUNT):
        centre, radius = 36 + 9 * np.sin(t / 2.0), 14 + 4 * np.cos(t / 1.7)
        depth = radius - np.hypot(y - 35, x - centre)
        mask.append(depth > 0)
        ground = 0.4 + 0.05 * texture
        image.append(ground + contrast / (1 + np.exp(-2 * depth)) + 0.02 * rng.standard_normal((SIZE, SIZE)))
    return np.stack(image).astype(np.float32), np.stack(mask)


def every(step: int) -> np.ndarray:
    annotated = np.zeros(COUNT, bool)
    annotated[::step] = True
    return annotated


def left_out_dice(field: np.ndarray, mask: np.ndarray, annotated: np.ndarray) -> float:
    return dice(field[~annotated] > 0, mask[~annotated])


def test_the_image_guides_the_mask_where_shape_alone_cannot_know() -> None:
    image, mask = moving_disc(contrast=0.4)
    annotated = every(4)
    distances = slice_signed_distances(mask, annotated)
    guided = guided_distances(image, annotated, distances, CUBIC)
    assert np.array_equal(guided.distances[annotated], distances)
    linear = np.stack([np.interp(np.arange(COUNT), np.flatnonzero(annotated), column) for column in distances.reshape(7, -1).T], axis=1)
    assert left_out_dice(linear.reshape(mask.shape), mask, annotated) < 0.93
    assert guided.method == "fused"
    assert left_out_dice(guided.distances, mask, annotated) > 0.97


def test_an_image_that_shows_nothing_is_not_trusted() -> None:
    _, mask = moving_disc(contrast=0.4)
    noise = np.random.default_rng(5).random(mask.shape).astype(np.float32)
    annotated = every(2)
    guided = guided_distances(noise, annotated, slice_signed_distances(mask, annotated), CUBIC)
    assert guided.errors["shape"] < guided.errors["flow"]
    assert guided.method == "shape" and guided.share == 0.0
    assert left_out_dice(guided.distances, mask, annotated) > 0.9


def test_the_share_of_the_image_is_what_left_out_slices_show_shrunk_to_caution() -> None:
    image, mask = moving_disc(contrast=0.4)
    shares = []
    for step in (3, 6):
        annotated = every(step)
        shares.append(guided_distances(image, annotated, slice_signed_distances(mask, annotated), CUBIC).share)
    assert 0.85 < shares[0] <= 1.0, "seven left-out slices outweigh the caution"
    assert 0.5 < shares[1] < shares[0], "of three left-out slices less is believed"


def test_beside_an_empty_slice_the_segment_ends_about_half_way() -> None:
    image, mask = moving_disc(contrast=0.4)
    mask[:4] = False
    annotated = every(4)
    distances = slice_signed_distances(mask, annotated)
    ended = guided_distances(image, annotated, distances, CUBIC)
    assert ended.method == "fused"
    areas = (ended.distances > 0).sum(axis=(1, 2))
    assert areas[0] == 0 and areas[1] < 0.3 * areas[4] and areas[3] > 0.7 * areas[4]


def test_few_annotated_slices_are_carried_by_the_motion_alone() -> None:
    image, mask = moving_disc(contrast=0.4)
    annotated = np.zeros(COUNT, bool)
    annotated[[6, 10]] = True
    guided = guided_distances(image, annotated, slice_signed_distances(mask, annotated), CUBIC)
    assert guided.method == "flow" and guided.errors == {}
    assert dice(guided.distances[8] > 0, mask[8]) > 0.93
    assert dice(guided.distances[4] > 0, mask[4]) > dice(mask[6], mask[4])
    assert dice(guided.distances[12] > 0, mask[12]) > dice(mask[10], mask[12])


def test_the_chain_of_motions_follows_a_shift_over_several_slices() -> None:
    rng = np.random.default_rng(1)
    texture = gaussian_filter(rng.standard_normal((SIZE, SIZE + 40)), 2.0)
    texture = (texture - texture.min()) / np.ptp(texture)
    image = np.stack([texture[:, 2 * k : 2 * k + SIZE] for k in range(6)]).astype(np.float32)
    distances = np.zeros((2, SIZE, SIZE), np.float32)
    chain = MotionChain(image, np.array([0, 5]), distances)
    carried = chain.carry(4, -1)
    assert carried is not None
    inner = carried.flow[:, 20:-20, 20:-20]
    assert np.median(inner[0]) == pytest.approx(0, abs=0.2)
    assert np.median(inner[1]) == pytest.approx(8, abs=0.5)
    assert np.abs(carried.image - image[4])[20:-20, 20:-20].mean() < 0.02
    assert chain.carry(0, -1) is None


def test_irregular_slices_are_weighted_by_their_true_distance() -> None:
    flat = np.zeros((4, SIZE, SIZE), np.float32)
    y, x = np.mgrid[:SIZE, :SIZE]
    annotated = np.array([True, False, False, True])
    distances = slice_signed_distances(np.stack([np.hypot(y - 36, x - 36) < radius for radius in (20, 1, 1, 8)]), annotated)
    guided = guided_distances(flat, annotated, distances, CUBIC, np.array([0.0, 1.0, 5.0, 6.0]))
    assert guided.distances[1] == pytest.approx((5 * distances[0] + distances[1]) / 6, abs=1e-3)


def test_the_result_does_not_depend_on_chance() -> None:
    image, mask = moving_disc(contrast=0.3, seed=2)
    annotated = every(6)
    distances = slice_signed_distances(mask, annotated)
    runs = [guided_distances(image, annotated, distances, CUBIC).distances for _ in range(2)]
    assert np.array_equal(*runs)
