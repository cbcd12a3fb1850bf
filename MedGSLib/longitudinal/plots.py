"""Pictures of a comparison: diameter along the centreline, volume against date, and a one-page summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.spatial import cKDTree
from vtkmodules.util.numpy_support import vtk_to_numpy

from MedGSLib.geometry import transform_points
from MedGSLib.longitudinal.compare import GROWTH, SHOWN, Comparison, SegmentGrowth
from MedGSLib.longitudinal.distance import point_areas
from MedGSLib.longitudinal.outputs import BAND_NOTICE, GREY, NOTICE, PROPAGATED_NOTICE, growth_colors
from MedGSLib.metrics_surface import triangles_of
from MedGSLib.preview import SCREEN_DPI, save_figure
from MedGSLib.preview_surface import VIEWS, View, draw_surfaces
from MedGSLib.volume import Label

TITLES = {
    "volume": "volume (cm³)",
    "area": "surface (cm²)",
    "max_diameter": "largest diameter (mm)",
    "max_axial_diameter": "largest axial diameter (mm)",
    "length": "length (mm)",
    "max_3d_diameter": "largest 3-D diameter (mm)",
    "in_plane_diameter": "longest in an image plane (mm)",
    "in_plane_short": "short axis to it (mm)",
}

LEAST_HISTOGRAM_MM = 0.05
"""Half of the smallest range of distances that a histogram divides."""


def write_plots(comparison: Comparison, out: Path) -> None:
    """Write ``diameter_<segment>.png``, ``volume.png`` and ``summary.png``.

    :raises ResourceError: if the disk is full.
    """
    for name in comparison.segments:
        if all(measured[name].vessel is not None for measured in comparison.measures):
            figure = Figure(figsize=(7.0, 4.2), dpi=SCREEN_DPI, layout="constrained")
            draw_diameters(figure.subplots(), comparison, name)
            save_figure(figure, out / f"diameter_{Label(0, name).file_name}.png")
    figure = Figure(figsize=(7.0, 4.2), dpi=SCREEN_DPI, layout="constrained")
    draw_volumes(figure.subplots(), comparison)
    save_figure(figure, out / "volume.png")
    write_summary(comparison, out / "summary.png")


def write_summary(comparison: Comparison, path: Path) -> None:
    """One page: the growth map of the last follow-up from three sides, curves over place and time, and the table of changes."""
    name = comparison.segments[0]
    last = [found for found in comparison.growth if found.segment == name][-1]
    figure = Figure(figsize=(13.0, 9.2), dpi=SCREEN_DPI, layout="constrained")
    spaces = figure.subplot_mosaic([["before", "facing", "after"], ["curve", "volume", "table"]], height_ratios=[1.35, 1.0])
    _draw_growth([spaces[key] for key in ("before", "facing", "after")], comparison, last)
    if all(measured[name].vessel is not None for measured in comparison.measures):
        draw_diameters(spaces["curve"], comparison, name)
    else:
        _draw_histogram(spaces["curve"], last)
    draw_volumes(spaces["volume"], comparison)
    _draw_changes(spaces["table"], last)
    figure.suptitle(f"{name}: {_title(comparison, 0)} to {_title(comparison, last.followup)}", fontsize=13)
    notices = [NOTICE, BAND_NOTICE] + [PROPAGATED_NOTICE] * comparison.time_points[last.followup].is_propagated
    figure.supxlabel("\n".join(notices), fontsize=8, color="0.35")
    save_figure(figure, path)


def draw_diameters(axes: Axes, comparison: Comparison, name: str) -> None:
    """Outer-to-outer diameter perpendicular to the centreline, a curve a date, all against the position along the baseline's."""
    for index, measured in enumerate(comparison.measures):
        vessel = measured[name].vessel
        assert vessel is not None
        shift = _along_baseline(comparison, name, index)
        (line,) = axes.plot(
            np.array(vessel.profile_at_mm) + shift,
            vessel.profile_diameter_mm,
            label=f"{_title(comparison, index)}: {vessel.max_diameter_mm:.1f} mm",
        )
        axes.plot(vessel.max_diameter_at_mm + shift, vessel.max_diameter_mm, "o", color=line.get_color(), markersize=4)
    axes.set_xlabel("along the baseline's centreline from its inferior end (mm)", fontsize=8)
    axes.set_ylabel("largest diameter (mm)", fontsize=8)
    _finish(axes, f"{name}: diameter perpendicular to the centreline")


def _along_baseline(comparison: Comparison, name: str, index: int) -> float:
    """What to add to positions along a follow-up's centreline to get those of the nearest points of the baseline's, 0 if not aligned."""
    first, own = comparison.measures[0][name].vessel, comparison.measures[index][name].vessel
    registration = comparison.registrations[index]
    if first is None or own is None or not registration.captured:
        return 0.0
    placed = transform_points(registration.matrix, np.array(own.profile_points))
    nearest = cKDTree(np.array(first.profile_points)).query(placed)[1]
    return float(np.median(np.array(first.profile_at_mm)[nearest] - np.array(own.profile_at_mm)))


def draw_volumes(axes: Axes, comparison: Comparison) -> None:
    """Volume of each segment against date, or against the order where dates are unknown."""
    across: list[Any] = [point.date for point in comparison.time_points]
    if None in across:
        across = list(range(len(across)))
        axes.set_xticks(across, [point.name for point in comparison.time_points])
    for name in comparison.segments:
        volumes = [measured[name].lesion.volume_cm3 for measured in comparison.measures]
        bands = [0.0] + [
            change.band for found in comparison.growth if found.segment == name for change in found.changes if change.measure == "volume"
        ]
        axes.errorbar(across, volumes, yerr=bands, marker="o", capsize=3, label=name)
    axes.set_ylabel("volume (cm³)", fontsize=8)
    axes.tick_params(axis="x", rotation=20)
    _finish(axes, "volume; bars: repeatability of the difference to the baseline")


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def _title(comparison: Comparison, index: int) -> str:
    point = comparison.time_points[index]
    title = point.name if point.date is None else point.date.isoformat()
    return f"{title} (propagated, not drawn)" if point.is_propagated else title


def _draw_growth(spaces: list[Axes], comparison: Comparison, found: SegmentGrowth) -> None:
    if found.surface is None:
        for axes in spaces:
            axes.axis("off")
        spaces[1].text(0.5, 0.5, comparison.registrations[found.followup].message, ha="center", va="center", wrap=True, fontsize=10)
        return
    colors = growth_colors(comparison.growth)
    for axes, view in zip(spaces, _views(found), strict=True):
        draw_surfaces(axes, [found.surface], [GREY], view, scalars=SHOWN, color_map=colors)
    bar = spaces[-1].figure.colorbar(colors, ax=spaces, shrink=0.7, pad=0.01)
    bar.ax.axhspan(-(found.band_median_mm or 0.0), found.band_median_mm or 0.0, color=GREY)
    bar.set_label("wall moved since the baseline (mm)\nred outward, blue inward, grey within the measurement error", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _views(found: SegmentGrowth) -> list[View]:
    """Three sides of the surface, the one that faces the largest change in the middle."""
    facing = 1
    if found.surface is not None and found.largest_significant_place is not None:
        outward = np.array(found.largest_significant_place) - triangles_of(found.surface)[0].mean(axis=0)
        facing = int(np.argmax([view.axes()[2] @ outward for view in VIEWS]))
    return [VIEWS[(facing + turn) % len(VIEWS)] for turn in (-1, 0, 1)]


def _draw_histogram(axes: Axes, found: SegmentGrowth) -> None:
    axes.set_title("how far the wall moved", fontsize=9)
    if found.surface is not None:
        weights = point_areas(found.surface)
        moved = vtk_to_numpy(found.surface.GetPointData().GetArray(GROWTH))
        middle, half = (moved.max() + moved.min()) / 2.0, max(np.ptp(moved) / 2.0, LEAST_HISTOGRAM_MM)
        axes.hist(moved, bins=60, range=(middle - half, middle + half), color="tab:blue", weights=weights / weights.sum() * 100.0)
        band = found.band_median_mm or 0.0
        axes.axvspan(-band, band, color=GREY, alpha=0.6, label=f"within the measurement error (± {band:.1f} mm)")
        axes.legend(fontsize=7)
    axes.set_xlabel("distance to the baseline, outward positive (mm)", fontsize=8)
    axes.set_ylabel("share of the surface (%)", fontsize=8)
    axes.tick_params(labelsize=7)


def _draw_changes(axes: Axes, found: SegmentGrowth) -> None:
    axes.axis("off")
    rows = [
        (
            TITLES[change.measure],
            f"{change.before:.1f}",
            f"{change.after:.1f}",
            f"{change.difference:+.1f} ± {change.band:.1f}",
            "–" if change.per_year is None else f"{change.per_year:+.1f}",
            "beyond error" if change.significant else "within error",
        )
        for change in found.changes
    ]
    table: Any = axes.table(rows, colLabels=("", "before", "after", "change", "per year", "verdict"), loc="upper center", cellLoc="center")
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.auto_set_column_width(list(range(6)))
    table.scale(1.0, 1.5)
    if found.largest_significant_mm is not None and found.largest_significant_place is not None:
        place = ", ".join(f"{value:.0f}" for value in found.largest_significant_place)
        text = f"largest change of the wall {found.largest_significant_mm:+.1f} mm at RAS ({place});\n"
        text += f"{found.significant_area_share:.0%} of the wall moved by more than the measurement error (± {found.band_median_mm:.1f} mm)"
    else:
        text = "no part of the wall moved by more than the measurement error" if found.surface is not None else "not aligned"
    axes.text(0.5, 0.04, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=8)
