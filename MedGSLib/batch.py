"""Many cases in a row: finished ones are skipped, interrupted ones continued, and a failing one does not stop the others."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from MedGSLib.errors import EXIT_DONE, Cancelled, InputError
from MedGSLib.failures import explain
from MedGSLib.io.atomic import atomic_write
from MedGSLib.job.result import RESULT_NAME, JobResult, collect_outputs, current_versions, verify, write_result
from MedGSLib.progress import ProgressCallback, Reporter

logger = logging.getLogger(__name__)

STAGE = "batch"
REPORT_NAME = "report.json"
Row = dict[str, str]
SEPARATORS = (",", ";", "\t")
PATH_COLUMNS = ("image", "mask", "refine-mask", "start-model")
"""Columns that name a file or a folder, relative to the case list."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case; ``status`` is done, skipped (was done before) or failed.

    ``volumes_cm3`` names each segment's volume; the PSNR are those of the run's check on left-out slices, empty where there was none.
    """

    name: str
    status: str
    exit_code: int
    seconds: float
    message: str = ""
    volumes_cm3: str = ""
    psnr_db: str = ""
    linear_psnr_db: str = ""


def read_cases(path: Path) -> dict[str, Row]:
    """Read the case list.

    :return: name of the case to its row: column (lower case, dashes) to text.
    :raises InputError: if it is no table with a heading, has no cases, or two cases share a name.
    """
    table = _table(path)
    if len(table) < 2:
        raise InputError(f"The case list {path.name} has no cases; it needs a heading row and one row a case.")
    columns = [cell.strip().lower().replace("_", "-") for cell in table[0]]
    if "image" not in columns and "mask" not in columns:
        raise InputError(f"The case list {path.name} has neither a column 'image' nor a column 'mask'.")
    cases: dict[str, Row] = {}
    for number, cells in enumerate(table[1:], start=1):
        if len(cells) > len(columns):
            raise InputError(f"Case {number} of {path.name} has {len(cells)} cells under {len(columns)} columns.")
        row = dict(zip(columns, (cell.strip() for cell in cells)))
        name = _folder_name(row.pop("name", "") or row.get("image", "") or row.get("mask", "") or f"case{number}")
        if name in cases:
            raise InputError(f"Two cases of {path.name} are called '{name}'; give each its own 'name'.")
        cases[name] = row
    return cases


def _table(path: Path) -> list[list[str]]:
    """The rows that are not empty, separated by what separates the headings: commas, or semicolons or tabs as spreadsheets write them."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        if lines and lines[0].lower().startswith("sep="):
            lines = lines[1:]
        heading = next((line for line in lines if line.strip()), "")
        separator = max(SEPARATORS, key=heading.count)
        return [row for row in csv.reader(lines, delimiter=separator) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The case list {path.name} is not a CSV text file; save it as CSV in UTF-8.") from error


def _folder_name(text: str) -> str:
    stem = re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    stem = re.sub(r"\.(nii\.gz|seg\.nrrd|[A-Za-z]+)$", "", stem)
    return re.sub(r"[^\w.-]+", "_", stem).strip(".") or "case"


def run_batch(
    cases: Mapping[str, Row],
    folder: Path,
    output: Path,
    run_case: Callable[[str], dict[str, Any]],
    progress: ProgressCallback | None = None,
) -> list[Outcome]:
    """Run ``run_case`` for every case that is not finished, and keep ``output/summary.csv`` up to date.

    :param cases: name to row; a finished case is skipped as long as its row and its input files are the same and its outputs are whole.
    :param folder: what relative paths in the rows start from.
    :param run_case: writes ``output/<name>`` and returns the report; may raise.
    :raises Cancelled: when the callback answers False; the summary then holds the cases until there.
    """
    reporter = Reporter(progress)
    outcomes: list[Outcome] = []
    for number, (name, row) in enumerate(cases.items()):
        reporter.start(STAGE, len(cases), f"Case {number + 1} of {len(cases)}: {name}")
        case, fingerprint = output / name, _fingerprint(row, folder)
        if _is_finished(case, fingerprint):
            outcomes.append(Outcome(name, "skipped", EXIT_DONE, 0.0, "finished before", **_figures(_read_report(case))))
        else:
            outcomes.append(_run_one(name, case, fingerprint, run_case))
        _write_summary(output / "summary.csv", outcomes)
        if outcomes[-1].exit_code != EXIT_DONE:
            reporter.message(f"{name} failed: {outcomes[-1].message}", level="error")
    return outcomes


def _run_one(name: str, folder: Path, fingerprint: str, run_case: Callable[[str], dict[str, Any]]) -> Outcome:
    started = time.monotonic()
    try:
        (folder / RESULT_NAME).unlink(missing_ok=True)
        report = run_case(name)
        result = JobResult(
            collect_outputs(folder, folder), timings=report.get("timings", {}), versions=current_versions(),
            request_sha256=fingerprint, finished=time.time(),
        )  # fmt: skip
        write_result(folder, result)
    except Cancelled:
        raise
    except Exception as error:
        logger.debug("Case %s failed", name, exc_info=error)
        exit_code, sentence = explain(error)
        return Outcome(name, "failed", exit_code, time.monotonic() - started, sentence)
    return Outcome(name, "done", EXIT_DONE, time.monotonic() - started, **_figures(report))


def _read_report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / REPORT_NAME).read_text(encoding="utf-8")) if (folder / REPORT_NAME).is_file() else {}


def _figures(report: Mapping[str, Any]) -> dict[str, str]:
    """The report's figures that belong into the summary."""
    methods = (report.get("self_check") or {}).get("image") or {}
    figures = {
        column: f"{methods[method]['psnr_db']:.2f}"
        for column, method in (("psnr_db", "medgs"), ("linear_psnr_db", "linear"))
        if method in methods
    }
    volumes = "; ".join(f"{name} {segment['volume_cm3']:.3f}" for name, segment in (report.get("segments") or {}).items())
    return {"volumes_cm3": volumes, **figures}


def _fingerprint(row: Row, folder: Path) -> str:
    """Hash of a row, and of the sizes and times of the files that it names."""
    inputs = [_state(folder / row[column]) for column in (*PATH_COLUMNS, "positions") if row.get(column)]
    return hashlib.sha256(json.dumps([row, inputs], sort_keys=True).encode()).hexdigest()


def _state(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of a file, or of those in a folder; nothing where there is none."""
    try:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    except OSError:
        return []


def _is_finished(folder: Path, fingerprint: str) -> bool:
    if not (folder / RESULT_NAME).is_file():
        return False
    try:
        return verify(folder).request_sha256 == fingerprint
    except InputError as error:
        logger.warning("%s is done again: %s", folder.name, error)
        return False


def _write_summary(path: Path, outcomes: list[Outcome]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Outcome)])
        writer.writeheader()
        writer.writerows({**asdict(outcome), "seconds": f"{outcome.seconds:.1f}"} for outcome in outcomes)
