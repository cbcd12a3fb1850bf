"""Dense rendering is the same in chunks of any size, and shrinks its chunks when a GPU is short of memory."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from MedGSLib import render as module
from MedGSLib.errors import Cancelled, ResourceError
from MedGSLib.gaussians import FoldedGaussians, FoldSettings
from MedGSLib.progress import Reporter
from MedGSLib.raster import render_slices
from MedGSLib.raster.cpu import CpuRasterizer
from MedGSLib.render import render_chunks, render_dense

COORDINATES = np.linspace(0.0, 6.0, 13)
SIZE = (12, 17)


@pytest.fixture
def gaussians() -> FoldedGaussians:
    generator = torch.Generator().manual_seed(0)
    count = 60

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    return FoldedGaussians(
        center=uniform(count, 2) * torch.tensor([17.0, 12.0]),
        log_scale=uniform(count, 2),
        angle=uniform(count),
        position=6.0 * uniform(count),
        log_spread=torch.zeros(count),
        drift=uniform(count, 1, 2) - 0.5,
        log_weight=torch.zeros(count),
        values=uniform(count, 2),
        settings=FoldSettings(),
    )


@pytest.fixture(scope="module")
def rasterizer() -> CpuRasterizer:
    return CpuRasterizer(1)


def short_of_memory(rasterizer: CpuRasterizer, most: int):
    """A rasterizer that cannot render more than ``most`` slices at once."""
    asked = []

    def rasterize(sliced, *arguments, **settings):
        asked.append(sliced.slices)
        if sliced.slices > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rasterizer.rasterize(sliced, *arguments, **settings)

    return SimpleNamespace(name="short", device="cpu", blendings=rasterizer.blendings, rasterize=rasterize), asked


def test_dense_is_what_the_rasterizer_gives_with_heads_first(gaussians, rasterizer):
    with torch.no_grad():
        features, _ = render_slices(gaussians, torch.from_numpy(COORDINATES).float(), *SIZE, rasterizer)
    dense = render_dense(gaussians, COORDINATES, SIZE, rasterizer)
    assert dense.dtype == np.float32 and dense.flags.c_contiguous
    np.testing.assert_array_equal(dense, features.permute(0, 3, 1, 2).numpy())


@pytest.mark.parametrize("slices", [1, 4, 13, 100])
def test_chunks_cover_every_slice_once_and_agree(gaussians, rasterizer, slices):
    whole = render_dense(gaussians, COORDINATES, SIZE, rasterizer)
    chunk_bytes = slices * 4 * SIZE[0] * SIZE[1] * 3 * 2
    parts = list(render_chunks(gaussians, COORDINATES, SIZE, rasterizer, chunk_bytes=chunk_bytes))
    assert len(parts) == -(-13 // min(slices, 13))
    assert [part.start for part, _ in parts] == list(range(0, 13, min(slices, 13)))
    np.testing.assert_array_equal(np.concatenate([values for _, values in parts]), whole)


def test_chunks_shrink_when_gpu_memory_is_short(gaussians, rasterizer):
    short, asked = short_of_memory(rasterizer, 3)
    np.testing.assert_array_equal(render_dense(gaussians, COORDINATES, SIZE, short), render_dense(gaussians, COORDINATES, SIZE, rasterizer))
    assert asked[0] == 13 and max(asked[asked.index(3) if 3 in asked else -5 :]) <= 3


def test_a_slice_that_does_not_fit_is_a_sentence(gaussians, rasterizer, monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "mem_get_info", lambda: (5 * 2**20, 10 * 2**20))
    with pytest.raises(ResourceError, match="5 MB are free"):
        render_dense(gaussians, COORDINATES, SIZE, short_of_memory(rasterizer, 0)[0])


def test_rendering_can_be_cancelled(gaussians, rasterizer):
    reporter = Reporter(lambda event: event.stage != "render")
    with pytest.raises(Cancelled):
        render_dense(gaussians, COORDINATES, SIZE, rasterizer, reporter)
