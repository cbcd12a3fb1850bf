"""``python -m MedGSLib.job worker JOBDIR`` and ``... probe [--strict]``: the worker's side without the command line's packages.

``... compare ...`` is handed on to the command line, which brings its packages along.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import List

from MedGSLib.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILURE

LOWER_PRIORITY = 5
"""Niceness of the worker, so that Slicer stays responsive while all cores compute."""


def main(arguments: List[str]) -> int:
    """Run ``worker JOBDIR``, ``compare``, or ``probe``, which with ``--strict`` fails where no job could be run. :return: the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if len(arguments) == 2 and arguments[0] == "worker":
        from MedGSLib.job.worker import run_job

        if hasattr(os, "nice"):
            os.nice(LOWER_PRIORITY)
        return run_job(Path(arguments[1]))
    if arguments in (["probe"], ["probe", "--strict"]):
        from MedGSLib.job.probe import is_ready, one_line, probe

        facts = probe()
        sys.stdout.write(json.dumps(facts, default=str) + "\n")
        sys.stderr.write(one_line(facts) + "\n")
        return EXIT_DONE if is_ready(facts) or "--strict" not in arguments else EXIT_FAILURE
    if arguments[:1] == ["compare"]:
        from MedGSLib.cli.main import main as command_line

        return command_line(arguments)
    sys.stderr.write("Give 'worker JOBDIR', 'compare' or 'probe'.\n")
    return EXIT_BAD_INPUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
