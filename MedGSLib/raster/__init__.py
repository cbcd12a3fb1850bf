"""Rasterizer backends behind one interface, and the choice between them."""

from __future__ import annotations

import os

from torch import Tensor

from MedGSLib.errors import BackendError
from MedGSLib.gaussians import HAS_NUMBA, FoldedGaussians
from MedGSLib.raster.gsplat_cuda import GsplatRasterizer, gsplat_status
from MedGSLib.raster.interface import Rasterizer

__all__ = ["Rasterizer", "choose_rasterizer", "gsplat_status", "render_slices"]


def choose_rasterizer(device: str = "auto", threads: int | None = None, blending: str | None = None) -> tuple[Rasterizer, str]:
    """The backend to use and why, in one sentence.

    :param device: "auto", "cuda" or "cpu".
    :param threads: threads of the CPU kernels; None for all that the process may use.
    :param blending: blending that the backend has to do, for Gaussians that exist already; None for any.
    :raises BackendError: when "cuda" is asked for and cannot be had, or the device is unknown.
    """
    if device not in ("auto", "cuda", "cpu"):
        raise BackendError(f"The device must be auto, cuda or cpu, not {device!r}.")
    if device == "cpu":
        return _cpu_rasterizer(threads, "it was asked for")
    try:
        rasterizer = GsplatRasterizer(blending=blending)
    except BackendError as error:
        if device == "cuda":
            raise BackendError(f"The GPU cannot be used: {error}") from error
        return _cpu_rasterizer(threads, str(error).rstrip("."))
    return rasterizer, f"The GPU rasterizer is used: {gsplat_status()[1]}"


def _cpu_rasterizer(threads: int | None, reason: str) -> tuple[Rasterizer, str]:
    if not HAS_NUMBA:
        from MedGSLib.raster.reference import ReferenceRasterizer

        return ReferenceRasterizer(), f"The slow reference rasterizer is used, because numba is not installed ({reason})."
    import numba

    from MedGSLib.raster.cpu import CpuRasterizer

    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = max(1, min(threads or available, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    return CpuRasterizer(count), f"The CPU rasterizer is used with {count} thread{'s' if count > 1 else ''} ({reason})."


def render_slices(gaussians: FoldedGaussians, t: Tensor, height: int, width: int, rasterizer: Rasterizer) -> tuple[Tensor, Tensor]:
    """Features (S, height, width, C) and weight (S, height, width) of the slices at t (S,), by the settings of the Gaussians."""
    settings = gaussians.settings
    return rasterizer.rasterize(
        gaussians.at(t), height, width, blending=settings.blending, epsilon=settings.epsilon, background=settings.background
    )
