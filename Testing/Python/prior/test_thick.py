"""Thick slices: the averaging operator, consistency with it, and a prior that is trained for it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from MedGSLib.baselines.masks import interpolate_linear
from MedGSLib.prior.image import PriorConfig, image_prior
from MedGSLib.prior.mask_distance import SOFT_WIDTH_PX, slice_signed_distances
from MedGSLib.prior.profile import SliceProfile
from MedGSLib.prior.thick import ProfileOperator, back_project, filled_as_annotated

PROFILES = [
    (SliceProfile("box", 1.0), 3), (SliceProfile("box", 1.0), 4), (SliceProfile("box", 0.6), 5),
    (SliceProfile("box", 1.4), 3), (SliceProfile("gaussian", 1.0), 4),
]  # fmt: skip


@pytest.fixture(scope="module")
def truth():
    field = gaussian_filter(np.random.default_rng(5).normal(size=(61, 48, 52)), 1.6)
    return (0.5 + np.tanh(3 * field / field.std()) / 3).astype(np.float32)


def test_average_is_the_mean_of_the_covered_sub_slices(truth):
    thick = ProfileOperator(SliceProfile("box", 1.0), 20, 3, margin=1).average(truth[:60])
    np.testing.assert_allclose(thick, truth[:60].reshape(20, 3, 48, 52).mean(1), atol=1e-5)


def test_point_profile_picks_the_centres(truth):
    np.testing.assert_allclose(ProfileOperator(SliceProfile(), 16, 4).average(truth), truth[::4], atol=1e-6)


@pytest.mark.parametrize(("profile", "factor"), PROFILES)
def test_back_projection_reaches_consistency(profile, factor, truth):
    count = 60 // factor + 1
    volume = truth[: (count - 1) * factor + 1]
    operator = ProfileOperator(profile, count, factor)
    slices = operator.average(volume)
    start = operator.spread(slices)
    result = back_project(start, slices, profile, factor)
    before, after = (np.sqrt(np.mean((operator.average(v) - slices) ** 2)) for v in (start, result))
    assert after < 0.25 * before
    assert np.mean((result - volume) ** 2) < 1.01 * np.mean((start - volume) ** 2)


@pytest.mark.parametrize(("profile", "factor"), PROFILES)
def test_prior_is_consistent_and_beats_interpolation(profile, factor, truth):
    count = 60 // factor + 1
    volume = truth[: (count - 1) * factor + 1]
    operator = ProfileOperator(profile, count, factor)
    slices = operator.average(volume)
    config = PriorConfig(channels=16, depth=4, iterations=60, draft_iterations=40)
    prior = image_prior(slices, factor, (float(factor), float(factor)), config, profile)
    assert prior.image.shape == volume.shape == prior.disagreement.shape
    assert prior.report["consistency_rms"] < 0.02 * slices.std()
    inside = slice(factor, -factor)
    spline = back_project(operator.spread(slices), slices, profile, factor)
    assert np.mean((prior.image - volume)[inside] ** 2) < np.mean((spline - volume)[inside] ** 2)


@pytest.mark.parametrize("method", ["flow", "linear"])
def test_other_methods_are_made_consistent_too(method, truth):
    profile = SliceProfile("box", 1.0)
    operator = ProfileOperator(profile, 21, 3)
    slices = operator.average(truth)
    prior = image_prior(slices, 3, (3.0, 3.0), PriorConfig(method=method), profile)
    assert np.sqrt(np.mean((operator.average(prior.image) - slices) ** 2)) < 0.05 * slices.std()


@pytest.mark.parametrize("shape", [(2, 30, 30), (3, 6, 40), (2, 4, 4)])
def test_small_thick_stacks(shape):
    slices = np.random.default_rng(0).random(shape).astype(np.float32)
    prior = image_prior(slices, 3, (3.0, 3.0), PriorConfig(channels=8, depth=3, iterations=4, draft_iterations=3), SliceProfile("box", 1.0))
    assert prior.image.shape == ((shape[0] - 1) * 3 + 1, *shape[1:])
    assert np.isfinite(prior.image).all()


def slabs_of_a_plate(factor: int, width: float, slope: float):
    """A tilted plate, rows 1.5 columns apart: what fills its thin slices, the shares of its slabs, and distances through these."""
    count = 8
    t, y, x = np.meshgrid(np.arange((count - 1) * factor + 1) / factor, np.arange(26) * 1.5, np.arange(44.0), indexing="ij")
    within = np.minimum(15.0 - np.hypot(y - 18.2, x - 21.4), 8.0 * (0.6 - np.abs(t - 3.3 - slope * (x - 21.4))))
    filled = np.clip(0.5 + within / SOFT_WIDTH_PX, 0.0, 1.0).astype(np.float32)
    profile = SliceProfile("box", width)
    shares = ProfileOperator(profile, count, factor).average(filled)
    known = slice_signed_distances(shares, None, (1.5, 1.0))
    return profile, filled, shares, interpolate_linear(known, np.arange(count), np.arange(len(filled)) / factor)


def wrong_share(distances: np.ndarray, shares: np.ndarray, profile: SliceProfile, factor: int) -> float:
    filled = np.clip(0.5 + distances / SOFT_WIDTH_PX, 0.0, 1.0)
    return float(np.abs(ProfileOperator(profile, len(shares), factor).average(filled) - shares).mean())


@pytest.mark.parametrize(("factor", "width", "slope"), [(3, 1.0, 0.04), (5, 1.0, 0.0), (4, 1.0, 0.06), (4, 0.7, 0.03)])
def test_partial_volume_masks_are_filled_to_their_shares(factor, width, slope):
    profile, filled, shares, start = slabs_of_a_plate(factor, width, slope)
    found = filled_as_annotated(start, shares, np.ones(8, bool), profile, factor)
    assert found.dtype == np.float32 and found.shape == start.shape
    assert wrong_share(found, shares, profile, factor) < 0.35 * wrong_share(start, shares, profile, factor)
    wrong = [int(np.count_nonzero((distances > 0) != (filled > 0.5))) for distances in (start, found)]
    assert wrong[1] < 0.7 * wrong[0]
    assert abs((found > 0).sum() - (filled > 0.5).sum()) < 0.5 * abs((start > 0).sum() - (filled > 0.5).sum())


def test_a_flipped_mask_is_filled_the_same():
    profile, _, shares, start = slabs_of_a_plate(3, 1.0, 0.04)
    believed = np.arange(8) != 2
    found = filled_as_annotated(start, shares, believed, profile, 3)
    for axis in range(3):
        flipped = believed[::-1] if axis == 0 else believed
        again = filled_as_annotated(np.flip(start, axis), np.flip(shares, axis), flipped, profile, 3)
        np.testing.assert_allclose(again, np.flip(found, axis), atol=1e-3)


def test_slices_without_an_annotation_fill_nothing():
    profile, _, shares, start = slabs_of_a_plate(3, 1.0, 0.04)
    believed = np.arange(8) != 3
    nonsense = shares.copy()
    nonsense[3] = 0.7
    found, other = (filled_as_annotated(start, part, believed, profile, 3) for part in (shares, nonsense))
    np.testing.assert_array_equal(found, other)
