"""Slice profiles on the sub-slice grid: odd and even factors, gaps and overlaps."""

from __future__ import annotations

import numpy as np
import pytest

from MedGSLib.errors import InputError
from MedGSLib.prior.profile import SliceProfile


@pytest.mark.parametrize(
    ("profile", "factor", "offsets", "weights"),
    [
        (SliceProfile(), 4, [0], [1]),
        (SliceProfile("box", 1.0), 3, [-1, 0, 1], [1 / 3] * 3),
        (SliceProfile("box", 1.0), 4, [-2, -1, 0, 1, 2], [1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8]),
        (SliceProfile("box", 0.6), 5, [-1, 0, 1], [1 / 3] * 3),
        (SliceProfile("box", 2.0), 3, [-3, -2, -1, 0, 1, 2, 3], [1 / 12, 1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 12]),
        (SliceProfile("box", 0.2), 3, [0], [1]),
    ],
)
def test_weights(profile, factor, offsets, weights):
    got_offsets, got_weights = profile.weights(factor)
    np.testing.assert_array_equal(got_offsets, offsets)
    np.testing.assert_allclose(got_weights, weights, atol=1e-9)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
@pytest.mark.parametrize("width", [0.5, 1.0, 1.7])
def test_gaussian_has_the_asked_width(factor, width):
    offsets, weights = SliceProfile("gaussian", width).weights(factor)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights, weights[::-1])
    sigma = width * factor / 2.3548
    assert np.sum(weights * offsets**2) == pytest.approx(sigma**2 * 0.91 + 1 / 12, rel=0.08)


@pytest.mark.parametrize(("profile", "factor", "expected"), [
    (SliceProfile("box", 1.0), 3, True), (SliceProfile("box", 1.0), 4, False), (SliceProfile("box", 0.6), 5, False),
    (SliceProfile("gaussian", 1.0), 3, False), (SliceProfile(), 3, False),
])  # fmt: skip
def test_tiles_exactly(profile, factor, expected):
    assert profile.tiles_exactly(factor) is expected


@pytest.mark.parametrize("arguments", [("box", 0.0), ("gaussian", float("nan")), ("box", 20.0), ("triangle", 1.0)])
def test_nonsense_is_refused(arguments):
    with pytest.raises(InputError):
        SliceProfile(*arguments)
