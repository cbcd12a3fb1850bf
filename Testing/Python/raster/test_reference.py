"""The reference rasterizer against formulas worked out pixel by pixel, and its gradients against differences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from MedGSLib.gaussians import SlicedGaussians
from MedGSLib.raster.interface import TRUNCATION
from MedGSLib.raster.reference import ReferenceRasterizer


def pairs(center, conic, weight, values) -> SlicedGaussians:
    """All pairs in one slice, float64."""
    count = len(weight)
    return SlicedGaussians(
        slice_start=torch.tensor([0, count]),
        slice_index=torch.zeros(count, dtype=torch.int64),
        gaussian_index=torch.arange(count),
        center=torch.tensor(center, dtype=torch.float64),
        conic=torch.tensor(conic, dtype=torch.float64),
        weight=torch.tensor(weight, dtype=torch.float64),
        values=torch.tensor(values, dtype=torch.float64),
    )


def render(sliced, blending, height=7, width=9, epsilon=1e-3, background=0.0):
    return ReferenceRasterizer().rasterize(sliced, height, width, blending=blending, epsilon=epsilon, background=background)


def bump(x, y, center, conic):
    dx, dy = x - center[0], y - center[1]
    q = conic[0] * dx * dx + 2 * conic[1] * dx * dy + conic[2] * dy * dy
    return math.exp(-q / 2) if q < TRUNCATION else 0.0


TWO = ([[3.0, 2.5], [5.0, 4.0]], [[0.5, 0.1, 0.3], [0.4, -0.15, 0.6]], [0.7, 0.9], [[1.0, 0.2], [0.3, 0.8]])


def test_normalized_is_the_weighted_mean_of_every_pixel():
    features, weight = render(pairs(*TWO), "normalized", background=0.5)
    for y in range(7):
        for x in range(9):
            heights = [w * bump(x, y, c, k) for c, k, w in zip(*TWO[:3], strict=True)]
            expected = (heights[0] * 0.2 + heights[1] * 0.8 + 1e-3 * 0.5) / (sum(heights) + 1e-3)
            assert float(weight[0, y, x]) == pytest.approx(sum(heights), abs=1e-12)
            assert float(features[0, y, x, 1]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("blending", ["alpha", "alpha_normalized"])
def test_alpha_composites_in_index_order(blending):
    features, weight = render(pairs(*TWO), blending, background=0.5)
    for y in range(7):
        for x in range(9):
            alphas = [w * bump(x, y, c, k) for c, k, w in zip(*TWO[:3], strict=True)]
            first, second = (alpha if alpha >= 1 / 255 else 0.0 for alpha in alphas)
            total = first + (1 - first) * second
            composite = first * 1.0 + (1 - first) * second * 0.3
            expected = composite + 0.5 * (1 - total) if blending == "alpha" else (composite + 1e-3 * 0.5) / (total + 1e-3)
            assert float(weight[0, y, x]) == pytest.approx(total, abs=1e-12)
            assert float(features[0, y, x, 0]) == pytest.approx(expected, abs=1e-12)


def test_alpha_is_clamped_below_one():
    sliced = pairs([[2.0, 2.0]], [[0.5, 0.0, 0.5]], [5.0], [[1.0]])
    _, weight = render(sliced, "alpha")
    assert float(weight[0, 2, 2]) == pytest.approx(0.999)


def test_a_pixel_closes_before_the_gaussian_that_would_use_up_its_light():
    wide = [[1e-9, 0.0, 1e-9]]
    sliced = pairs([[2.0, 2.0]] * 4, wide * 4, [0.9, 0.99, 0.95, 0.5], [[1.0], [10.0], [100.0], [1000.0]])
    features, weight = render(sliced, "alpha")
    assert float(features[0, 0, 0, 0]) == pytest.approx(0.9 + 0.1 * 0.99 * 10.0)
    assert float(weight[0, 0, 0]) == pytest.approx(1 - 0.1 * 0.01)


def test_beyond_the_truncation_there_is_only_background():
    sliced = pairs([[0.0, 0.0]], [[1.0, 0.0, 1.0]], [1.0], [[1.0]])
    features, weight = render(sliced, "normalized", background=0.25)
    reach = math.sqrt(TRUNCATION)
    for x in range(9):
        assert bool(weight[0, 0, x] > 0) == (x < reach)
    assert float(features[0, 6, 8, 0]) == pytest.approx(0.25)


@pytest.mark.parametrize("blending", ["normalized", "alpha", "alpha_normalized"])
def test_gradients_by_differences(blending):
    sliced = pairs(
        [[2.2, 1.7], [3.4, 3.1], [1.1, 3.6]],
        [[0.21, 0.04, 0.33], [0.17, -0.06, 0.26], [0.3, 0.1, 0.2]],
        [0.6, 0.8, 0.35],
        [[0.4, 1.0], [0.9, -0.2], [0.1, 0.5]],
    )

    def rasterize(center, conic, weight, values):
        changed = replace(sliced, center=center, conic=conic, weight=weight, values=values)
        return render(changed, blending, height=5, width=6, background=0.3)

    leaves = [getattr(sliced, name).clone().requires_grad_() for name in ("center", "conic", "weight", "values")]
    assert torch.autograd.gradcheck(rasterize, leaves, eps=1e-7, atol=1e-6)
