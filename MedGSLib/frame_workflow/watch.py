"""What is saved and measured while a model of frames is trained."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedGSLib.frame_workflow.checkpoints import IterationCheckpoints
from MedGSLib.frame_workflow.model_folder import ModelFolder
from MedGSLib.gaussians import FoldedGaussians
from MedGSLib.io.atomic import atomic_write
from MedGSLib.metrics import dice, mean_psnr
from MedGSLib.model_file import ModelHeader
from MedGSLib.progress import Reporter
from MedGSLib.raster import Rasterizer
from MedGSLib.render import render_chunks
from MedGSLib.volume import SliceStack

TEST_COLUMNS = ("iteration", "psnr_db", "dice", "gaussians")


@dataclass
class TrainingWatch:
    """Called after each iteration; saves models, positions and test figures at the iterations that were asked for.

    :ivar stack: the frames that are tested against, at the stack coordinates ``coordinates`` (S,).
    :ivar xyz_interval: iterations between two files of positions, or None for none.
    """

    folder: ModelFolder
    header: ModelHeader
    stack: SliceStack
    coordinates: NDArray[np.float64]
    rasterizer: Rasterizer
    reporter: Reporter
    checkpoints: IterationCheckpoints
    test_iterations: frozenset[int]
    save_iterations: frozenset[int]
    xyz_interval: int | None

    def __post_init__(self) -> None:
        self._rows: list[dict[str, object]] = []

    def __call__(self, iteration: int, gaussians: FoldedGaussians) -> None:
        """React to a finished iteration."""
        self.checkpoints.reached(iteration)
        if self.xyz_interval and iteration % self.xyz_interval == 0:
            self._save_positions(iteration, gaussians)
        if iteration in self.save_iterations:
            self.folder.save(iteration, gaussians, self.header)
        if iteration in self.test_iterations:
            self._test(iteration, gaussians)

    def _save_positions(self, iteration: int, gaussians: FoldedGaussians) -> None:
        """x and y in px and the place along the stack in frames, float32 (N, 3)."""
        center, position = (getattr(gaussians, name).detach().cpu().numpy() for name in ("center", "position"))
        frames = np.interp(position, self.coordinates, np.arange(len(self.coordinates)))
        with atomic_write(self.folder.positions / f"iteration_{iteration}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, np.column_stack([center, frames]).astype(np.float32), allow_pickle=False)

    def _test(self, iteration: int, gaussians: FoldedGaussians) -> None:
        rendered = np.concatenate([part for _, part in render_chunks(gaussians, self.coordinates, self.header.size, self.rasterizer)])
        row: dict[str, object] = {"iteration": iteration, "gaussians": len(gaussians)}
        texts = [f"iteration {iteration}:"]
        window = self.header.window
        if window is not None and self.stack.image is not None:
            truth = (self.stack.image - window[0]) / (window[1] - window[0])
            row["psnr_db"] = round(mean_psnr(rendered[:, 0], truth), 3)
            texts.append(f"PSNR {row['psnr_db']} dB")
        if self.stack.occupancy is not None:
            seen = self.stack.annotated
            row["dice"] = round(dice(rendered[seen, -1] >= 0.5, self.stack.occupancy[0, seen] >= 0.5), 5)
            texts.append(f"Dice {row['dice']}")
        self._rows.append(row)
        _write_rows(self.folder.metrics_path, self._rows)
        self.reporter.message(" ".join(texts))


def _write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, TEST_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
