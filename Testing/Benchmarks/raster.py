"""Speed of the rasterizers: nanoseconds per Gaussian-pixel, time per step, and how time and memory grow.

    python Testing/Benchmarks/raster.py [--device auto|cuda|cpu] [--threads N] [--repeats 5] [--json FILE]

A Gaussian-pixel is a pixel inside the truncation ellipse of a (slice, Gaussian) pair, borders of the image not counted off. Nanoseconds
are CPU time of all threads on the CPU and wall time on a GPU; milliseconds are wall time. Each figure is the best of the repeats.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from MedGSLib.gaussians import FoldedGaussians, FoldSettings, SlicedGaussians
from MedGSLib.raster import Rasterizer, choose_rasterizer
from MedGSLib.raster.interface import TRUNCATION
from MedGSLib.raster.reference import ReferenceRasterizer

STACK = 60.0
EPSILON = 1e-3


@dataclass(frozen=True)
class Case:
    """One step: ``slices`` of ``size`` x ``size`` px out of a stack of 60, ``gaussians`` spread evenly in it."""

    slices: int = 8
    size: int = 160
    gaussians: int = 96_000
    heads: int = 1
    blending: str = "normalized"


@dataclass(frozen=True)
class Timing:
    """What a step of a case took on a backend."""

    backend: str
    case: Case
    pairs: int
    gaussian_pixels: float
    forward_ns: float
    backward_ns: float
    fold_ms: float
    step_ms: float
    peak_mib: float | None


SMALL = Case(slices=2, size=64, gaussians=6_000)
BASE = Case()
GROWTH = {
    "slices": [replace(BASE, slices=count) for count in (4, 8, 16)],
    "in-plane size": [replace(BASE, size=size, gaussians=int(96_000 * (size / 160) ** 2)) for size in (80, 160, 320)],
    "Gaussians": [replace(BASE, gaussians=count) for count in (24_000, 96_000, 384_000)],
}
BACKENDS = [SMALL, *(replace(SMALL, blending=blending) for blending in ("alpha", "alpha_normalized")), replace(SMALL, heads=4)]


def make_gaussians(case: Case, device: str) -> FoldedGaussians:
    """Seeded Gaussians as training starts with: their size follows from their density, half overlapping."""
    generator = torch.Generator().manual_seed(0)
    count = case.gaussians
    scale = 0.75 * 0.5 * math.sqrt(case.size**2 * STACK / (count * math.sqrt(2 * math.pi)))
    gaussians = FoldedGaussians(
        center=case.size * torch.rand(count, 2, generator=generator),
        log_scale=math.log(scale) + 0.3 * torch.randn(count, 2, generator=generator),
        angle=math.pi * torch.rand(count, generator=generator),
        position=STACK * torch.rand(count, generator=generator),
        log_spread=torch.zeros(count),
        drift=0.1 * torch.randn(count, 1, 2, generator=generator),
        log_weight=torch.zeros(count),
        values=torch.rand(count, case.heads, generator=generator),
        settings=FoldSettings(blending=case.blending),  # type: ignore[arg-type]
    )
    return gaussians.to(device)


def gaussian_pixels(sliced: SlicedGaussians) -> float:
    """Sum of the areas of the truncation ellipses, px."""
    a, b, c = sliced.conic.detach().double().unbind(1)
    return float((math.pi * TRUNCATION / torch.sqrt(a * c - b * b)).sum())


def best_seconds(work: Callable[[], Any], repeats: int, device: str) -> tuple[float, float]:
    """Wall and CPU seconds of the best of the repeats, after one that is not counted."""
    results = []
    for _ in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        results.append((time.perf_counter() - wall, time.process_time() - cpu))
    walls, cpus = zip(*results[1:], strict=True)
    return min(walls), min(walls) if device == "cuda" else min(cpus)


def peak_mib(work: Callable[[], Any], device: str) -> float | None:
    """Memory that one run adds at its peak, MiB; None where the system does not tell."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None

    def kib(field: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))

    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)
    reset.write_text("5")
    before = kib("VmRSS")
    work()
    return (kib("VmHWM") - before) / 1024


def measure(rasterizer: Rasterizer, case: Case, repeats: int) -> Timing:
    """Time the fold, the rasterizer's two passes alone, and the whole step up to the gradients of the parameters."""
    device = rasterizer.device
    gaussians = make_gaussians(case, device)
    t = torch.linspace(3.0, STACK - 3.0, case.slices, device=device)
    target = torch.rand(case.slices, case.size, case.size, case.heads, device=device)

    def render(sliced: SlicedGaussians) -> Tensor:
        return rasterizer.rasterize(sliced, case.size, case.size, blending=case.blending, epsilon=EPSILON, background=0.0)[0]

    def step() -> None:
        gaussians.zero_grad()
        torch.nn.functional.mse_loss(render(gaussians.at(t)), target).backward()

    cut = gaussians.at(t)
    leaves = {name: getattr(cut, name).detach().requires_grad_() for name in ("center", "conic", "weight", "values")}
    sliced = replace(cut, **leaves)
    rendered = render(sliced)
    pull = torch.rand_like(rendered)
    _, forward = best_seconds(lambda: render(sliced), repeats, device)
    _, backward = best_seconds(lambda: torch.autograd.grad(rendered, list(leaves.values()), pull, retain_graph=True), repeats, device)
    pixels = gaussian_pixels(cut)
    return Timing(
        backend=rasterizer.name,
        case=case,
        pairs=cut.slice_index.numel(),
        gaussian_pixels=pixels,
        forward_ns=forward / pixels * 1e9,
        backward_ns=backward / pixels * 1e9,
        fold_ms=best_seconds(lambda: gaussians.at(t), repeats, device)[0] * 1e3,
        step_ms=best_seconds(step, repeats, device)[0] * 1e3,
        peak_mib=peak_mib(step, device),
    )


def table(title: str, timings: list[Timing]) -> Table:
    """Timings as rows."""
    result = Table(title=title)
    for column in ("backend", "blending", "slices", "px", "Gaussians", "heads", "pairs", "fwd ns", "bwd ns", "fold ms", "step ms", "MiB"):
        result.add_column(column, justify="right")
    for timing in timings:
        case = timing.case
        memory = "-" if timing.peak_mib is None else f"{timing.peak_mib:.0f}"
        counts = (case.slices, case.size, case.gaussians, case.heads, timing.pairs)
        figures = (f"{timing.forward_ns:.2f}", f"{timing.backward_ns:.2f}", f"{timing.fold_ms:.1f}", f"{timing.step_ms:.1f}", memory)
        result.add_row(timing.backend, case.blending, *map(str, counts), *figures)
    return result


def main() -> None:
    """Measure, show the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chosen, reason = choose_rasterizer(options.device, options.threads)
    console = Console(width=140)
    console.log(f"{reason} {platform.machine()}, torch {torch.__version__} with {torch.get_num_threads()} threads.")

    blending = "normalized" if "normalized" in chosen.blendings else "alpha_normalized"
    groups = {"backends": [(rasterizer, case) for case in BACKENDS for rasterizer in (chosen, ReferenceRasterizer())]}
    groups |= {f"growth with {name}": [(chosen, replace(case, blending=blending)) for case in cases] for name, cases in GROWTH.items()}
    results: dict[str, list[Timing]] = {}
    for title, runs in groups.items():
        results[title] = [measure(backend, case, options.repeats) for backend, case in runs if case.blending in backend.blendings]
        console.print(table(title, results[title]))
    if options.json:
        record = {
            "date": date.today().isoformat(),
            "reason": reason,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "torch": torch.__version__,
        }
        timings = {title: [asdict(timing) for timing in group] for title, group in results.items()}
        options.json.write_text(json.dumps({**record, "timings": timings}, indent=1))


if __name__ == "__main__":
    main()
