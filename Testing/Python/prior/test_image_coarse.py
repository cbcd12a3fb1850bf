"""Coarse pixels keep their places, and large structures that move far between slices are found on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedGSLib.prior.image import image_prior
from MedGSLib.prior.image_coarse import coarse_share, coarse_steps, coarsened, mix_in_coarse, refined
from MedGSLib.prior.image_config import PriorConfig
from MedGSLib.prior.profile import SliceProfile

QUICK = PriorConfig(iterations=10, flow_share=0.1)


def moving_ball(slices: int, side: int = 72, row_step: float = 1.0) -> np.ndarray:
    """A soft ball that wanders by 3 columns a slice, on a slanted background."""
    z, y, x = np.mgrid[0:slices, 0:side, 0:side].astype(np.float32)
    distance = np.hypot((y - side / 2) * row_step, x - side / 3 - 3.0 * (z - slices / 2))
    return (1 / (1 + np.exp((distance - side / 5) / 2)) + 0.002 * y).astype(np.float32)


@pytest.mark.parametrize(
    ("gaps", "shape", "steps"),
    [
        ((9.0, 9.0), (5, 100, 100), None),
        ((16.0, 16.0), (5, 100, 100), (2.0, 2.0)),
        ((20.0, 6.0), (5, 100, 100), (2.5, 1.0)),
        ((16.0, 16.0), (5, 100, 40), None),
    ],
)
def test_only_wide_gaps_in_slices_that_are_large_enough_are_coarsened(gaps, shape, steps) -> None:
    assert coarse_steps(gaps, shape) == steps


def test_the_coarse_share_rises_with_the_gap() -> None:
    shares = [coarse_share((gap, gap)) for gap in (8.0, 12.0, 20.0, 24.0, 60.0)]
    assert shares == sorted(shares) and (shares[0], shares[-2], shares[-1]) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize("steps", [(2.0, 2.0), (2.7, 3.3), (1.0, 2.5)])
def test_pixels_keep_their_places(steps) -> None:
    """A ramp, whose value is its place, comes back as it was away from the borders."""
    ramp = np.mgrid[0:61, 0:75].sum(axis=0)[None].astype(np.float32)
    coarse = coarsened(ramp, steps)
    rows, columns = (np.arange(side) * step for side, step in zip(coarse.shape[1:], steps, strict=True))
    inner = (slice(None), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(coarse[inner], np.add.outer(rows, columns)[None][inner], atol=0.05)
    back = refined(coarse, steps, ramp.shape[1:])
    inner = (slice(None), slice(12, -12), slice(12, -12))
    np.testing.assert_allclose(back[inner], ramp[inner], atol=0.05)


def test_nothing_is_added_where_both_predictions_are_true() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((5, 50, 60)).astype(np.float32)
    coarse = coarsened(image, (2.0, 2.5))
    coarse[1:-1] += 0.3
    mixed, spread = image.copy(), np.zeros_like(image)
    mix_in_coarse(mixed, spread, coarse, (2.0, 2.5), 0.5)
    np.testing.assert_array_equal(mixed[[0, -1]], image[[0, -1]])
    np.testing.assert_allclose(mixed[1:-1] - image[1:-1], 0.15, atol=1e-4)
    np.testing.assert_allclose(spread[1:-1], 0.3, atol=1e-4)


def test_large_structures_across_wide_gaps_come_nearer_to_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = moving_ball(13)
    whole = image_prior(truth[::4], 4, (20.0, 20.0), QUICK)
    assert whole.report["coarse"]["steps"] == (2.5, 2.5) and whole.report["coarse"]["method"] == "learned"
    monkeypatch.setattr("MedGSLib.prior.image_coarse.WIDE_GAP_PX", 100.0)
    plain = image_prior(truth[::4], 4, (20.0, 20.0), QUICK)
    assert "coarse" not in plain.report
    np.testing.assert_array_equal(whole.image[::4], truth[::4])
    assert not whole.disagreement[::4].any()
    errors = [float(np.mean(np.square(prior.image - truth))) for prior in (whole, plain)]
    assert errors[0] < 0.95 * errors[1]


def test_thick_slices_stay_consistent() -> None:
    truth = moving_ball(20)
    slices = truth.reshape(5, 4, *truth.shape[1:]).mean(axis=1)
    config = PriorConfig(channels=8, depth=4, iterations=10, draft_iterations=5)
    prior = image_prior(slices, 3, (18.0, 18.0), config, SliceProfile("box", 1.0))
    assert "coarse" in prior.report
    inner = prior.image[2:-2].reshape(-1, 3, *truth.shape[1:]).mean(axis=1)
    np.testing.assert_allclose(inner, slices[1:-1], atol=2e-3)


def test_a_stored_state_holds_both_networks() -> None:
    truth = moving_ball(13)
    first = image_prior(truth[::3], 3, (20.0, 20.0), QUICK)
    resumed = image_prior(truth[::3], 3, (20.0, 20.0), replace(QUICK, seed=9), state=first.state)
    np.testing.assert_allclose(resumed.image, first.image, atol=1e-5)
