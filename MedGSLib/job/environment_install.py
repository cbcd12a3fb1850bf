"""Carries out the installation of the private environment, step by step in processes of its own, once the user has agreed."""

from __future__ import annotations

import enum
import shutil
import time
from pathlib import Path
from typing import Callable, List, Mapping, Optional, Sequence

from MedGSLib.errors import MedGSError, ResourceError
from MedGSLib.job.detached import DetachedProcess, tail
from MedGSLib.job.environment_plan import InstallPlan, InstallStep
from MedGSLib.job.failures import Failure, explain_exception, explain_install

DISK_RESERVE = 1.1
MEGABYTE = 1_000_000

StartProcess = Callable[[Sequence[str], Path, Path, Mapping[str, str]], DetachedProcess]


class InstallState(enum.Enum):
    """Where an installation stands."""

    IDLE = "idle"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Installer:
    """Runs the steps of a plan one after the other; call :meth:`poll` a few times a second.

    Install and Repair are the same: the record of a complete installation is taken away first, the packages are installed into a
    fresh venv (from the cache where they are unchanged), and the record is written last.

    :ivar state: where it stands.
    :ivar failure: why it failed.
    :ivar warnings: optional steps that failed, each as one sentence.
    :param start_process: starts a program; replaced in tests.
    """

    def __init__(self, plan: InstallPlan, start_process: StartProcess = DetachedProcess.start) -> None:
        self.state = InstallState.IDLE
        self.failure: Optional[Failure] = None
        self.warnings: List[str] = []
        self._plan = plan
        self._start_process = start_process
        self._process: Optional[DetachedProcess] = None
        self._index = 0
        self._log_offset = self._step_offset = 0

    @property
    def step(self) -> Optional[InstallStep]:
        """The step that runs."""
        return self._plan.steps[self._index] if self.state is InstallState.RUNNING else None

    @property
    def progress(self) -> float:
        """The part of the steps that is done, 0 to 1."""
        return 1.0 if self.state is InstallState.SUCCEEDED else self._index / len(self._plan.steps)

    def start(self, consent: bool = False) -> None:
        """Begin.

        :param consent: True once the user has seen :meth:`InstallPlan.summary` and agreed.
        :raises MedGSError: without consent, or if it is running already.
        :raises ResourceError: if the disk has too little room.
        :raises InputError: if the folder holds something else or cannot be made.
        """
        if consent is not True:
            raise MedGSError("Nothing is installed without your consent.")
        if self.state is InstallState.RUNNING:
            raise MedGSError("The installation is already running.")
        environment = self._plan.environment
        check_disk_space(environment.root, self._plan.build.disk_mb)
        environment.own()
        environment.mark_incomplete()
        environment.log_file.unlink(missing_ok=True)
        self.state, self.failure, self.warnings = InstallState.RUNNING, None, []
        self._index = self._log_offset = 0
        self._run_step()

    def poll(self) -> str:
        """Look at the running step and go on to the next after its end. :return: what was printed since the last call."""
        if self.state is InstallState.RUNNING and self._process is not None and not self._process.is_alive():
            self._process.clean_up()
            self._judge(self._process.exit_code)
        return self._new_text()

    def cancel(self) -> None:
        """Stop at once; what was downloaded stays in the cache for the next time."""
        if self.state is InstallState.RUNNING:
            self._kill()
            self.state = InstallState.CANCELLED
            self.failure = explain_exception(KeyboardInterrupt())

    def _run_step(self) -> None:
        step = self._plan.steps[self._index]
        environment = self._plan.environment
        try:
            with environment.log_file.open("a", encoding="utf-8") as log:
                log.write(f"\n=== {step.title}: {' '.join(step.argv[:1])} ({time.strftime('%H:%M:%S')})\n")
            self._step_offset = environment.log_file.stat().st_size
            self._process = self._start_process(step.argv, environment.root, environment.log_file, step.environment)
        except (MedGSError, OSError) as error:
            self._fail(explain_exception(error))

    def _judge(self, exit_code: Optional[int]) -> None:
        step = self._plan.steps[self._index]
        if exit_code != 0:
            failure = explain_install(self._step_log(), step.title)
            if not step.optional:
                self._fail(failure)
                return
            self.warnings.append(f"The step '{step.title}' failed and was left out: {failure.sentence}")
        self._index += 1
        if self._index < len(self._plan.steps):
            self._run_step()
            return
        try:
            self._plan.environment.mark_installed(self._plan.build.tag)
        except MedGSError as error:
            self._fail(explain_exception(error))
            return
        self.state = InstallState.SUCCEEDED

    def _fail(self, failure: Failure) -> None:
        self.state, self.failure = InstallState.FAILED, failure

    def _kill(self) -> None:
        if self._process is not None:
            self._process.remember_children()
            self._process.kill()
            self._process.wait(1.0)
            self._process.clean_up()

    def _step_log(self) -> str:
        log_file = self._plan.environment.log_file
        return tail(log_file, max(0, log_file.stat().st_size - self._step_offset)) if log_file.is_file() else ""

    def _new_text(self) -> str:
        log_file = self._plan.environment.log_file
        size = log_file.stat().st_size if log_file.is_file() else 0
        text = tail(log_file, size - self._log_offset) if size > self._log_offset else ""
        self._log_offset = max(size, self._log_offset)
        return text


def check_disk_space(folder: Path, need_mb: int) -> None:
    """:raises ResourceError: if the disk of ``folder``, which need not exist yet, has less than ``need_mb`` and a reserve."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free_mb = shutil.disk_usage(existing).free / MEGABYTE
    if free_mb < need_mb * DISK_RESERVE:
        raise ResourceError(
            f"The disk of {folder} has {free_mb / 1000:.1f} GB free and the environment needs {need_mb * DISK_RESERVE / 1000:.1f} GB; "
            "free some space or choose another folder."
        )
