"""Masks on another grid than their image."""

from __future__ import annotations

import numpy as np
import pytest

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.io.labels import Segment, Segmentation
from MedGSLib.io.resample import describe_grid, onto_grid
from MedGSLib.volume import Label, Volume


def ball(shape_kji: tuple[int, int, int], ijk_to_ras: np.ndarray, center: np.ndarray, radius: float, value: int) -> np.ndarray:
    index = np.stack(np.meshgrid(*(np.arange(count) for count in shape_kji), indexing="ij"), axis=-1)[..., ::-1]
    distance = np.linalg.norm(geometry.transform_points(ijk_to_ras, index) - center, axis=-1)
    return np.where(distance <= radius, value, 0).astype(np.uint8)


def segmentation(voxels: np.ndarray, ijk_to_ras: np.ndarray) -> Segmentation:
    return Segmentation(voxels[None], ijk_to_ras, (Segment(Label(3, "ball")),))


def middle(volume: Volume) -> np.ndarray:
    return geometry.transform_points(volume.ijk_to_ras, (np.array(volume.shape_ijk) - 1) / 2.0)


def test_the_same_grid_is_left_alone(oriented: Volume) -> None:
    voxels = ball(oriented.voxels.shape, oriented.ijk_to_ras, middle(oriented), 7.0, 3)
    noisy = oriented.ijk_to_ras + np.random.default_rng(0).normal(scale=1e-6, size=(4, 4)) * [[1], [1], [1], [0]]
    assert onto_grid(segmentation(voxels, noisy), oriented).layers[0] is not None
    assert np.array_equal(onto_grid(segmentation(voxels, noisy), oriented).layers[0], voxels)


def test_a_crop_by_whole_voxels_goes_back_exactly(oriented: Volume, caplog: pytest.LogCaptureFixture) -> None:
    voxels = ball(oriented.voxels.shape, oriented.ijk_to_ras, middle(oriented), 7.0, 3)
    crop = voxels[2:, 3:-1, 4:-2]
    moved = onto_grid(segmentation(crop, geometry.shifted_origin(oriented.ijk_to_ras, (4, 3, 2))), oriented)
    expected = np.zeros_like(voxels)
    expected[2:, 3:-1, 4:-2] = crop
    assert expected.any()
    assert np.array_equal(moved.layers[0], expected)
    assert not caplog.records


def test_a_mask_that_reaches_beyond_the_image_loses_that_part(oriented: Volume, caplog: pytest.LogCaptureFixture) -> None:
    wide = np.zeros(tuple(count + 4 for count in oriented.voxels.shape), dtype=np.uint8)
    wide[:, 5:9, 5:9] = 3
    moved = onto_grid(segmentation(wide, geometry.shifted_origin(oriented.ijk_to_ras, (-2, -2, -2))), oriented)
    assert np.array_equal(moved.layers[0], wide[2:-2, 2:-2, 2:-2])
    assert "12.5 % of the mask lies outside" in caplog.text


def test_another_orientation_is_resampled_and_reported(oriented: Volume, caplog: pytest.LogCaptureFixture) -> None:
    center, radius = middle(oriented), 7.0
    fine = np.diag([0.5, -0.6, 0.7, 1.0])
    fine[:3, 3] = center - geometry.transform_points(fine, np.array([20.0, 20.0, 20.0]))
    moved = onto_grid(segmentation(ball((41, 41, 41), fine, center, radius, 3), fine), oriented).layers[0]
    truth = ball(oriented.voxels.shape, oriented.ijk_to_ras, center, radius, 3)
    assert set(np.unique(moved)) == {0, 3}
    dice = 2.0 * np.count_nonzero(moved & truth) / (np.count_nonzero(moved) + np.count_nonzero(truth))
    assert dice > 0.93
    assert "was resampled onto that of the image" in caplog.text
    assert describe_grid((41, 41, 41), fine) in caplog.text


def test_irregular_slices_are_met_at_their_true_positions(caplog: pytest.LogCaptureFixture) -> None:
    matrix = np.diag([-1.0, -1.0, 2.0, 1.0])
    positions = np.array([0.0, 2.0, 4.0, 9.0, 11.0, 13.0])
    volume = Volume(np.zeros((6, 20, 20), np.int16), matrix).with_positions(positions)
    fine = np.diag([-1.0, -1.0, 0.5, 1.0])
    mask = np.zeros((30, 20, 20), np.uint8)
    mask[17:23, 4:9, 5:11] = 3
    moved = onto_grid(segmentation(mask, fine), volume).layers[0]
    assert np.array_equal(np.flatnonzero(moved.any(axis=(1, 2))), [3, 4])
    assert np.array_equal(moved[3], mask[18])
    assert "resampled" in caplog.text


def test_a_mask_drawn_on_irregular_slices_corresponds_one_to_one(caplog: pytest.LogCaptureFixture) -> None:
    matrix = np.diag([-1.0, -1.0, 2.5, 1.0])
    volume = Volume(np.zeros((5, 20, 20), np.int16), matrix).with_positions(np.array([0.0, 2.0, 4.0, 9.0, 11.0]))
    mask = np.zeros((5, 20, 20), np.uint8)
    mask[3, 4:9, 5:11] = 3
    assert np.array_equal(onto_grid(segmentation(mask, matrix), volume).layers[0], mask)
    assert not caplog.records


def test_grids_far_apart_are_refused_with_both_named(oriented: Volume) -> None:
    away = geometry.shifted_origin(oriented.ijk_to_ras, (100, 0, 0))
    voxels = np.full(oriented.voxels.shape, 3, np.uint8)
    with pytest.raises(
        InputError, match="^The mask lies outside the image: the mask has 20 x 24 x 28 voxels .*, the image 20 x 24 x 28"
    ) as error:
        onto_grid(segmentation(voxels, away), oriented)
    assert describe_grid(voxels.shape, away) in str(error.value)
    assert describe_grid(voxels.shape, oriented.ijk_to_ras) in str(error.value)


@pytest.mark.parametrize("shift", [10.0, 10.3])
def test_a_segment_beyond_the_image_is_refused(oriented: Volume, shift: float) -> None:
    voxels = np.zeros(oriented.voxels.shape, np.uint8)
    voxels[5:8, 5:8, -5:] = 3
    with pytest.raises(InputError, match="^The segment lies outside the image"):
        onto_grid(segmentation(voxels, geometry.shifted_origin(oriented.ijk_to_ras, (shift, 0, 0))), oriented)


def test_grids_in_words() -> None:
    matrix = np.diag([-0.5, -0.5, 3.0, 1.0])
    assert describe_grid((10, 20, 30), matrix) == "30 x 20 x 10 voxels of 0.5 x 0.5 x 3 mm from (-15, -10, -2) to (0, 0, 28) mm RAS"


def test_a_partial_volume_mask_is_resampled_linearly(oriented: Volume) -> None:
    fine = np.diag([0.5, -0.6, 0.7, 1.0])
    fine[:3, 3] = middle(oriented) - geometry.transform_points(fine, np.array([20.0, 20.0, 20.0]))
    index = np.stack(np.meshgrid(*(np.arange(41),) * 3, indexing="ij"), axis=-1)[..., ::-1]
    normal = np.array([0.5, -0.7, 0.5])

    def share(points: np.ndarray) -> np.ndarray:
        return np.clip(0.5 + (points - middle(oriented)) @ normal / 16.0, 0.0, 1.0).astype(np.float32)

    shares = share(geometry.transform_points(fine, index))
    moved = onto_grid(Segmentation(shares[None], fine, (Segment(Label(1, "ball")),)), oriented).layers[0]
    k, j, i = np.indices(oriented.voxels.shape)
    points = geometry.transform_points(oriented.ijk_to_ras, np.stack([i, j, k], axis=-1))
    inner = np.linalg.norm(points - middle(oriented), axis=-1) < 7.0
    assert np.ptp(moved[inner]) > 0.5
    np.testing.assert_allclose(moved[inner], share(points)[inner], atol=1e-5)
