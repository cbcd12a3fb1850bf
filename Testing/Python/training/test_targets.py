"""Training targets refuse arrays that do not belong together and say what is used of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest


def test_shape_and_heads_are_those_of_the_arrays(targets):
    assert targets.size == (20, 24)
    assert targets.channels == 2


def test_slices_without_any_weight_are_not_used(targets):
    weights = targets.weights.copy()
    weights[3] = 0.0
    weights[5] = (0.0, 0.2)
    assert replace(targets, weights=weights).used.tolist() == [0, 1, 2, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("coordinates", np.arange(8.0)), ("weights", np.ones((9, 3), np.float32)), ("acquired", np.ones(8, bool))],
)
def test_arrays_that_disagree_are_refused(targets, name, wrong):
    with pytest.raises(ValueError, match="disagree"):
        replace(targets, **{name: wrong})
