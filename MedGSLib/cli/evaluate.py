"""``medgs evaluate``: slices are left out, reconstructed by several methods and compared with the truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from MedGSLib.cli.console import Console
from MedGSLib.cli.parser import (
    PRESETS,
    add_advanced_arguments,
    add_command,
    add_fit_arguments,
    add_input_arguments,
    config_overrides,
    count,
    existing,
    input_options,
    keep_libraries_quiet,
)
from MedGSLib.evaluation.names import METHODS, PROTOCOLS, kind_of

DEFAULT_METHODS = "medgs,linear,cubic,flow,sdf,morphological"


def add_parser(commands: Any) -> None:
    """Add the grammar of this subcommand."""
    parser = add_command(commands, "evaluate", run, "leave slices out, reconstruct them, and compare methods with the truth")
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a volume whose slices are all true")
    parser.add_argument(
        "--every", type=count, nargs="+", required=True, metavar="N", help="keep every N-th slice only; several N give several rows"
    )
    parser.add_argument(
        "--methods",
        type=_methods,
        default=_methods(DEFAULT_METHODS),
        metavar="A,B",
        help=f"of {', '.join(METHODS)}; medgs:fast names a preset (default: {DEFAULT_METHODS})",
    )
    parser.add_argument(
        "--protocols",
        choices=PROTOCOLS,
        nargs="+",
        default=(),
        metavar="P",
        help="image (slices left out), mask (dense image, mask left out), sparse (both left out), thick (averages over N slices); "
        "default: image, and with a mask also mask and sparse",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="folder for the table (JSON, CSV) and the plot")
    add_input_arguments(parser)
    add_fit_arguments(parser)
    add_advanced_arguments(parser)


def _methods(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    unknown = [name for name in names if kind_of(name) not in METHODS or name.partition(":")[2] not in ("", *PRESETS)]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"'{','.join(unknown)}' is none of {', '.join(METHODS)}")
    return names


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Evaluate and write the table."""
    existing(arguments.image, "image")
    existing(arguments.mask, "mask")

    keep_libraries_quiet(arguments)
    from MedGSLib.config import preset_config
    from MedGSLib.evaluation.evaluate import evaluate_files
    from MedGSLib.evaluation.table import Summary
    from MedGSLib.io.atomic import make_result_folder

    make_result_folder(arguments.output)
    table = evaluate_files(
        arguments.image,
        arguments.mask,
        arguments.output,
        every=tuple(arguments.every),
        methods=arguments.methods,
        protocols=tuple(arguments.protocols),
        config=preset_config(arguments.preset, **(config_overrides(arguments) | {"self_check": False})),
        inputs=input_options(arguments),
        progress=console.progress,
    )
    lines = [Summary(**line).sentence for line in table["summary"]]
    console.result("\n".join([*lines, f"Table and plot: {arguments.output}"]), output=str(arguments.output), rows=len(table["cells"]))
