"""From cells to a table, and to one line for each protocol: by how much MedGS is ahead of the best alternative, and where it is not."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedGSLib.evaluation.names import (
    BETTER_HIGH,
    COSTS,
    IMAGE_FIGURES,
    MASK_FIGURES,
    MEDGS,
    OWN,
    PRIOR,
    RANKED,
    kind_of,
)
from MedGSLib.evaluation.results import Cell
from MedGSLib.io.atomic import atomic_write

COLUMNS = ("subset", "case", "protocol", "every", "profile", "method", "seed")
TIE = 1e-9


@dataclass(frozen=True)
class Summary:
    """A figure of one own method against the best alternative of each row, row by row.

    :ivar mean_difference: own minus best alternative, over ``rows``; :ivar worst_difference: in the least favourable row.
    :ivar mean_ratio: of errors: own over alternative, of (1 - Dice) for Dice; None for PSNR and SSIM.
    :ivar behind: rows in which the best alternative is better, as text with the difference.
    """

    subset: str
    protocol: str
    profile: str
    method: str
    figure: str
    rows: int
    mean_difference: float
    worst_difference: float
    mean_ratio: float | None
    behind: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The line for people."""
        ratio = "" if self.mean_ratio is None else f", ratio {self.mean_ratio:.2f}"
        behind = "behind in none" if not self.behind else f"behind in {len(self.behind)}: {'; '.join(self.behind)}"
        where = self.protocol if self.profile == "point" else f"{self.protocol} ({self.profile})"
        return (
            f"{self.subset or 'all'}, {where}, {self.figure}: {self.method} minus best alternative {self.mean_difference:+.4f} on average, "
            f"{self.worst_difference:+.4f} at worst{ratio}, {self.rows} rows, {behind}"
        )


def summarize(cells: Sequence[Cell]) -> list[Summary]:
    """One line for each subset, protocol, profile, own method and ranked figure; seeds are averaged."""
    groups = sorted({(cell.subset, cell.protocol, cell.profile, cell.method) for cell in cells if kind_of(cell.method) in OWN})
    lines = []
    for subset, protocol, profile, method in groups:
        part = [cell for cell in cells if (cell.subset, cell.protocol, cell.profile) == (subset, protocol, profile)]
        for figure in RANKED[protocol]:
            line = _summary(part, method, figure)
            if line is not None:
                lines.append(line)
    return lines


def _summary(cells: Sequence[Cell], method: str, figure: str) -> Summary | None:
    sign = 1.0 if BETTER_HIGH[figure] else -1.0
    differences, ratios, behind = [], [], []
    for row in dict.fromkeys(cell.row for cell in cells):
        own, best, best_name = compared(cells, row, method, figure)
        if math.isnan(own) or math.isnan(best):
            continue
        differences.append(own - best)
        ratios.append(_error(own, figure) / max(_error(best, figure), TIE))
        if sign * (own - best) < -TIE:
            behind.append(f"{row[0]} n={row[2]} ({best_name} {best - own:+.4f})")
    if not differences:
        return None
    first = cells[0]
    worst = min(differences, key=lambda value: sign * value)
    ratio = float(np.mean(ratios)) if figure not in ("psnr_db", "ssim") else None
    return Summary(
        first.subset,
        first.protocol,
        first.profile,
        method,
        figure,
        len(differences),
        float(np.mean(differences)),
        worst,
        ratio,
        tuple(behind),
    )


def compared(cells: Sequence[Cell], row: tuple[str, str, int, str], method: str, figure: str) -> tuple[float, float, str]:
    """The figure of ``method`` (mean over seeds) and of the best alternative on a row, and the alternative's name; NaN where missing."""
    own = [cell.figure(figure) for cell in cells if cell.row == row and cell.method == method]
    others = {
        cell.method: cell.figure(figure)
        for cell in cells
        if cell.row == row and kind_of(cell.method) not in (MEDGS, PRIOR) and math.isfinite(cell.figure(figure))
    }
    if not own or not others:
        return math.nan, math.nan, ""
    best = (max if BETTER_HIGH[figure] else min)(others, key=lambda name: others[name])
    return float(np.mean(own)), others[best], best


def _error(value: float, figure: str) -> float:
    return 1.0 - value if figure.startswith("dice") else value


def write_csv(cells: Sequence[Cell], path: Path) -> None:
    """One line a cell, sorted by case and protocol."""
    names = (*IMAGE_FIGURES, *MASK_FIGURES)
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*COLUMNS, *names, *COSTS, "failure"])
        for cell in sorted(cells, key=lambda cell: (cell.subset, cell.row, cell.method, cell.seed)):
            costs = [None if cell.cost is None else getattr(cell.cost, name) for name in COSTS]
            numbers = [*(cell.figure(name) for name in names), *costs]
            writer.writerow([*(getattr(cell, name) for name in COLUMNS), *(_text(number) for number in numbers), cell.failure])


def _text(number: float | None) -> str:
    return "" if number is None or math.isnan(number) else f"{number:.6g}"


def markdown(cells: Sequence[Cell], protocol: str, subset: str) -> str:
    """The rows of a protocol side by side, for a README: PSNR / SSIM, or slice Dice / volume Dice and Chamfer / HD95."""
    part = [cell for cell in cells if (cell.protocol, cell.subset) == (protocol, subset)]
    methods = list(dict.fromkeys(cell.method for cell in sorted(part, key=lambda cell: kind_of(cell.method) not in OWN)))
    lines = [f"| case | n | {' | '.join(methods)} |", "|---" * (len(methods) + 2) + "|"]
    for row in sorted({cell.row for cell in part}):
        values = []
        for method in methods:
            seeds = [cell for cell in part if cell.row == row and cell.method == method]
            values.append(_entry(seeds, protocol) if seeds else "")
        name = row[0] if row[3] == "point" else f"{row[0]} ({row[3]})"
        lines.append(f"| {name} | {row[2]} | {' | '.join(values)} |")
    return "\n".join(lines)


def _entry(seeds: Sequence[Cell], protocol: str) -> str:
    def mean(name: str) -> float:
        return float(np.mean([cell.figure(name) for cell in seeds]))

    if "psnr_db" in RANKED[protocol]:
        return f"{mean('psnr_db'):.2f} / {mean('ssim'):.3f}"
    return f"{mean('dice_slices'):.4f} / {mean('dice_volume'):.4f} · {mean('chamfer_mm'):.2f} / {mean('hd95_mm'):.2f}"
