"""``medgs render``: frames at and between the trained ones, from a model folder of ``medgs train``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from MedGSLib.cli.console import Console
from MedGSLib.cli.parser import ArgumentParser, add_command, count, existing

DETAILS = """written: render_img/00000_0.png, 00000_1.png, ... and render_mask/ likewise; 00012_3.png lies at 3/K between frames 12 and 13.

example:
  medgs render -m run1 --interp 4 --render both"""

EXTENSIONS = ("png", "tif", "tiff", "bmp", "jpg", "jpeg")


def add_parser(commands: Any) -> None:
    """Add the grammar of this subcommand."""
    parser = add_command(commands, "render", run, "render frames at and between the trained ones", DETAILS)
    add_model_arguments(parser)
    parser.add_argument("--render", choices=("img", "mask", "both"), default="both", help="what to render (default: what the model has)")
    parser.add_argument(
        "--chunk", type=count, metavar="N", help="frames rendered at once; fewer need less memory (default: as memory allows)"
    )
    parser.add_argument("--extension", type=_extension, default="png", metavar="EXT", help=f"of {', '.join(EXTENSIONS)} (default: png)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="where render_img/ and render_mask/ go (default: beside the model)"
    )


def add_model_arguments(parser: ArgumentParser) -> None:
    """Which model, how densely, and on which device; shared with ``medgs mesh``."""
    parser.add_argument("-m", "--model", required=True, type=Path, metavar="MODELDIR", help="folder written by 'medgs train'")
    parser.add_argument("--iteration", type=_iteration, default="latest", metavar="N|latest", help="which saved model (default: latest)")
    parser.add_argument("--interp", type=count, default=1, metavar="K", help="K-1 frames between each two trained ones (default: 1, none)")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="where to compute (default: auto)")
    parser.add_argument("--threads", type=count, metavar="N", help="CPU threads (default: all cores)")


def _iteration(text: str) -> str:
    if text not in ("latest", "-1") and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is neither an iteration number nor 'latest'")
    return "latest" if text == "-1" else text


def _extension(text: str) -> str:
    extension = text.lstrip(".").lower()
    if extension not in EXTENSIONS:
        raise argparse.ArgumentTypeError(f"'{text}' is none of {', '.join(EXTENSIONS)}")
    return extension


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Render the frames."""
    existing(arguments.model, "model folder")

    from MedGSLib.frame_workflow.model_folder import ModelFolder
    from MedGSLib.frame_workflow.render import RenderOptions, render_frames

    folder = ModelFolder(arguments.model)
    options = RenderOptions(
        interp=arguments.interp,
        what=arguments.render,
        chunk=arguments.chunk,
        extension=arguments.extension,
        device=arguments.device,
        threads=arguments.threads,
    )
    beside = arguments.model.parent if arguments.model.is_file() else arguments.model
    output = arguments.output or beside
    written = render_frames(folder.model_path(arguments.iteration), output, options, console.progress)
    console.result(f"{len(written)} frames are in {output}", frames=len(written))
