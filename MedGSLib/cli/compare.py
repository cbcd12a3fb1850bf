"""``medgs compare``: two or more time points of one patient."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any

from MedGSLib.cli.console import Console
from MedGSLib.cli.parser import add_command, existing, keep_libraries_quiet, label, non_negative
from MedGSLib.dates import parse_date
from MedGSLib.errors import InputError

DETAILS = """a time point is one of
  RESULT        a folder written by 'medgs reconstruct'
  MESH          a surface in patient coordinates (.vtp, .ply, .stl)
  IMAGE,MASK    a volume and its segmentation, separated by a comma
  RESULT,IMAGE  a result and the volume it came from, which helps the registration
  IMAGE         a later volume in which nobody drew the segment: the baseline's is carried over to it

example:
  medgs compare result_2023 result_2025 --dates 2023-05-02 2025-04-30 -o growth"""

REGISTRATIONS = ("auto", "image", "surface", "none")


def add_parser(commands: Any) -> None:
    """Add the grammar of this subcommand."""
    parser = add_command(commands, "compare", run, "compare time points of one patient: registration, growth map, diameters", DETAILS)
    parser.add_argument("baseline", metavar="BASELINE", help="the first time point")
    parser.add_argument("followups", nargs="+", metavar="FOLLOWUP", help="later time points")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="folder for the comparison")
    parser.add_argument("--dates", type=_date, nargs="+", metavar="YYYY-MM-DD", help="a date for each time point (default: from the files)")
    parser.add_argument("--keep-order", action="store_true", help="BASELINE is the baseline even where another date is earlier")
    parser.add_argument("--label", type=label, action="append", metavar="N|NAME", help="segments to compare (default: all)")
    parser.add_argument(
        "--registration",
        default="auto",
        metavar="auto|image|surface|none|FILE",
        help="how follow-ups are brought onto the baseline: by stable anatomy, by surfaces, not at all, or by a transform file",
    )

    parser.add_argument(
        "--observer-sd",
        type=non_negative,
        default=0.0,
        metavar="MM",
        help="how differently the contour is drawn twice (default: 0, not counted)",
    )
    parser.add_argument(
        "--kind",
        type=_kind,
        action="append",
        default=[],
        metavar="SEGMENT=vessel|compact",
        help="how a segment is measured (default: told by its name and shape)",
    )


def _date(text: str) -> datetime.date:
    date = parse_date(text)
    if date is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not a date like 2025-04-30")
    return date


def _kind(text: str) -> tuple[str, str]:
    name, _, kind = text.rpartition("=")
    if not name or kind not in ("vessel", "compact"):
        raise argparse.ArgumentTypeError(f"'{text}' is not like aorta=vessel or tumour=compact")
    return name, kind


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Compare the time points."""
    texts = [arguments.baseline, *arguments.followups]
    if arguments.dates and len(arguments.dates) != len(texts):
        raise InputError(f"There are {len(texts)} time points but {len(arguments.dates)} dates.")
    if arguments.registration not in REGISTRATIONS:
        existing(Path(arguments.registration), "transform")
    paths = [_time_point_paths(text) for text in texts]

    keep_libraries_quiet(arguments)
    from MedGSLib.longitudinal.compare import CompareConfig, compare_files

    report = compare_files(
        paths,
        arguments.output,
        dates=arguments.dates,
        labels=tuple(arguments.label or ()),
        registration=arguments.registration,
        progress=console.progress,
        config=CompareConfig(observer_sd_mm=arguments.observer_sd, kinds=dict(arguments.kind), keep_order=arguments.keep_order),
    )
    console.result("\n".join([*_lines(report), f"Compared {len(texts)} time points: {arguments.output}"]), output=str(arguments.output))


def _lines(report: dict[str, Any]) -> list[str]:
    """How the dates were aligned, and what changed in which segment, for people."""
    lines = [f"{_named(point)}: {point['registration']['message']}" for point in report["time_points"][1:]]
    for found in report["growth"]:
        line = f"{found['segment']}, {_named(report['time_points'][found['followup']])}: {found['verdict']}"
        if found["largest_significant_mm"] is not None:
            place = ", ".join(f"{value:.0f}" for value in found["largest_significant_place_ras"])
            line += f", at most {found['largest_significant_mm']:+.1f} mm at RAS ({place})"
        lines.append(line)
        for change in found["changes"]:
            name = change["measure"].replace("_", " ")
            rate = "" if change["per_year"] is None else f"  {change['per_year']:+.2f} a year"
            values = f"{change['before']:9.2f} -> {change['after']:9.2f} {change['unit']:<4} (error +-{change['band']:.2f})"
            lines.append(f"  {name:<18} {values} {change['verdict']}{rate}")
    return lines


def _named(point: dict[str, Any]) -> str:
    return str(point["date"] or point["name"])


def _time_point_paths(text: str) -> tuple[Path, ...]:
    """The one or two paths of a time point; a file whose name holds a comma is taken as it is."""
    whole = Path(text)
    if whole.exists():
        return (whole,)
    parts = tuple(Path(part) for part in text.split(","))
    if len(parts) > 2:
        raise InputError(f"'{text}' is no time point; give a result folder, a mesh, or IMAGE,MASK.")
    for part in parts:
        existing(part, "time point")
    return parts
