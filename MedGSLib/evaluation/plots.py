"""One figure of an evaluation: each method's lead over linear interpolation, row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from MedGSLib.evaluation.names import BETTER_HIGH, IMAGE, MASK, MEDGS, OWN, SPARSE, THICK, kind_of
from MedGSLib.evaluation.results import Cell
from MedGSLib.io.atomic import atomic_write

PANELS = (
    (IMAGE, "psnr_db", "linear", "PSNR minus linear (dB)", "Image, every n-th slice kept"),
    (THICK, "psnr_db", "linear", "PSNR minus linear (dB)", "Thick slices, n averaged"),
    (MASK, "dice_volume", "sdf", "volume Dice minus SDF linear", "Dense image, mask on every n-th slice"),
    (MASK, "chamfer_mm", "sdf", "Chamfer minus SDF linear (mm; low is good)", "Dense image, mask on every n-th slice"),
    (SPARSE, "dice_volume", "sdf", "volume Dice minus SDF linear", "Image and mask on every n-th slice"),
    (SPARSE, "chamfer_mm", "sdf", "Chamfer minus SDF linear (mm; low is good)", "Image and mask on every n-th slice"),
)
"""Protocol, figure, the method it is relative to, axis label and title of each panel."""
SHOWN_ERRORS = 0.95
"""Part of the alternatives' distances that the axis holds; a few would stretch it tenfold. MedGS is always shown."""
MARKERS = "os^vDP*Xh<>"


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Write the figure as PNG, a panel for each protocol that was measured."""
    from matplotlib.figure import Figure

    done = [cell for cell in cells if not cell.failure]
    panels = [panel for panel in PANELS if any(cell.protocol == panel[0] for cell in done)]
    if not panels:
        return
    methods = list(dict.fromkeys(cell.method for cell in sorted(done, key=lambda cell: kind_of(cell.method) not in OWN)))
    most_rows = max(len({cell.row for cell in done if cell.protocol == panel[0]}) for panel in panels)
    figure = Figure(figsize=(max(7.0, 0.45 * most_rows + 3.0), 3.4 * len(panels)), layout="constrained")
    for number, panel in enumerate(panels):
        _panel(figure.add_subplot(len(panels), 1, number + 1), [cell for cell in done if cell.protocol == panel[0]], panel, methods)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _panel(axes: Any, cells: Sequence[Cell], panel: tuple[str, ...], methods: Sequence[str]) -> None:
    _, figure, base, label, title = panel
    rows = sorted({cell.row for cell in cells}, key=lambda row: (row[2], row[3], row[0]))
    shown: list[float] = []
    ours = [0.0]
    for number, method in enumerate(methods):
        values = [_lead(cells, row, method, base, figure) for row in rows]
        shown += [value for value in values if math.isfinite(value)]
        if not any(math.isfinite(value) for value in values):
            continue
        own = kind_of(method) == MEDGS
        ours += [value for value in values if own and math.isfinite(value)]
        axes.plot(
            range(len(rows)), values, MARKERS[number % len(MARKERS)], label=method,
            markersize=9 if own else 6, alpha=1.0 if own else 0.6, zorder=3 if own else 2, color=f"C{number % 10}",
        )  # fmt: skip
    low, high = min(0.0, *shown), max(0.0, *shown)
    if not BETTER_HIGH[figure]:
        high = max(float(np.quantile([0.0, *shown], SHOWN_ERRORS)), *ours)
    axes.set_ylim(low - 0.1 * (high - low) - 1e-6, high + 0.1 * (high - low) + 1e-6)
    axes.axhline(0.0, color="0.6", linewidth=0.8)
    names = [f"{row[0]}\nn={row[2]}" + ("" if row[3] == "point" else f" {row[3]}") for row in rows]
    axes.set_xticks(range(len(rows)), names, rotation=60, ha="right", fontsize=7)
    axes.set_ylabel(label, fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7, ncols=2, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _lead(cells: Sequence[Cell], row: tuple[str, str, int, str], method: str, base: str, figure: str) -> float:
    def mean(name: str) -> float:
        found = [cell.figure(figure) for cell in cells if cell.row == row and cell.method == name]
        return float(np.mean(found)) if found else math.nan

    return mean(method) - mean(base)
