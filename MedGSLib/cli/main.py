"""Entry point of the ``medgs`` command: the grammar, and the exit code and sentence that each way of failing ends in."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from MedGSLib import __version__
from MedGSLib.cli.console import Console
from MedGSLib.cli.parser import ArgumentParser, add_message_arguments
from MedGSLib.cli.stopping import StopRequest
from MedGSLib.errors import EXIT_CANCELLED
from MedGSLib.failures import explain

COMMANDS = ("reconstruct", "evaluate", "compare", "train", "render", "mesh", "batch", "demo", "probe", "worker")
EXIT_CODES = """exit codes:
  0  done
  1  failure inside MedGS
  2  bad arguments or unusable input
  3  out of memory or disk space
  4  cancelled"""


def build_parser() -> ArgumentParser:
    """:return: the parser of the whole command line; each subcommand sets ``run`` and builds its own part."""
    parser = ArgumentParser(
        prog="medgs",
        description="Dense volumes, segmentations and meshes from thick or sparse medical slices, with Gaussian splatting. Research use.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"medgs {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"MedGSLib.cli.{name}").add_parser(commands)
    for command in commands.choices.values():
        add_message_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one ``medgs`` command.

    :param argv: arguments without the program name; those of the process if None.
    :return: exit code: 0 done, 1 failure, 2 bad arguments or unusable input, 3 out of memory or disk, 4 cancelled.
    """
    arguments = build_parser().parse_args(argv)
    console = Console.from_arguments(arguments)
    with StopRequest() as stop, _logging(arguments):
        console.stop = stop
        try:
            with console:
                return int(arguments.run(arguments, console) or 0)
        except (Exception, KeyboardInterrupt) as error:
            code, sentence = explain(error)
            console.error(sentence, code)
            if getattr(arguments, "verbose", 0) and code != EXIT_CANCELLED:
                logging.getLogger("MedGSLib").error("Traceback of the error", exc_info=error)
            return code


class _Sentences(logging.Formatter):
    """Level and message of a record, without the traceback that other handlers may want."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname}: {record.getMessage()}"


@contextmanager
def _logging(arguments: argparse.Namespace) -> Iterator[None]:
    """Send the library's log to stderr while a command runs."""
    level = logging.DEBUG if arguments.verbose else logging.ERROR if arguments.quiet else logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s") if arguments.verbose else _Sentences())
    logger = logging.getLogger("MedGSLib")
    previous = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(previous)


if __name__ == "__main__":
    sys.exit(main())
