"""The argument parser, the value types and the argument groups that several subcommands share."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NoReturn

from MedGSLib.errors import EXIT_BAD_INPUT, InputError

PRESETS = ("fast", "standard", "high", "paper")
LARGEST_WHOLE = 2**31 - 1
LARGEST_SEED = 2**63 - 1
SMALLEST_POSITIVE = 1e-9
"""Below this, quotients of lengths overflow."""


class ArgumentParser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are one sentence instead of the whole usage."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and one sentence on stderr."""
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {message.rstrip('.')} (see '{self.prog} --help').\n")


def add_command(commands: Any, name: str, run: Any, summary: str, details: str = "") -> ArgumentParser:
    """Add a subcommand.

    :param commands: the subparsers action of the main parser.
    :param run: called as ``run(arguments, console)``; returns the exit code (None = 0).
    :return: the subcommand's parser, ready for its own arguments.
    """
    parser: ArgumentParser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=details)
    parser.set_defaults(run=run)
    return parser


def add_message_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every subcommand has."""
    group = parser.add_argument_group("messages")
    group.add_argument("--json-events", action="store_true", help="print progress as JSON objects, one a line, on stdout")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")
    group.add_argument("-v", "--verbose", action="store_true", help="print what is being done in detail, and tracebacks of errors")


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number")
    if value < SMALLEST_POSITIVE:
        raise argparse.ArgumentTypeError(f"'{text}' is too small a number")
    return value


def non_negative(text: str) -> float:
    """A finite number of at least 0."""
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is a negative number")
    return value


def count(text: str) -> int:
    """A whole number of at least 1."""
    return _whole_number(text, 1, LARGEST_WHOLE)


def whole(text: str) -> int:
    """A whole number of at least 0."""
    return _whole_number(text, 0, LARGEST_WHOLE)


def seed(text: str) -> int:
    """A whole number that every random generator takes."""
    return _whole_number(text, 0, LARGEST_SEED)


def degree(text: str) -> int:
    """A drift polynomial's degree."""
    if text not in tuple("01234567"):
        raise argparse.ArgumentTypeError(f"the polynomial degree must be 0 to 7, not '{text}'")
    return int(text)


def label(text: str) -> str | int:
    """A segment by number, or by name."""
    return int(text) if text.isdecimal() else text


def annotated(text: str) -> str:
    """Which slices carry a mask: auto, all, every:N or list:0,5,9."""
    kind, _, value = text.partition(":")
    valid = {
        "auto": value == "" and ":" not in text,
        "all": value == "" and ":" not in text,
        "every": _is_whole(value, 1),
        "list": all(_is_whole(part) for part in value.split(",")),
    }
    if not valid.get(kind, False):
        raise argparse.ArgumentTypeError(f"'{text}' is none of auto, all, every:N, list:0,5,9")
    return text


def _is_whole(text: str, least: int = 0, largest: int = LARGEST_WHOLE) -> bool:
    return text.isdecimal() and len(text) < 100 and least <= int(text) <= largest


def _whole_number(text: str, least: int, largest: int) -> int:
    if not _is_whole(text, least, largest):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of {least} to {largest}")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number")
    return value


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """How the image and mask of a case are to be understood."""
    group = parser.add_argument_group("input")
    group.add_argument("--mask", type=Path, metavar="MASK", help="segmentation, label map or partial-volume mask of the same patient")
    group.add_argument(
        "--label",
        type=label,
        action="append",
        metavar="N|NAME",
        help="segment of MASK by number or name; repeat for several (default: all)",
    )
    group.add_argument(
        "--axis", choices=("auto", "i", "j", "k"), default="auto", help="array axis along which slices lie (auto: the largest spacing)"
    )
    group.add_argument(
        "--annotated",
        type=annotated,
        default="auto",
        metavar="WHICH",
        help="slices that carry a mask: auto, all, every:N or list:0,5,9 (auto: as found)",
    )
    crop = group.add_mutually_exclusive_group()
    crop.add_argument("--margin", type=non_negative, metavar="MM", help="crop to the mask plus this many mm (default: 10)")
    crop.add_argument("--no-crop", action="store_true", help="keep the whole volume")
    group.add_argument("--positions", metavar="MM,MM,...|FILE", help="slice positions in mm where the file's are wrong")
    group.add_argument(
        "--slice-thickness", type=positive, metavar="MM", help="thickness over which a slice averages (default: the header's)"
    )


def add_fit_arguments(parser: argparse.ArgumentParser, preset: str = "standard") -> None:
    """How the Gaussians are fitted."""
    group = parser.add_argument_group("reconstruction")
    group.add_argument(
        "--preset", choices=PRESETS, default=preset, help=f"quality against time; 'paper' is the published recipe (default: {preset})"
    )
    group.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="where to compute (auto: CUDA where it works)")
    group.add_argument("--threads", type=count, metavar="N", help="CPU threads (default: all cores)")
    group.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of every random choice (default: 0)")


def add_advanced_arguments(parser: argparse.ArgumentParser) -> None:
    """Overrides of the preset."""
    group = parser.add_argument_group("advanced (override the preset)")
    group.add_argument("--gaussians", type=count, metavar="N", help="number of Gaussians at the start")
    group.add_argument("--iterations", type=count, metavar="N", help="optimiser steps")
    group.add_argument("--degree", type=degree, metavar="0..7", help="degree of the drift polynomial")
    group.add_argument("--lambda-img", type=non_negative, metavar="X", help="weight of the image loss")
    group.add_argument("--lambda-seg", type=non_negative, metavar="X", help="weight of the mask loss")
    group.add_argument(
        "--slice-profile",
        choices=("auto", "point", "box", "gaussian"),
        help="how a slice averages over its thickness (default: auto, a box where the thickness is known)",
    )
    group.add_argument("--no-self-check", action="store_true", help="skip the check on left-out slices")


def input_options(arguments: argparse.Namespace) -> Any:
    """:return: the ``InputOptions`` that the input arguments mean."""
    from MedGSLib.config import InputOptions

    margin = {"margin_mm": None} if arguments.no_crop else {} if arguments.margin is None else {"margin_mm": arguments.margin}
    return InputOptions(
        labels=tuple(arguments.label or ()),
        axis=arguments.axis,
        annotated=arguments.annotated,
        positions=arguments.positions,
        slice_thickness_mm=arguments.slice_thickness,
        **margin,
    )


def config_overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """:return: the given fit and advanced arguments under the names of ``preset_config``'s overrides."""
    fields = ("mode", "scale", "spacing_mm", "device", "threads", "seed", "refine_mask", "start_model", "slice_profile")
    settings = ("gaussians", "iterations", "degree", "lambda_img", "lambda_seg")
    given = {name: getattr(arguments, name) for name in fields + settings if getattr(arguments, name, None) is not None}
    if getattr(arguments, "no_self_check", False):
        given["self_check"] = False
    return given


def existing(path: Path | None, what: str) -> Path | None:
    """:return: the path unchanged.

    :raises InputError: if a path is given that does not exist.
    """
    if path is not None and not path.exists():
        raise InputError(f"The {what} '{path}' does not exist.")
    return path


def keep_libraries_quiet(arguments: argparse.Namespace) -> None:
    """Keep the error lines of VTK and ITK off stderr, where a failure is one sentence; -v lets them through."""
    if not arguments.verbose:
        import SimpleITK
        from vtkmodules.vtkCommonCore import vtkLogger

        vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
