"""A worker process that obeys the job protocol but copies a ready-made result; run by the panel's tests.

The environment variable ``MEDGS_STUB`` says how (``quick``, ``slow``: until cancelled, ``fail``), ``MEDGS_STUB_OUTPUT`` which result.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from MedGSLib.errors import ResourceError
from MedGSLib.job.folder import JobFolder
from MedGSLib.job.request import JobRequest
from MedGSLib.job.worker import run_job
from MedGSLib.progress import Reporter


def reconstruct(_request: JobRequest, folder: JobFolder, progress: Any, _resume: bool) -> dict[str, Any]:
    """Report some steps and copy the result."""
    way = os.environ["MEDGS_STUB"]
    reporter = Reporter(progress)
    reporter.start("fit", 1000, "stub at work")
    shutil.copyfile(Path(__file__).resolve().parents[3] / "Resources" / "Icons" / "MedGS.png", folder.output / "preview_live.png")
    for step in range(1, 1001 if way == "slow" else 6):
        reporter.step(step, loss=1.0 / step)
        time.sleep(0.05 if way == "slow" else 0.01)
    if way == "fail":
        raise ResourceError("The stub ran out of memory.")
    shutil.copytree(os.environ["MEDGS_STUB_OUTPUT"], folder.output, dirs_exist_ok=True)
    return {}


if __name__ == "__main__":
    sys.exit(run_job(Path(sys.argv[2]), reconstruct))
