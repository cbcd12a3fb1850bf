"""``medgs reconstruct``: one case from files to dense volume, segmentation, meshes and report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from MedGSLib.cli.console import Console
from MedGSLib.cli.parser import (
    add_advanced_arguments,
    add_command,
    add_fit_arguments,
    add_input_arguments,
    config_overrides,
    count,
    existing,
    input_options,
    keep_libraries_quiet,
    positive,
)
from MedGSLib.errors import InputError

DETAILS = """files written to OUT:
  volume.nrrd        dense image in the input's units
  occupancy.nrrd     0..1, the surface lies at 0.5
  segmentation.nrrd  dense label map
  uncertainty.nrrd   expected error of the dense image
  mesh.vtp .stl .ply closed surface in mm (LPS)
  model.medgs        the Gaussians
  report.json        settings, self-check, measures, timings
  preview.png        input and output side by side

example:
  medgs reconstruct ct.nrrd --mask aorta.seg.nrrd --label aorta -o result"""


def add_parser(commands: Any) -> None:
    """Add the grammar of this subcommand."""
    parser = add_command(commands, "reconstruct", run, "reconstruct a dense volume, segmentation and mesh from slices", DETAILS)
    parser.add_argument("image", nargs="?", type=Path, metavar="IMAGE", help="NRRD, NIfTI, MHA, DICOM series folder or folder of frames")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="folder for the results")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run in OUT")
    add_case_options(parser)


def add_case_options(parser: argparse.ArgumentParser) -> None:
    """All options that describe one case, shared with the rows of ``medgs batch``."""
    add_input_arguments(parser)
    _add_job_arguments(parser)
    add_fit_arguments(parser)
    add_advanced_arguments(parser)


def _add_job_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to reconstruct")
    group.add_argument("--mode", choices=("joint", "image", "mask"), help="default: joint with a mask, else image")
    grid = group.add_mutually_exclusive_group()
    grid.add_argument("--scale", type=count, metavar="K", help="output slices for each input gap (default: closest to cubic voxels)")
    grid.add_argument("--spacing", dest="spacing_mm", type=positive, metavar="MM", help="distance of output slices instead of --scale")
    group.add_argument("--refine-mask", type=Path, metavar="MODEL", help="keep this model's geometry and train its mask head only")
    group.add_argument("--start-model", type=Path, metavar="MODEL", help="start a joint run from this image-only model")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Reconstruct one case."""
    keep_libraries_quiet(arguments)
    report = reconstruct_case(arguments, console)
    console.result(summary(report, arguments.output), output=str(arguments.output), report=str(arguments.output / "report.json"))


def reconstruct_case(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run the main job as the parsed arguments say.

    :return: the report that was written to OUT/report.json.
    :raises InputError: where the arguments contradict each other or name missing files.
    """
    mode = _checked_mode(arguments)
    for name in ("image", "mask", "refine_mask", "start_model"):
        existing(getattr(arguments, name), name.replace("_", " "))
    if arguments.output.exists() and not arguments.output.is_dir():
        raise InputError(f"The output '{arguments.output}' is a file, and a folder is needed.")

    from MedGSLib.config import preset_config
    from MedGSLib.reconstruct import reconstruct_files

    overrides = config_overrides(arguments)
    overrides["mode"] = mode
    for name in ("refine_mask", "start_model"):
        if name in overrides:
            overrides[name] = str(overrides[name])
    return reconstruct_files(
        arguments.image,
        arguments.mask,
        arguments.output,
        preset_config(arguments.preset, **overrides),
        input_options(arguments),
        progress=console.progress,
        resume=arguments.resume,
    )


def _checked_mode(arguments: argparse.Namespace) -> str:
    if arguments.image is None and arguments.mask is None:
        raise InputError("Give an image, a mask, or both.")
    mode = arguments.mode or ("mask" if arguments.image is None else "joint" if arguments.mask is not None else "image")
    if mode != "mask" and arguments.image is None:
        raise InputError(f"The mode '{mode}' needs an image.")
    if mode != "image" and arguments.mask is None:
        raise InputError(f"The mode '{mode}' needs a mask; add --mask, or choose --mode image.")
    if arguments.label and arguments.mask is None:
        raise InputError("A label was chosen but no mask was given; add --mask.")
    if arguments.refine_mask is not None and arguments.mask is None:
        raise InputError("Refining a mask head needs a mask; add --mask.")
    return mode


def summary(report: dict[str, Any], output: Path) -> str:
    """:return: some lines about a finished case for people."""
    seconds = report.get("timings", {}).get("total_s")
    lines = [
        f"{name}: {_figure(segment['volume_cm3'], 2)} cm3, {_figure(segment['area_cm2'], 1)} cm2"
        for name, segment in report.get("segments", {}).items()
    ]
    check = report.get("self_check") or {}
    methods = check.get("image") or {}
    if methods:
        figures = ", ".join(f"{name} {methods[name]['psnr_db']:.2f} dB" for name in ("medgs", "linear") if name in methods)
        lines.append(f"{check['left_out_slices']} acquired slices left out as a check: {figures} ({check['note']})")
    lines += report.get("remarks", [])
    done = f"Done in {seconds:.0f} s" if isinstance(seconds, (int, float)) else "Done"
    return "\n".join([*lines, f"{done}: {output} (report.json says how far to trust it, preview.png shows it)"])


def _figure(value: float, decimals: int) -> str:
    """A size with so many decimals, or with two digits where these would show little more than 0."""
    return f"{value:.{decimals}f}" if value >= 10 ** (1 - decimals) else f"{value:.2g}"
