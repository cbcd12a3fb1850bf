"""Job folders with a small request, and controllers whose worker is a script of this folder."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Callable, List, Tuple

import pytest

from MedGSLib.job.events import JobEvent
from MedGSLib.job.folder import JobFolder
from MedGSLib.job.launch import WorkerCommand
from MedGSLib.job.process import JobController
from MedGSLib.job.request import JobInputs, JobRequest
from MedGSLib.volume import Label

LAUNCHER = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
"""Starts another program and waits for it, as PythonSlicer and the python.exe of a venv on Windows do."""

SCRIPT = Path(__file__).with_name("scripted_worker.py")


class ScriptedCommand(WorkerCommand):
    """Starts ``scripted_worker.py BEHAVIOUR JOBDIR`` instead of the library."""

    def __init__(self, behaviour: str, launcher: bool = False) -> None:
        super().__init__(Path(sys.executable))
        object.__setattr__(self, "behaviour", behaviour)
        object.__setattr__(self, "launcher", launcher)

    def argv(self, *arguments: str) -> List[str]:
        """The script's argument list; the worker's first argument is always ``worker``."""
        assert arguments[0] == "worker"
        command = [str(self.python), str(SCRIPT), self.behaviour, *arguments[1:]]  # type: ignore[attr-defined]
        return [str(self.python), "-c", LAUNCHER, *command] if self.launcher else command  # type: ignore[attr-defined]


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """A job folder whose inputs are stand-ins, under a path with a blank and letters beyond ASCII."""
    request = JobRequest(
        inputs=JobInputs(image="image.nrrd", mask="mask.nrrd", labels=(Label(3, "Aorta", (1.0, 0.0, 0.5)),)),
        parameters={"preset": "fast", "scale": 2},
        provenance={"volume": "CTA"},
        title="CTA: Aorta",
    )
    made = JobFolder.create(tmp_path / "jobs für Ärzte", request)
    for name in ("image.nrrd", "mask.nrrd"):
        (made.path / name).write_bytes(b"stand-in")
    return made


@pytest.fixture
def control(folder: JobFolder):
    """A function that makes a controller for a behaviour; whatever still runs at the end of the test is killed."""
    made: List[JobController] = []

    def make(behaviour: str, launcher: bool = False, **options: float) -> JobController:
        made.append(JobController(folder, ScriptedCommand(behaviour, launcher), **options))
        return made[-1]

    yield make
    for controller in made:
        controller.stop()


def follow(controller: JobController, until: Callable[[List[JobEvent]], bool], timeout_s: float = 20.0) -> Tuple[List[JobEvent], float]:
    """Poll until the condition on all events so far holds. :return: the events and the seconds that it took."""
    events: List[JobEvent] = []
    started = time.monotonic()
    while not until(events):
        elapsed = time.monotonic() - started
        assert elapsed < timeout_s, f"still {controller.state} after {elapsed:.1f} s; events {events}"
        events += controller.poll()
        time.sleep(0.02)
    return events, time.monotonic() - started


@pytest.fixture
def to_end():
    """A function that polls a controller until its job has ended and returns the events."""

    def run(controller: JobController, timeout_s: float = 20.0) -> List[JobEvent]:
        return follow(controller, lambda _: controller.state.is_final, timeout_s)[0]

    return run


@pytest.fixture
def until():
    """The function :func:`follow`."""
    return follow
