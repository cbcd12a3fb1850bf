from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from MedGSLib.prior.mask_distance import slice_signed_distances
from MedGSLib.prior.mask_features import Likelihood, Predictor, patch_votes
from MedGSLib.prior.mask_motion import Carried, MotionChain

SIZE = 48


def texture(seed: int) -> np.ndarray:
    return gaussian_filter(np.random.default_rng(seed).random((SIZE, SIZE)), 1.0).astype(np.float32)


def disc(radius: float, column: float = 24.0) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return (radius - np.hypot(y - 24.0, x - column)).astype(np.float32)


def test_votes_undo_a_shift_that_the_motion_missed() -> None:
    image = texture(0)
    missed = Carried(np.roll(disc(10), 2, axis=1), np.roll(image, 2, axis=1), np.zeros((2, SIZE, SIZE), np.float32))
    inner = (slice(6, -6), slice(6, -6))
    occupancy, distance = patch_votes(image, (missed,))
    truth = disc(10) > 0
    wrong = np.count_nonzero(((occupancy > 0) != truth)[inner])
    assert wrong < 0.1 * np.count_nonzero(((missed.distances > 0) != truth)[inner])
    assert np.count_nonzero(((distance > 0) != truth)[inner]) < 0.1 * np.count_nonzero(((missed.distances > 0) != truth)[inner])


def test_votes_without_anything_to_see_are_the_mean_of_the_places_around() -> None:
    flat = np.zeros((SIZE, SIZE), np.float32)
    ramp = np.tile(np.clip(np.arange(SIZE) - 24.0, -5, 5), (SIZE, 1)).astype(np.float32)
    _, distance = patch_votes(flat, (Carried(ramp, flat, np.zeros((2, SIZE, SIZE), np.float32)),))
    assert np.allclose(distance[:, 24], 0.0, atol=1e-5) and np.allclose(distance[:, 22], -2.0, atol=1e-5)


def test_the_likelihood_tells_what_is_brighter_inside() -> None:
    distances = disc(12)[None]
    likelihood = Likelihood(np.where(distances > 0, 0.8, 0.2).astype(np.float32), distances)
    assert likelihood(np.array([0.8], np.float32))[0] > 1 and likelihood(np.array([0.2], np.float32))[0] < -1


def test_distances_are_shown_larger_the_nearer_an_annotated_slice_is() -> None:
    image = np.repeat(texture(1)[None], 9, axis=0)
    chosen = np.array([0, 4, 8])
    distances = slice_signed_distances(np.repeat(disc(9)[None] > 0, 3, axis=0))
    chain = MotionChain(image, chosen, distances)
    predictor = Predictor(image, chosen, distances, np.arange(9.0), (1.0, 1.0), chain)
    near, middle, left_out = (predictor.features(*where) for where in ((1, 0, 1), (2, 0, 1), (4, 0, 2)))
    assert np.allclose(near[..., Predictor.FLOW], 2.0 * left_out[..., Predictor.FLOW], atol=1e-4)
    assert np.allclose(middle[..., Predictor.FLOW], np.sqrt(2.0) * left_out[..., Predictor.FLOW], atol=1e-4)
