"""The main job on a graphics card: time of each stage, memory, quality on left-out slices, and the step against the chip's peaks.

    python Testing/Benchmarks/gpu.py [--device auto|cuda|cpu] [--presets fast standard high paper] [--size 256] [--slices 60] [--scale 4]
                                     [--iterations N] [--json FILE]

The case is the synthetic aneurysm scanned with ``slices`` thin slices and, as the truth, ``scale`` times as many; image and mask are fitted
jointly. ``--iterations`` shortens the fits for a trial; such a run says so in its JSON and is no result.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from raster import gaussian_pixels
from rich.console import Console
from rich.table import Table

from MedGSLib.config import preset_config
from MedGSLib.io.stack import build_stack
from MedGSLib.mesh import occupancy_to_mesh
from MedGSLib.metrics import dice, mean_psnr, mean_ssim
from MedGSLib.metrics_surface import surface_distance
from MedGSLib.phantom import Acquisition, make_aneurysm
from MedGSLib.raster import choose_rasterizer
from MedGSLib.reconstruct import Reconstruction, reconstruct
from MedGSLib.report import versions
from MedGSLib.volume import SliceStack

FIELD_MM, HEIGHT_MM = 105.0, 120.0
FLOPS_PER_PIXEL_FORWARD, FLOPS_PER_PIXEL_BACKWARD = 14, 40
"""Operations of one Gaussian in one pixel with two heads: exponent, exponential, blending; and their derivatives."""
PAIR_BYTES = 4 * (2 + 3 + 1 + 2)
"""Centre, conic, weight and two heads of one (slice, Gaussian) pair."""
PEAKS = {"H200": (4.8e12, 67e12), "H100": (3.35e12, 67e12), "A100": (2.0e12, 19.5e12)}
"""Memory bytes/s and single-precision operations/s that the makers state."""


@dataclass(frozen=True)
class Row:
    """One preset on the case."""

    preset: str
    seconds: dict[str, float]
    iterations: int
    steps_per_s: float
    gaussians: int
    psnr_db: float
    ssim: float
    dice: float
    chamfer_mm: float
    peak_memory_mib: float
    gaussian_pixels_per_slice: float
    pairs_per_slice: float


def make_case(size: int, slices: int, scale: int) -> tuple[SliceStack, NDArray[np.int64], SliceStack]:
    """The stack of every ``scale``-th slice, the indices of the others, and the whole stack as the truth."""
    count = (slices - 1) * scale + 1
    gap_mm = HEIGHT_MM / count
    scan = Acquisition(size=(size, size, count), pixel_mm=FIELD_MM / size, gap_mm=gap_mm)
    phantom = make_aneurysm(acquisition=scan)
    truth = build_stack(phantom.image, phantom.labels, phantom.segments, axis="k", margin_mm=None)
    kept = np.arange(0, count, scale)
    return truth.select(kept), np.setdiff1d(np.arange(count), kept), truth


def measure(preset: str, stack: SliceStack, left_out: NDArray[np.int64], truth: SliceStack, options: argparse.Namespace) -> Row:
    """Run one preset and compare it with the truth."""
    cuda = torch.cuda.is_available() and options.device != "cpu"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    config = preset_config(
        preset, scale=options.scale, device=options.device, iterations=options.iterations, self_check=False, slice_profile="point"
    )
    started = time.perf_counter()
    result = reconstruct(stack, config)
    seconds = result.report["timings"] | {"wall_s": time.perf_counter() - started}
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    iterations = result.report["fit"]["iterations"]
    return Row(
        preset=preset,
        seconds=seconds,
        iterations=iterations,
        steps_per_s=iterations / seconds["fit_s"],
        gaussians=len(result.gaussians),
        peak_memory_mib=peak,
        **_quality(result, left_out, truth),
        **_work(result),
    )


def _quality(result: Reconstruction, left_out: NDArray[np.int64], truth: SliceStack) -> dict[str, float]:
    assert truth.image is not None and truth.occupancy is not None and result.image is not None and result.occupancy is not None
    low, high = np.percentile(truth.image, (0.5, 99.5))
    guess, real = (np.clip((image[left_out] - low) / (high - low), 0, 1) for image in (result.image, truth.image))
    reference = occupancy_to_mesh(truth.occupancy[0], truth.index_to_ras(truth.gap_mm))
    return {
        "psnr_db": mean_psnr(guess, real),
        "ssim": mean_ssim(guess, real),
        "dice": dice(result.occupancy[0][left_out] > 0.5, truth.occupancy[0][left_out] > 0.5),
        "chamfer_mm": surface_distance(next(iter(result.meshes.values())), reference).chamfer_mm,
    }


def _work(result: Reconstruction) -> dict[str, float]:
    """Pairs and Gaussian-pixels of an average slice."""
    device = result.gaussians.center.device
    t = torch.linspace(0, len(result.grid) - 1, 8, device=device)
    with torch.no_grad():
        sliced = result.gaussians.at(t)
    return {"gaussian_pixels_per_slice": gaussian_pixels(sliced) / 8, "pairs_per_slice": len(sliced.slice_index) / 8}


def roofline(row: Row, slices_per_step: int, device_name: str) -> dict[str, Any] | None:
    """Least bytes and operations of a training step, and the part of the chip's peaks that the measured steps/s make of them."""
    peaks = next((peaks for name, peaks in PEAKS.items() if name in device_name), None)
    bytes_ = 4 * PAIR_BYTES * row.pairs_per_slice * slices_per_step
    operations = (FLOPS_PER_PIXEL_FORWARD + FLOPS_PER_PIXEL_BACKWARD) * row.gaussian_pixels_per_slice * slices_per_step
    line: dict[str, Any] = {"bytes_per_step": bytes_, "operations_per_step": operations}
    if peaks is not None:
        line |= {
            "part_of_memory_peak": bytes_ * row.steps_per_s / peaks[0],
            "part_of_compute_peak": operations * row.steps_per_s / peaks[1],
        }
    return line


def show(console: Console, rows: list[Row]) -> None:
    """The rows as a table."""
    table = Table(title="main job")
    for column in ("preset", "prior s", "fit s", "render s", "wall s", "steps/s", "Gaussians", "MiB", "PSNR", "SSIM", "Dice", "Chamfer"):
        table.add_column(column, justify="right")
    for row in rows:
        times = (f"{row.seconds[name]:.1f}" for name in ("prior_s", "fit_s", "render_s", "wall_s"))
        quality = (f"{row.psnr_db:.2f}", f"{row.ssim:.4f}", f"{row.dice:.4f}", f"{row.chamfer_mm:.3f}")
        table.add_row(row.preset, *times, f"{row.steps_per_s:.1f}", str(row.gaussians), f"{row.peak_memory_mib:.0f}", *quality)
    console.print(table)


def main() -> None:
    """Measure, show the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--presets", nargs="+", default=["fast", "standard", "high", "paper"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--slices", type=int, default=60)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console(width=150)
    _, reason = choose_rasterizer(options.device)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    console.log(f"{name}. {reason}")
    stack, left_out, truth = make_case(options.size, options.slices, options.scale)
    rows = [measure(preset, stack, left_out, truth, options) for preset in options.presets]
    show(console, rows)
    lines = {row.preset: roofline(row, preset_config(row.preset).training.slices_per_step, name) for row in rows}
    record = {
        "date": date.today().isoformat(),
        "device": name,
        "backend": reason,
        "versions": versions(),
        "case": {"size": options.size, "slices": options.slices, "scale": options.scale},
        "shortened_to_iterations": options.iterations,
        "rows": [asdict(row) for row in rows],
        "roofline": lines,
    }
    console.print_json(json.dumps(record["roofline"]))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
