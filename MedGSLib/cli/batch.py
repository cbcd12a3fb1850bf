"""``medgs batch``: many cases from a CSV file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from MedGSLib.cli import reconstruct
from MedGSLib.cli.console import Console
from MedGSLib.cli.parser import ArgumentParser, add_command, existing, keep_libraries_quiet
from MedGSLib.errors import EXIT_DONE, InputError

DETAILS = """CASES.csv has one row a case and a heading row, separated by commas, semicolons or tabs.
The columns are 'image' and 'mask' (paths, relative to the CSV file), 'name' (folder of the case in OUT; default: from the image),
and any option of 'medgs reconstruct' without its dashes: label (several separated by ;), preset, scale, spacing, axis, annotated,
margin, no-crop (yes or empty), seed, ...

Cases that are finished and unchanged are skipped, interrupted ones are continued. OUT/summary.csv lists every case.
A failing case does not stop the others; then the exit code is that of the failures, or 1 where they differ."""

_YES = ("yes", "true", "1", "x")
_NO = ("", "no", "false", "0")


def add_parser(commands: Any) -> None:
    """Add the grammar of this subcommand."""
    parser = add_command(commands, "batch", run, "reconstruct many cases from a CSV file, resumable", DETAILS)
    parser.add_argument("cases", type=Path, metavar="CASES.csv", help="one row a case")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="folder for one folder a case, and summary.csv")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run all cases that are not finished."""
    existing(arguments.cases, "case list")
    keep_libraries_quiet(arguments)

    from MedGSLib.batch import read_cases, run_batch
    from MedGSLib.io.atomic import make_result_folder

    rows = read_cases(arguments.cases)
    _refuse_other_columns(rows, arguments.cases.name)
    if (arguments.output / "summary.csv").resolve() == arguments.cases.resolve():
        raise InputError(f"The summary would overwrite the case list {arguments.cases}; choose another output folder.")
    make_result_folder(arguments.output)

    def run_case(name: str) -> dict[str, Any]:
        return reconstruct.reconstruct_case(case_arguments(rows[name], arguments.cases.parent, arguments.output / name), console)

    outcomes = run_batch(rows, arguments.cases.parent, arguments.output, run_case, console.progress)
    failed = [outcome for outcome in outcomes if outcome.exit_code != EXIT_DONE]
    text = f"{len(outcomes) - len(failed)} of {len(outcomes)} cases are done: {arguments.output / 'summary.csv'}"
    console.result(text, summary=str(arguments.output / "summary.csv"), failed=[outcome.name for outcome in failed])
    codes = {outcome.exit_code for outcome in failed}
    return codes.pop() if len(codes) == 1 else min(1, len(codes))


def _refuse_other_columns(rows: dict[str, dict[str, str]], table: str) -> None:
    """Make sure that every column that is not empty describes a case.

    :raises InputError: naming one that does not.
    """
    options = ArgumentParser(add_help=False)
    reconstruct.add_case_options(options)
    for column in (column for row in rows.values() for column, text in row.items() if text and column != "image"):
        if f"--{column}" not in options._option_string_actions:
            raise InputError(f"The column '{column}' of {table} is none of 'image', 'mask', 'name' and the options of a case; remove it.")


def case_arguments(row: dict[str, str], folder: Path, output: Path) -> argparse.Namespace:
    """The arguments of ``medgs reconstruct`` that a row stands for.

    :param folder: what relative paths in the row start from.
    :raises InputError: for unknown columns and unusable values, naming both.
    """
    from MedGSLib.batch import PATH_COLUMNS

    argv = ["-o", str(output), "--resume"]
    for column, text in row.items():
        option = f"--{column.replace('_', '-')}"
        if column == "image":
            argv += [str(folder / text)] if text else []
        elif column in PATH_COLUMNS:
            argv += [option, str(folder / text)] if text else []
        elif column == "positions" and _is_file(folder, text):
            argv += [option, str(folder / text)]
        elif column == "label":
            argv += [part for name in text.split(";") if name.strip() for part in (option, name.strip())]
        elif column in ("no-crop", "no-self-check"):
            argv += [option] if _flag(column, text) else []
        elif text:
            argv += [option, text]
    return _row_parser(output.name).parse_args(argv)


def _is_file(folder: Path, text: str) -> bool:
    try:
        return bool(text) and (folder / text).is_file()
    except OSError:  # a list of positions longer than a file name may be
        return False


def _flag(column: str, text: str) -> bool:
    if text.lower() not in _YES + _NO:
        raise InputError(f"The column '{column}' says '{text}' where yes or no is needed.")
    return text.lower() in _YES


class _RowParser(ArgumentParser):
    """The grammar of ``medgs reconstruct`` whose errors are exceptions, since one row must not end the batch."""

    def error(self, message: str) -> Any:
        raise InputError(f"The row of case '{self.prog}' cannot be used: {message.rstrip('.')}.")


def _row_parser(name: str) -> _RowParser:
    parser = _RowParser(prog=name, add_help=False)
    parser.add_argument("image", nargs="?", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--resume", action="store_true")
    reconstruct.add_case_options(parser)
    return parser
