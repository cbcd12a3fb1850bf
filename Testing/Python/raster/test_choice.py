"""The choice of a rasterizer and the sentence that explains it."""

from __future__ import annotations

import numba
import pytest
import torch

from MedGSLib import raster
from MedGSLib.errors import BackendError
from MedGSLib.raster import choose_rasterizer
from MedGSLib.raster.reference import ReferenceRasterizer


def test_the_cpu_when_it_is_asked_for():
    rasterizer, reason = choose_rasterizer("cpu", threads=1)
    assert rasterizer.name == "cpu"
    assert rasterizer.device == "cpu"
    assert reason == "The CPU rasterizer is used with 1 thread (it was asked for)."


def test_threads_stay_within_the_machine():
    rasterizer, _ = choose_rasterizer("cpu", threads=10_000)
    assert rasterizer.threads == numba.config.NUMBA_NUM_THREADS
    assert choose_rasterizer("cpu", threads=0)[0].threads >= 1


def test_auto_without_a_gpu_says_why(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rasterizer, reason = choose_rasterizer("auto", threads=1)
    assert rasterizer.name == "cpu"
    assert "CUDA" in reason


def test_an_explicit_gpu_that_is_missing_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match="The GPU cannot be used: .*CUDA"):
        choose_rasterizer("cuda")


def test_an_unknown_device_is_an_error():
    with pytest.raises(BackendError, match="auto, cuda or cpu, not 'tpu'"):
        choose_rasterizer("tpu")


def test_the_reference_steps_in_without_numba(monkeypatch):
    monkeypatch.setattr(raster, "HAS_NUMBA", False)
    rasterizer, reason = choose_rasterizer("cpu")
    assert isinstance(rasterizer, ReferenceRasterizer)
    assert "numba is not installed" in reason


def test_existing_gaussians_are_rendered_where_their_blending_can_be_done():
    rasterizer, reason = choose_rasterizer("auto", threads=1, blending="normalized")
    assert rasterizer.name == "cpu"
    assert "cannot do the blending 'normalized'" in reason
    with pytest.raises(BackendError, match="cannot do the blending 'normalized'; the CPU can"):
        choose_rasterizer("cuda", blending="normalized")
