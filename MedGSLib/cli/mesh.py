"""``medgs mesh``: a closed surface from the mask head of a model folder of ``medgs train``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from MedGSLib.cli.console import Console
from MedGSLib.cli.parser import add_command, existing, keep_libraries_quiet, label, positive, whole
from MedGSLib.cli.render import add_model_arguments
from MedGSLib.errors import InputError

DETAILS = """The mask is rendered at K positions for each frame gap and its surface extracted; x follows the frame columns and y the rows.

example:
  medgs mesh -m run1 --interp 4 --spacing 0.4 0.4 2.0 -o prostate.ply"""

FORMATS = (".ply", ".stl", ".vtp")


def add_parser(commands: Any) -> None:
    """Add the grammar of this subcommand."""
    parser = add_command(commands, "mesh", run, "extract the surface of the mask", DETAILS)
    add_model_arguments(parser)
    parser.add_argument(
        "--threshold", type=_fraction, default=0.5, metavar="X", help="mask level of the surface, between 0 and 1 (default: 0.5)"
    )
    parser.add_argument("--smooth", type=whole, default=0, metavar="N", help="passes of a filter that keeps the volume (default: 0, none)")
    parser.add_argument("--label", type=label, metavar="N|NAME", help="which mask where the model has several (default: the first)")
    spacing = parser.add_mutually_exclusive_group()
    spacing.add_argument("--spacing-from", "--spacing_from", type=Path, metavar="NIFTI", help="take the voxel spacing from this volume")
    spacing.add_argument(
        "--spacing",
        type=positive,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="pixel width, pixel height, frame distance in mm (default: as trained)",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT.ply", help=f"surface to write ({', '.join(FORMATS)})")


def _fraction(text: str) -> float:
    value = positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not between 0 and 1")
    return value


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Extract and write the surface."""
    existing(arguments.model, "model folder")
    existing(arguments.spacing_from, "volume with the spacing")
    if arguments.output.suffix.lower() not in FORMATS:
        raise InputError(f"The mesh '{arguments.output.name}' must end in one of {', '.join(FORMATS)}.")

    keep_libraries_quiet(arguments)
    from MedGSLib.frame_workflow.mesh import MeshOptions, mesh_model
    from MedGSLib.frame_workflow.model_folder import ModelFolder

    options = MeshOptions(
        interp=arguments.interp,
        threshold=arguments.threshold,
        smooth=arguments.smooth,
        label=arguments.label,
        spacing_mm=tuple(arguments.spacing) if arguments.spacing else None,
        spacing_from=arguments.spacing_from,
        device=arguments.device,
        threads=arguments.threads,
    )
    path = ModelFolder(arguments.model).model_path(arguments.iteration)
    measures = mesh_model(path, arguments.output, options, console.progress)
    text = f"{arguments.output}: {measures['triangles']} triangles, volume {measures['volume_cm3']:.6g} cm3"
    console.result(text, output=str(arguments.output), **measures)
