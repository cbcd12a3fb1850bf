"""``medgs demo``: a synthetic aortic aneurysm with known truth, reconstructed and measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from MedGSLib.cli.console import Console
from MedGSLib.cli.parser import add_command, add_fit_arguments, keep_libraries_quiet

DETAILS = """written: OUT/input/ (thick CT slices and their segmentation), the files of 'medgs reconstruct' in OUT/,
         and OUT/summary.png: input, output, true and measured diameters on one page;
         with --samples only OUT/2023/ and OUT/2025/, the slices of the aneurysm at two dates, to try 'medgs compare' on"""


def add_parser(commands: Any) -> None:
    """Add the grammar of this subcommand."""
    parser = add_command(commands, "demo", run, "reconstruct a synthetic aortic aneurysm whose true surface is known", DETAILS)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("medgs-demo"), metavar="OUT", help="folder for input and results (default: medgs-demo)"
    )
    parser.add_argument("--samples", action="store_true", help="only write scans of two dates, grown in between; reconstruct nothing")
    add_fit_arguments(parser)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Make the case, reconstruct it, compare with the truth."""
    keep_libraries_quiet(arguments)
    if arguments.samples:
        from MedGSLib.demo import write_samples

        written = write_samples(arguments.output)
        console.result("\n".join(f"Written: {path}" for path in written), output=str(arguments.output))
        return
    from MedGSLib.config import preset_config
    from MedGSLib.demo import run_demo

    config = preset_config(arguments.preset, device=arguments.device, threads=arguments.threads, seed=arguments.seed)
    measures = run_demo(arguments.output, config, console.progress)
    lines = [
        f"{measure.name:<33} true {measure.true:9.2f} {measure.unit:<4} measured {measure.measured:9.2f} {measure.unit}"
        for measure in measures
    ]
    console.result(
        "\n".join([*lines, f"One page with pictures: {arguments.output / 'summary.png'}"]),
        output=str(arguments.output),
        measures={measure.name: {"true": measure.true, "measured": measure.measured, "unit": measure.unit} for measure in measures},
    )
