"""Dense rendering of fitted Gaussians in chunks that fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from MedGSLib.errors import ResourceError
from MedGSLib.gaussians import FoldedGaussians
from MedGSLib.progress import Reporter
from MedGSLib.raster import Rasterizer, render_slices

logger = logging.getLogger(__name__)

CHUNK_BYTES = 256 * 2**20


def render_chunks(
    gaussians: FoldedGaussians,
    coordinates: NDArray[np.float64],
    size: tuple[int, int],
    rasterizer: Rasterizer,
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Render slices a chunk at a time; on a GPU that runs out of memory the chunks become smaller.

    :param coordinates: (T,) stack coordinates in the Gaussians' unit.
    :param size: (H, W).
    :param chunk_bytes: memory for the features of one chunk.
    :return: pairs of a slice into T and float32 (t, C, H, W).
    :raises ResourceError: when not even one slice fits into GPU memory.
    """
    height, width = size
    per_slice = 4 * height * width * (gaussians.channels + 1) * 2
    chunk = max(1, chunk_bytes // per_slice)
    start = 0
    while start < len(coordinates):
        part = slice(start, min(start + chunk, len(coordinates)))
        t = torch.from_numpy(coordinates[part]).to(gaussians.center.device, torch.float32)
        try:
            with torch.no_grad():
                features, _ = render_slices(gaussians, t, height, width, rasterizer)
            values = features.permute(0, 3, 1, 2).to("cpu").numpy()
        except torch.cuda.OutOfMemoryError as error:
            if chunk == 1:
                raise ResourceError(_memory_sentence(per_slice)) from error
            torch.cuda.empty_cache()
            chunk = max(1, chunk // 2)
            logger.warning("GPU memory is short; rendering %d slices at a time.", chunk)
            continue
        yield part, np.ascontiguousarray(values)
        start = part.stop


def _memory_sentence(needed_bytes: int) -> str:
    free, _ = torch.cuda.mem_get_info()
    needed, left = needed_bytes / 2**20, free / 2**20
    return f"Rendering one slice needs about {needed:.0f} MB of GPU memory and {left:.0f} MB are free; use the CPU or crop."


def render_dense(
    gaussians: FoldedGaussians,
    coordinates: NDArray[np.float64],
    size: tuple[int, int],
    rasterizer: Rasterizer,
    reporter: Reporter | None = None,
) -> NDArray[np.float32]:
    """All slices at once, float32 (T, C, H, W)."""
    reporter = reporter or Reporter()
    reporter.start("render", len(coordinates))
    dense = np.empty((len(coordinates), gaussians.channels, *size), dtype=np.float32)
    for part, values in render_chunks(gaussians, coordinates, size, rasterizer):
        dense[part] = values
        reporter.step(part.stop)
    return dense
