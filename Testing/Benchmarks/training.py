"""How fast a fit converges: seconds to within 0.1 dB of the final PSNR on slices that were left out, and time per training step.

    python Testing/Benchmarks/training.py [--device auto|cuda|cpu] [--threads N] [--preset NAME] [--image FILE] [--every 3] [--json FILE]

Without ``--image`` the case is the synthetic aneurysm. The prior's time is given apart: it is spent once, before the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from MedGSLib.config import preset_config
from MedGSLib.gaussians import FoldedGaussians
from MedGSLib.io.stack import build_stack, load_stack
from MedGSLib.metrics import mean_psnr
from MedGSLib.phantom import Acquisition, make_aneurysm
from MedGSLib.preparation import prepare
from MedGSLib.progress import Reporter
from MedGSLib.raster import Rasterizer, choose_rasterizer
from MedGSLib.reconstruct import fold_for
from MedGSLib.render import render_dense
from MedGSLib.start import start_gaussians
from MedGSLib.training.fit import fit
from MedGSLib.volume import SliceStack

CHECK_EVERY = 10
CLOSE_DB = 0.1


@dataclass(frozen=True)
class Mark:
    """Left-out PSNR after some iterations; seconds of fitting alone."""

    iteration: int
    wall_s: float
    cpu_s: float
    psnr_db: float


class Watch:
    """Marks the progress of a fit; its own work is not counted."""

    def __init__(self, truth: NDArray[np.float32], left_out: NDArray[np.int64], size: tuple[int, int], rasterizer: Rasterizer) -> None:
        self.marks: list[Mark] = []
        self._truth, self._left_out, self._size, self._rasterizer = truth, left_out, size, rasterizer
        self._wall = self._cpu = 0.0
        self._resume()

    def _resume(self) -> None:
        self._wall_from, self._cpu_from = time.perf_counter(), time.process_time()

    def __call__(self, iteration: int, gaussians: FoldedGaussians) -> None:
        """The hook of the fit."""
        if iteration % CHECK_EVERY:
            return
        if gaussians.center.is_cuda:
            torch.cuda.synchronize()
        self._wall += time.perf_counter() - self._wall_from
        self._cpu += time.process_time() - self._cpu_from
        dense = render_dense(gaussians, self._left_out.astype(np.float64), self._size, self._rasterizer)[:, 0]
        self.marks.append(Mark(iteration, self._wall, self._cpu, mean_psnr(np.clip(dense, 0, 1), self._truth)))
        self._resume()


def make_stack(image: Path | None) -> SliceStack:
    """The whole stack, of which slices are left out."""
    if image is not None:
        return load_stack(image, None)
    phantom = make_aneurysm(acquisition=Acquisition(size=(128, 128, 61), pixel_mm=0.8, gap_mm=1.6))
    return build_stack(phantom.image, axis="k")


@dataclass(frozen=True)
class Convergence:
    """A finished fit: its marks, and wall and CPU seconds of the prior before it."""

    gaussians: int
    marks: list[Mark]
    prior_wall_cpu_s: tuple[float, float]

    @property
    def close(self) -> Mark:
        """The first mark within 0.1 dB of the last."""
        return next(mark for mark in self.marks if mark.psnr_db >= self.marks[-1].psnr_db - CLOSE_DB)


def measure(options: argparse.Namespace, rasterizer: Rasterizer) -> Convergence:
    """Prepare and fit the case, watching the left-out slices."""
    whole = make_stack(options.image)
    kept = np.arange(0, whole.shape[0], options.every)
    left_out = np.setdiff1d(np.arange(kept[-1]), kept)
    config = preset_config(options.preset, mode="image", scale=options.every, slice_profile="point", threads=options.threads)
    started = time.perf_counter(), time.process_time()
    prepared = prepare(whole.select(kept), config, Reporter())
    prior_s = time.perf_counter() - started[0], time.process_time() - started[1]
    assert whole.image is not None and prepared.window is not None
    low, high = prepared.window
    truth = np.clip((whole.image[left_out] - low) / (high - low), 0, 1)
    device = "cuda" if rasterizer.name == "gsplat_cuda" else "cpu"
    start = start_gaussians(prepared, fold_for(rasterizer, config.fold), None).to(device)
    fit(deepcopy(start), prepared.targets, replace(config.training, iterations=2), rasterizer, Reporter())  # compiles the kernels
    watch = Watch(truth, left_out, prepared.targets.size, rasterizer)
    fitted, _ = fit(start, prepared.targets, config.training, rasterizer, Reporter(), on_iteration=watch)
    return Convergence(len(fitted), watch.marks, prior_s)


def main() -> None:
    """Fit, show the convergence and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console(width=120)
    rasterizer, reason = choose_rasterizer(options.device, options.threads)
    console.log(reason)
    found = measure(options, rasterizer)
    table = Table(title=f"{options.preset}: {found.gaussians} Gaussians")
    for column in ("", "iteration", "wall s", "CPU s", "PSNR dB"):
        table.add_column(column, justify="right")
    for name, mark in ((f"within {CLOSE_DB} dB", found.close), ("end", found.marks[-1])):
        table.add_row(name, str(mark.iteration), f"{mark.wall_s:.2f}", f"{mark.cpu_s:.2f}", f"{mark.psnr_db:.2f}")
    console.print(table)
    step_ms = 1e3 * found.marks[-1].cpu_s / found.marks[-1].iteration
    wall_s, cpu_s = found.prior_wall_cpu_s
    console.print(f"one training step: {step_ms:.1f} CPU-ms; prior: {wall_s:.1f} s wall, {cpu_s:.1f} s CPU")
    if options.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        record = {"date": date.today().isoformat(), "machine": machine, "backend": reason, "cpu_ms_per_step": step_ms, **asdict(found)}
        options.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
