"""``medgs worker``: run one job folder, as the Slicer panel starts it."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from MedGSLib.cli.console import Console
from MedGSLib.cli.parser import add_command, existing


def add_parser(commands: Any) -> None:
    """Add the grammar of this subcommand."""
    parser = add_command(commands, "worker", run, "run the job in a folder with a request.json (used by the Slicer module)")
    parser.add_argument("job", type=Path, metavar="JOBDIR", help="folder with request.json; results go there too")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the job; its events go to JOBDIR/events.jsonl and, off a terminal, as JSON to stdout."""
    existing(arguments.job, "job folder")

    from MedGSLib.job.worker import run_job

    if not sys.stdout.isatty():
        console.style = "quiet"  # the worker itself writes the events
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the worker's own watch interrupts the work without further delay
    return run_job(arguments.job, stop=console.progress)
