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

    :ivar every: the n of the rows, None for all.
    :ivar mean_difference: own minus best alternative, over ``rows``; :ivar worst_difference: in the least favourable row.
    :ivar mean_ratio: of errors: own over alternative, of (1 - Dice) for Dice; None for PSNR and SSIM.
    :ivar behind: rows in which the best alternative is better, as text with the difference.
    """

    subset: str
    protocol: str
    profile: str
    method: str
    figure: str
    every: int | None
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
        where += "" if self.every is None else f" n={self.every}"
        return (
            f"{self.subset or 'all'}, {where}, {self.figure}: {self.method} minus best alternative {self.mean_difference:+.4f} on average, "
            f"{self.worst_difference:+.4f} at worst{ratio}, {self.rows} rows, {behind}"
        )


def summarize(cells: Sequence[Cell]) -> list[Summary]:
    """One line for each subset, protocol, profile, own method and ranked figure, over all n and for each n; seeds are averaged."""
    groups = sorted({(cell.subset, cell.protocol, cell.profile, cell.method) for cell in cells if kind_of(cell.method) in OWN})
    lines = []
    for subset, protocol, profile, method in groups:
        part = [cell for cell in cells if (cell.subset, cell.protocol, cell.profile) == (subset, protocol, profile)]
        measured = sorted({cell.every for cell in part if cell.method == method})
        for figure in RANKED[protocol]:
            for every in (None, *(measured if len(measured) > 1 else ())):
                line = _summary([cell for cell in part if every in (None, cell.every)], method, figure, every)
                if line is not None:
                    lines.append(line)
    return lines


def _summary(cells: Sequence[Cell], method: str, figure: str, every: int | None) -> Summary | None:
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
    return Summary(
        subset=first.subset,
        protocol=first.protocol,
        profile=first.profile,
        method=method,
        figure=figure,
        every=every,
        rows=len(differences),
        mean_difference=float(np.mean(differences)),
        worst_difference=min(differences, key=lambda value: sign * value),
        mean_ratio=float(np.mean(ratios)) if figure not in ("psnr_db", "ssim") else None,
        behind=tuple(behind),
    )


def summary_table(lines: Sequence[Summary]) -> str:
    """The summary for a README, figure by figure."""
    head = ("protocol", "n", "method", "figure", "problems", "mean lead", "least lead", "error ratio", "behind in")
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for line in lines:
        sign = 1.0 if BETTER_HIGH[line.figure] else -1.0
        entries = (
            line.protocol if line.profile == "point" else f"{line.protocol} ({line.profile})",
            "all" if line.every is None else str(line.every),
            line.method,
            line.figure,
            str(line.rows),
            f"{sign * line.mean_difference:+.3g}",
            f"{sign * line.worst_difference:+.3g}",
            "" if line.mean_ratio is None else f"{line.mean_ratio:.2f}",
            "; ".join(line.behind) or "none",
        )
        rows.append(f"| {' | '.join(entries)} |")
    return "\n".join(rows)


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
    """Means over seeds, and half the range of the first figure where there are several."""
    names = ("psnr_db", "ssim") if "psnr_db" in RANKED[protocol] else ("dice_slices", "dice_volume", "chamfer_mm", "hd95_mm")
    values = {name: [cell.figure(name) for cell in seeds] for name in names}
    means = {name: float(np.mean(found)) for name, found in values.items()}
    if "psnr_db" in means:
        return f"{means['psnr_db']:.2f}{_spread(values['psnr_db'], 2)} / {means['ssim']:.3f}"
    slices = f"{means['dice_slices']:.4f}{_spread(values['dice_slices'], 4)}"
    return f"{slices} / {means['dice_volume']:.4f} · {means['chamfer_mm']:.2f} / {means['hd95_mm']:.2f}"


def _spread(values: Sequence[float], digits: int) -> str:
    return f"±{0.5 * (max(values) - min(values)):.{digits}f}" if len(values) > 1 else ""
