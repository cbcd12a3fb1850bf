"""Comparing finished jobs of one patient in the background: which they are, the process that compares them, and its end. No Qt."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence

import slicer

from MedGSLib.errors import EXIT_DONE, InputError, MedGSError
from MedGSLib.job.detached import DetachedProcess, tail
from MedGSLib.job.events import EventReader, JobEvent
from MedGSLib.job.failures import explain_exit
from MedGSLib.job.folder import FolderState, JobFolder
from MedGSLib.job.launch import WorkerCommand
from MedGSLib.panel.session import KnownJob
from MedGSLib.scene.comparison import ComparisonNodes, comparisonToScene
from MedGSLib.scene.context import CONTEXT_KEY, SceneContext

CONSOLE_FILE = "console.log"
COMPARISONS = "comparisons"
"""The folder of all comparisons, beside that of all jobs."""

COMPARISON_FILE = "comparison.json"


@dataclass(frozen=True)
class ComparableJob:
    """A finished job; to one without segments those of the baseline are carried over.

    :ivar date: YYYY-MM-DD, or empty where nobody knows.
    """

    folder: JobFolder
    context: SceneContext
    date: str

    @property
    def arguments(self) -> str:
        """The time point as ``medgs compare`` takes it, relative to the folder of all jobs; an irregular stack goes without its image."""
        name = self.folder.path.name
        geometry = self.folder.read_request().geometry
        isRegular = geometry is None or geometry.positions_mm is None
        return f"{name}/{self.folder.output.name}" + (f",{name}/image.nrrd" if isRegular else "")


def comparableJobs(known: Sequence[KnownJob]) -> List[ComparableJob]:
    """The finished jobs, the oldest date first."""
    found = []
    for job in known:
        if job.state is not FolderState.FINISHED or job.request is None:
            continue
        try:
            context = SceneContext.fromDict(job.request.provenance[CONTEXT_KEY])
        except (MedGSError, KeyError):
            continue
        found.append(ComparableJob(job.folder, context, isoDate(context.studyDate)))
    return sorted(found, key=lambda job: (job.date, job.folder.path.name))


def isoDate(text: str) -> str:
    """YYYY-MM-DD from that or from YYYYMMDD; empty from anything else.

    >>> isoDate("20250301"), isoDate("2025-03-01"), isoDate("spring")
    ('2025-03-01', '2025-03-01', '')
    """
    digits = text.replace("-", "")
    if len(digits) != 8 or not digits.isdigit():
        return ""
    try:
        time.strptime(digits, "%Y%m%d")
    except ValueError:
        return ""
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"


class ComparisonRun:
    """One comparison in a process of its own.

    :param jobs: what is compared; taken in the order of ``dates`` where all have one.
    :param dates: YYYY-MM-DD for each, or empty texts.
    :param baseline: which of them is the baseline; None takes the earliest.
    :ivar failure: why it failed, in a sentence and a next step.
    """

    def __init__(
        self,
        jobs: Sequence[ComparableJob],
        dates: Sequence[str],
        registration: str,
        root: Path,
        command: WorkerCommand,
        baseline: Optional[int] = None,
    ) -> None:
        if len(jobs) < 2:
            raise InputError("Tick at least two results of one patient.")
        pairs = list(zip(jobs, dates))
        first = None if baseline is None else pairs[baseline]
        self._isDated = all(isoDate(date) for date in dates)
        if self._isDated:
            pairs.sort(key=lambda pair: isoDate(pair[1]))
        elif any(dates):
            raise InputError("Give a date like 2025-03-01 for every ticked result, or for none.")
        if first is not None:
            pairs.sort(key=lambda pair: pair is not first)
        self.jobs = [job for job, _date in pairs]
        if not self.jobs[0].context.segments:
            raise InputError(f"{self.jobs[0].context.outputName} has no segment, so it cannot be the baseline.")
        self.failure = ""
        self.last: Optional[JobEvent] = None
        self.output = root.parent / COMPARISONS / time.strftime("compare-%Y%m%d-%H%M%S")
        self._root = root
        self._arguments = [job.arguments for job in self.jobs] + ["--registration", registration, "-o", str(self.output), "--json-events"]
        self._arguments += ["--keep-order"]
        if self._isDated:
            self._arguments += ["--dates", *(isoDate(date) for _job, date in pairs)]
        self._command = command
        self._process: Optional[DetachedProcess] = None
        self._reader = EventReader(self.output / CONSOLE_FILE)

    @property
    def isRunning(self) -> bool:
        """Whether the process is at work."""
        return self._process is not None

    @property
    def isDone(self) -> bool:
        """Whether the comparison is complete."""
        return self._process is None and not self.failure and (self.output / COMPARISON_FILE).is_file()

    def start(self) -> None:
        """Start the process.

        :raises MedGSError: if it cannot be started.
        """
        try:
            self.output.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"The folder {self.output} cannot be made: {error.strerror or error}.") from error
        console = self.output / CONSOLE_FILE
        self._process = DetachedProcess.start(self._command.argv("compare", *self._arguments), self._root, console, self._command.environ())

    def poll(self) -> List[JobEvent]:
        """Look at the process. :return: the events since the last call."""
        if self._process is None:
            return []
        isAlive = self._process.is_alive()
        events = self._reader.read()
        if events:
            self.last = events[-1]
        if not isAlive and not events:
            code = self._process.exit_code
            self._process.clean_up()
            self._process = None
            if code != EXIT_DONE:
                self.failure = self._explain(code)
        return events

    def stop(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.remember_children()
            self._process.kill()
            self._process.wait(1.0)
            self._process.clean_up()
            self._process = None
            self.failure = "Cancelled."

    def importInto(self, scene: slicer.vtkMRMLScene) -> ComparisonNodes:
        """Put the comparison into the scene.

        :raises MedGSError: if it is not complete; the scene is then as before.
        """
        return comparisonToScene(scene, self.output, [job.context for job in self.jobs])

    def _explain(self, code: Optional[int]) -> str:
        if self.last is not None and self.last.exit_code is not None and self.last.message:
            return self.last.message
        failure = explain_exit(code, tail(self.output / CONSOLE_FILE))
        return f"{failure.sentence} {failure.next_step}"
