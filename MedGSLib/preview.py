"""Pictures of a result: cross-planes of input and output in true proportions, the mesh, and the demo's one-page summary."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.errors import MedGSError
from MedGSLib.geometry import Matrix
from MedGSLib.io.atomic import atomic_write
from MedGSLib.preview_surface import ANTERIOR, LEFT, draw_surfaces, letter_sides
from MedGSLib.volume import Label, SliceStack

logger = logging.getLogger(__name__)

SCREEN_DPI = 110
SIDES = (("R", "L"), ("A", "P"), ("S", "I"))
"""What the positive and the negative end of each RAS axis are called."""
FALLBACK_COLOR = (0.85, 0.4, 0.35)
NOTICE = "Research use only. Between the acquired slices the image is interpolated, not measured."


@dataclass(frozen=True)
class DenseResult:
    """What a reconstruction made: image (T, H, W) or None, occupancy (L, T, H, W) or None, slices every ``spacing_mm``, a mesh a label."""

    spacing_mm: float
    image: NDArray[np.float32] | None = None
    occupancy: NDArray[np.float32] | None = None
    meshes: Sequence[vtkPolyData] = ()

    @property
    def positions_mm(self) -> NDArray[np.float64]:
        """Slice positions (T,) along the stack."""
        array = self.image if self.image is not None else self.occupancy
        assert array is not None
        return np.arange(array.shape[-3], dtype=np.float64) * self.spacing_mm


@dataclass(frozen=True)
class CrossPlane:
    """One plane through the stack: which in-plane axis it spans (0 = columns, 1 = rows) and where it cuts the other."""

    axis: int
    index: int

    def cut(self, array: NDArray) -> NDArray:
        """:param array: (..., S, H, W). :return: (..., S, W) or (..., S, H)."""
        return array[..., self.index, :] if self.axis == 0 else array[..., :, self.index]


def write_preview(path: Path, stack: SliceStack, result: DenseResult, title: str = "MedGS reconstruction") -> None:
    """Write a PNG with two orthogonal cross-planes of input and output and the mesh.

    The planes go through the middle of the segment. Ticks mark the acquired slices; letters name the patient's sides. Where the picture
    cannot be drawn, its title alone is, for it comes after much work and before the report of it.

    :raises ResourceError: if the disk is full.
    """
    try:
        save_figure(_preview(stack, result, title), path)
    except (OSError, MemoryError, MedGSError):
        raise
    except Exception as error:
        logger.warning("The preview could not be drawn: %s", error, exc_info=error)
        figure = Figure(figsize=(4.2, 2.1), dpi=SCREEN_DPI)
        figure.suptitle(f"{title}\n(the picture could not be drawn)", fontsize=12)
        save_figure(figure, path)


def _preview(stack: SliceStack, result: DenseResult, title: str) -> Figure:
    planes = _central_planes(stack)
    columns = 2 + (1 if result.meshes else 0)
    figure = Figure(figsize=(4.2 * columns, 8.4), dpi=SCREEN_DPI, layout="constrained")
    grid = figure.subplots(2, columns, squeeze=False)
    window = _intensity_window(stack)
    labels = stack.labels or (Label(1, "segment"),)
    for column, plane in enumerate(planes):
        _draw_plane(grid[0][column], stack, plane, stack.positions_mm, stack.image, stack.occupancy, labels, window)
        _draw_plane(grid[1][column], stack, plane, result.positions_mm, result.image, result.occupancy, labels, window)
        grid[0][column].set_title(f"input: {len(stack.positions_mm)} acquired slices", fontsize=9)
        grid[1][column].set_title("output: interpolated between the marked slices", fontsize=9)
    if result.meshes:
        colors = [label.color for label in labels[: len(result.meshes)]] + [FALLBACK_COLOR] * (len(result.meshes) - len(labels))
        for row, view in enumerate((ANTERIOR, LEFT)):
            draw_surfaces(grid[row][2], result.meshes, colors, view)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(NOTICE, fontsize=8, color="0.35")
    return figure


def write_demo_summary(
    path: Path, stack: SliceStack, result: DenseResult, figures: Sequence[tuple[str, float, float, str]], title: str, note: str = ""
) -> None:
    """Write one page that sets what was measured on the reconstruction beside the truth.

    :param figures: rows (what, true value, measured value, unit).
    :param note: a line below the table, such as the run time.
    """
    figure = Figure(figsize=(12.6, 8.4), dpi=SCREEN_DPI, layout="constrained")
    spaces = figure.subplot_mosaic([["input", "output", "front"], ["table", "table", "side"]], height_ratios=[1.3, 1.0])
    plane = _central_planes(stack)[0]
    window = _intensity_window(stack)
    _draw_plane(spaces["input"], stack, plane, stack.positions_mm, stack.image, stack.occupancy, stack.labels, window)
    _draw_plane(spaces["output"], stack, plane, result.positions_mm, result.image, result.occupancy, stack.labels, window)
    spaces["input"].set_title(f"input: {len(stack.positions_mm)} acquired slices", fontsize=9)
    spaces["output"].set_title("output: interpolated between the marked slices", fontsize=9)
    for name, view in (("front", ANTERIOR), ("side", LEFT)):
        draw_surfaces(spaces[name], result.meshes, [label.color for label in stack.labels], view)
    _draw_table(spaces["table"], figures, note)
    figure.suptitle(title, fontsize=13)
    figure.supxlabel(NOTICE, fontsize=8, color="0.35")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG under its final name, complete or not at all."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def axis_letters(direction: NDArray[np.float64]) -> tuple[str, str]:
    """The patient side that an axis starts at and the one it points to, e.g. ('I', 'S') for (0, 0, 1) in RAS."""
    main = int(np.argmax(np.abs(direction)))
    positive, negative = SIDES[main]
    return (negative, positive) if direction[main] > 0 else (positive, negative)


def _central_planes(stack: SliceStack) -> tuple[CrossPlane, CrossPlane]:
    """Planes along columns and along rows through the middle of the segments, or of the image where there is none."""
    _, rows, columns = stack.shape
    row, column = rows // 2, columns // 2
    if stack.occupancy is not None and stack.occupancy.max() > 0:
        weight = stack.occupancy.sum(axis=(0, 1))
        row = int(round(np.average(np.arange(rows), weights=weight.sum(axis=1))))
        column = int(round(np.average(np.arange(columns), weights=weight.sum(axis=0))))
    return CrossPlane(0, row), CrossPlane(1, column)


def _intensity_window(stack: SliceStack) -> tuple[float, float]:
    if stack.image is None:
        return 0.0, 1.0
    low, high = np.nanpercentile(stack.image, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6))


def _edges(centers: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Cell borders (N+1,) halfway between centres (N,); a single cell is as wide as ``width``."""
    if len(centers) == 1:
        return centers[0] + width * np.array([-0.5, 0.5])
    middle = (centers[1:] + centers[:-1]) / 2.0
    return np.concatenate([[2.0 * centers[0] - middle[0]], middle, [2.0 * centers[-1] - middle[-1]]])


def _draw_plane(
    axes: Axes,
    stack: SliceStack,
    plane: CrossPlane,
    positions_mm: NDArray[np.float64],
    image: NDArray | None,
    occupancy: NDArray | None,
    labels: Sequence[Label],
    window: tuple[float, float],
) -> None:
    """Draw one cross-plane with cells of their true size, the segments over it, and ticks at the acquired slices."""
    pixel_mm = stack.pixel_mm[1 - plane.axis]
    count = stack.shape[2 - plane.axis]
    across = np.arange(count, dtype=np.float64) * pixel_mm
    borders = _edges(across, pixel_mm), _edges(positions_mm, stack.gap_mm)
    if image is not None:
        axes.pcolormesh(*borders, plane.cut(image), cmap="gray", vmin=window[0], vmax=window[1], rasterized=True)
    axes.set_facecolor("0.1")
    if occupancy is not None:
        for channel, label in zip(plane.cut(occupancy), labels, strict=False):
            inside = np.ma.masked_less(channel, 0.5)
            axes.pcolormesh(*borders, inside, cmap=ListedColormap([label.color]), alpha=0.35, rasterized=True)
            if len(positions_mm) > len(stack.positions_mm) and count > 1 and channel.max() > 0.5 > channel.min():
                axes.contour(across, positions_mm, channel, levels=[0.5], colors=[label.color], linewidths=1.2)
    _mark_slices(axes, stack.positions_mm, max(float(across[-1]), pixel_mm))
    _orient(axes, stack.plane_to_ras, plane.axis)


def _mark_slices(axes: Axes, positions_mm: NDArray[np.float64], width_mm: float) -> None:
    reach = 0.03 * width_mm
    for start in (-2.0 * reach, width_mm + reach):
        axes.hlines(positions_mm, start, start + reach, colors="tab:orange", linewidths=0.9)


def _orient(axes: Axes, plane_to_ras: Matrix, axis: int) -> None:
    """Turn the picture as radiologists expect (R or A on the left, S or A on top) and write the letters."""
    axes.set_aspect("equal")
    horizontal, vertical = axis_letters(plane_to_ras[:3, axis]), axis_letters(plane_to_ras[:3, 2])
    if horizontal[1] in "RAI":
        axes.invert_xaxis()
        horizontal = horizontal[::-1]
    if vertical[1] in "LPI":
        axes.invert_yaxis()
        vertical = vertical[::-1]
    letter_sides(axes, horizontal + vertical, color="yellow")
    axes.set_xlabel("mm", fontsize=8)
    axes.tick_params(labelsize=7)


def _draw_table(axes: Axes, figures: Sequence[tuple[str, float, float, str]], note: str) -> None:
    axes.axis("off")
    rows = [
        (what, f"{true:.2f} {unit}", f"{measured:.2f} {unit}", f"{measured - true:+.2f} {unit} ({(measured / true - 1.0) * 100.0:+.1f} %)")
        for what, true, measured, unit in figures
    ]
    table: Any = axes.table(rows, colLabels=("", "true", "measured", "difference"), loc="center", cellLoc="center")
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    table.scale(1.0, 1.6)
    axes.text(0.5, 0.02, note, transform=axes.transAxes, ha="center", va="bottom", fontsize=9)
