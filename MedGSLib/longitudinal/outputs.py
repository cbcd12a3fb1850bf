"""The folder that a comparison leaves: comparison.json, tables, transforms, aligned surfaces and pictures.

comparison.json                     everything, with the names of the other files
measures.csv  growth.csv            one row a segment, date and measure; one row a segment, pair of dates and measure
01_to_baseline.tfm                  transform of follow-up 1, as ITK and Slicer read it
00_<segment>.vtp  01_<segment>.vtp  surfaces in the baseline's frame; follow-ups carry GrowthMm, GrowthBandMm, GrowthSignificant
01_<segment>.ply                    the same, coloured
diameter_<segment>.png  volume.png  diameter along the centreline a date, volume against date
summary.png                         one page
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.io.atomic import atomic_write, write_json
from MedGSLib.io.meshes import write_mesh
from MedGSLib.longitudinal.compare import SHOWN, Comparison, SegmentGrowth
from MedGSLib.longitudinal.measures import FIGURES
from MedGSLib.longitudinal.registration import write_transform
from MedGSLib.volume import Label

SCHEMA_VERSION = 1
PROPAGATED_MARK = "segment propagated, not drawn"
NOTICE = "Research use only. Between acquired slices surfaces are interpolated, not measured."
BAND_NOTICE = (
    "The band is the 95 % repeatability of slice sampling, reconstruction and registration; "
    "how differently readers draw the same contour is not in it."
)
PROPAGATED_NOTICE = (
    "Where a date is marked as propagated, nobody drew the segment there: the baseline's surface was moved along its normals to where the "
    "image shows the same edge; large growth comes out about a tenth too small."
)
GREY = (0.72, 0.72, 0.72)
COLOR_MAP = "RdBu_r"
LEAST_COLOR_RANGE_MM = 1.0


def write_comparison(comparison: Comparison, out: Path) -> dict[str, Any]:
    """Write all files of a comparison, each whole or not at all, ``comparison.json`` last.

    :return: the content of ``comparison.json``.
    :raises ResourceError: if the disk is full.
    """
    from MedGSLib.longitudinal import plots

    out.mkdir(parents=True, exist_ok=True)
    (out / "comparison.json").unlink(missing_ok=True)
    report = describe(comparison)
    for index, registration in enumerate(comparison.registrations[1:], start=1):
        write_transform(out / f"{index:02d}_to_baseline.tfm", registration.matrix)
    for name in comparison.segments:
        write_mesh(comparison.time_points[0].surfaces[name], out / f"00_{_stem(name)}.vtp")
    colors = growth_colors(comparison.growth)
    for found in comparison.growth:
        if found.surface is not None:
            stem = f"{found.followup:02d}_{_stem(found.segment)}"
            write_mesh(found.surface, out / f"{stem}.vtp")
            write_mesh(_colored(found.surface, colors), out / f"{stem}.ply")
    _write_table(out / "measures.csv", _measure_rows(comparison))
    _write_table(out / "growth.csv", _growth_rows(comparison))
    plots.write_plots(comparison, out)
    write_json(out / "comparison.json", report)
    return report


def describe(comparison: Comparison) -> dict[str, Any]:
    """The content of ``comparison.json``; lengths in mm, places RAS mm in the baseline's frame where not said otherwise."""
    return {
        "schema_version": SCHEMA_VERSION,
        "notice": NOTICE,
        "band": BAND_NOTICE,
        "propagation": PROPAGATED_NOTICE if any(point.is_propagated for point in comparison.time_points) else None,
        "segments": list(comparison.segments),
        "time_points": [
            {
                "name": point.name,
                "date": None if point.date is None else point.date.isoformat(),
                "propagated": point.is_propagated,
                "facts": point.facts,
                "registration": comparison.registrations[index].as_dict(),
                "transform_file": f"{index:02d}_to_baseline.tfm" if index else None,
                "measures_in_own_frame": {name: measured.as_dict() for name, measured in comparison.measures[index].items()},
            }
            for index, point in enumerate(comparison.time_points)
        ],
        "growth": [_growth_entry(found, comparison.time_points[found.followup].is_propagated) for found in comparison.growth],
        "trends": {name: [line.as_dict() for line in lines] for name, lines in comparison.trends.items()},
    }


def growth_colors(growth: Iterable[SegmentGrowth]) -> ScalarMappable:
    """A diverging, symmetric colour map in mm, wide enough for every significant distance."""
    largest = [abs(found.largest_significant_mm) for found in growth if found.largest_significant_mm is not None]
    reach = max([LEAST_COLOR_RANGE_MM, *largest])
    return ScalarMappable(TwoSlopeNorm(0.0, -reach, reach), COLOR_MAP)


def _stem(segment: str) -> str:
    return Label(0, segment).file_name


def _growth_entry(found: SegmentGrowth, is_propagated: bool) -> dict[str, Any]:
    aligned = found.surface is not None
    stem = f"{found.followup:02d}_{_stem(found.segment)}"
    return {
        "segment": found.segment,
        "followup": found.followup,
        "aligned": aligned,
        "propagated": is_propagated,
        "files": [f"{stem}.vtp", f"{stem}.ply"] if aligned else [],
        "baseline_file": f"00_{_stem(found.segment)}.vtp",
        "distance_mm": None if found.outward is None else found.outward.as_dict(),
        "distance_from_baseline_mm": None if found.reverse is None else found.reverse.as_dict(),
        "distance_symmetric_mm": found.symmetric,
        "band_median_mm": found.band_median_mm,
        "significant_area_share": found.significant_area_share,
        "largest_significant_mm": found.largest_significant_mm,
        "largest_significant_place_ras": found.largest_significant_place,
        "verdict": _verdict(found) + (f" ({PROPAGATED_MARK})" if is_propagated else ""),
        "changes": [change.as_dict() for change in found.changes],
    }


def _verdict(found: SegmentGrowth) -> str:
    if found.surface is None:
        return "not aligned, so no growth map is shown"
    if found.largest_significant_mm is None:
        return "within measurement error"
    return "growth" if found.largest_significant_mm > 0 else "shrinkage"


def _colored(surface: vtkPolyData, colors: ScalarMappable) -> vtkPolyData:
    """The surface with RGB point colours as its active scalars: grey inside the band."""
    shown = vtk_to_numpy(surface.GetPointData().GetArray(SHOWN))
    rgb = np.tile(np.array(GREY), (len(shown), 1))
    known = np.isfinite(shown)
    rgb[known] = colors.to_rgba(shown[known])[:, :3]
    array = numpy_to_vtk(np.round(rgb * 255.0).astype(np.uint8), deep=True)
    array.SetName("RGB")
    copy = vtkPolyData()
    copy.ShallowCopy(surface)
    copy.GetPointData().SetScalars(array)
    return copy


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _measure_rows(comparison: Comparison) -> list[dict[str, Any]]:
    rows = []
    for index, point in enumerate(comparison.time_points):
        for name in comparison.segments:
            figures = comparison.measures[index][name].figures() | {"sphericity": comparison.measures[index][name].lesion.sphericity}
            for measure, unit in (*FIGURES, ("sphericity", "")):
                if measure in figures:
                    date = "" if point.date is None else point.date.isoformat()
                    value = f"{figures[measure]:.3f}"
                    row = {"time_point": point.name, "date": date, "segment": name, "measure": measure, "value": value, "unit": unit}
                    rows.append(row | {"propagated": "yes" if point.is_propagated else "no"})
    return rows


def _growth_rows(comparison: Comparison) -> list[dict[str, Any]]:
    rows = []
    for found in comparison.growth:
        for change in found.changes:
            row = {"segment": found.segment, "from": comparison.time_points[0].name, "to": comparison.time_points[found.followup].name}
            values = {key: "" if value is None else value for key, value in change.as_dict().items()}
            rows.append(row | {key: f"{value:.3f}" if isinstance(value, float) else value for key, value in values.items()})
    return rows
