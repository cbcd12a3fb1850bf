"""The vector operations of the CPU kernels."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest

from MedGSLib.raster import lanes
from MedGSLib.raster.interface import TRUNCATION


def test_the_polynomial_gaussian_is_exact_to_float32_and_truncated():
    evaluate = numba.njit(lambda q: lanes.truncated_gaussian(q))
    for q in np.linspace(0.0, TRUNCATION - 1e-4, 400, dtype=np.float32):
        assert float(evaluate(q)) == pytest.approx(math.exp(-float(q) / 2), rel=3e-6)
    assert float(evaluate(np.float32(TRUNCATION + 1e-4))) == 0.0
    assert float(evaluate(np.float32(1e30))) == 0.0
    assert float(evaluate(np.float32(np.inf))) == 0.0


def test_block_operations():
    generator = np.random.default_rng(0)
    left, right, target = (generator.normal(size=3 * lanes.LANES).astype(np.float32) for _ in range(3))

    @numba.njit
    def operate(target, left, right):
        lanes.add_scaled(target, 3, left, 5, np.float32(2.5))
        lanes.add_product(target, 7, left, 1, right, 2)
        lanes.copy_block(target, 2 * lanes.LANES, right, 0)

    expected = target.astype(np.float64)
    n = lanes.LANES
    expected[3 : 3 + n] += 2.5 * left[5 : 5 + n]
    expected[7 : 7 + n] += left[1 : 1 + n].astype(np.float64) * right[2 : 2 + n]
    expected[2 * n : 3 * n] = right[:n]
    operate(target, left, right)
    assert np.allclose(target, expected, atol=1e-6)


def test_kernels_compile_where_nothing_can_be_cached(monkeypatch, tmp_path):
    def refuse(*_arguments, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(**options)

    monkeypatch.setattr(lanes, "njit", refuse)
    doubled = lanes.compiled()(lambda value: value * 2)
    assert doubled(21) == 42


def test_the_cache_folder_follows_the_sources_and_the_setting_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    lanes.compiled()(lambda value: value)
    assert str(tmp_path) == numba.config.CACHE_DIR
    assert lanes._cache_folder().parent == tmp_path
