"""``python -m MedGSLib.job worker JOBDIR`` and ``... probe``: the worker's side without the command line's packages."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import List

from MedGSLib.errors import EXIT_BAD_INPUT, EXIT_DONE


def main(arguments: List[str]) -> int:
    """Run ``worker JOBDIR`` or ``probe``. :return: the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if len(arguments) == 2 and arguments[0] == "worker":
        from MedGSLib.job.worker import run_job

        return run_job(Path(arguments[1]))
    if arguments == ["probe"]:
        from MedGSLib.job.probe import probe

        sys.stdout.write(json.dumps(probe(), default=str) + "\n")
        return EXIT_DONE
    sys.stderr.write("Give 'worker JOBDIR' or 'probe'.\n")
    return EXIT_BAD_INPUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
