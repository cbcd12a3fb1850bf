"""The panel's side of a running job: start or take over the worker, follow it without blocking, cancel it, and judge its end."""

from __future__ import annotations

import enum
import math
import shutil
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, List, Optional

from MedGSLib.errors import EXIT_CANCELLED, EXIT_DONE, EXIT_NO_RESOURCES, InputError, MedGSError
from MedGSLib.job.detached import DetachedProcess, tail
from MedGSLib.job.events import EventReader, JobEvent
from MedGSLib.job.failures import CHECK_DISK, Failure, explain_exception, explain_exit
from MedGSLib.job.folder import FolderState, JobFolder, last_exit_code
from MedGSLib.job.launch import WorkerCommand
from MedGSLib.job.result import JobResult, verify

HANG_AFTER_S = 60.0
"""Silence after which a worker counts as hung; it writes a heartbeat every 2 s."""

CANCEL_GRACE_S = 1.2
"""Time that a cancelled worker gets to end by itself before its whole process tree is killed."""

LONGEST_POLL_GAP_S = 5.0
"""Silence is counted only as far as this between two polls: a sleeping computer or a busy panel is no hung worker."""

ALMOST_FULL_BYTES = 1 << 20


class JobState(enum.Enum):
    """Where a job stands."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    HUNG = "not responding"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_active(self) -> bool:
        """Whether a worker process is, or should be, alive."""
        return self in (JobState.STARTING, JobState.RUNNING, JobState.HUNG, JobState.CANCELLING)

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobController:
    """Follows one job. All methods return at once, except :meth:`stop`; call :meth:`poll` a few times a second.

    Slicer lets other Python threads run only while its main thread runs Python, that is during a poll, so nothing here waits for a thread
    that has to take turns often: files are hashed in large pieces, and a late worker is killed by the poll, by a thread only without one.

    :ivar state: where the job stands.
    :ivar last_event: the last event other than a heartbeat.
    :ivar failure: why the job failed or was cancelled.
    :ivar result: the verified manifest of a job that succeeded.
    :param clock: seconds that only go forward; replaced in tests.
    """

    def __init__(
        self,
        folder: JobFolder,
        command: WorkerCommand,
        hang_after_s: float = HANG_AFTER_S,
        cancel_grace_s: float = CANCEL_GRACE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.state = JobState.IDLE
        self.last_event: Optional[JobEvent] = None
        self.failure: Optional[Failure] = None
        self.result: Optional[JobResult] = None
        self._command = command
        self._hang_after_s = hang_after_s
        self._cancel_grace_s = cancel_grace_s
        self._clock = clock
        self._process: Optional[DetachedProcess] = None
        self._reader = EventReader(folder.events_file)
        self._kill_timer: Optional[threading.Timer] = None
        self._kill_at = math.inf
        self._verification: Optional[Future] = None
        self._reported_exit: Optional[int] = None
        self._started_at = self._ended_at = self._polled_at = 0.0
        self._silent_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start (or since it was taken over), until the end."""
        if self.state is JobState.IDLE:
            return 0.0
        return (self._ended_at if self.state.is_final else self._clock()) - self._started_at

    def start(self) -> None:
        """Start the worker, which resumes from a checkpoint where the folder has one; failing to start ends in FAILED.

        :raises InputError: if the job is already running.
        """
        if self.state.is_active or self.folder.state() is FolderState.RUNNING:
            raise InputError("The job is already running.")
        self._begin(JobState.STARTING, from_end=True)
        try:
            self.folder.cancel_file.unlink(missing_ok=True)
            self._process = DetachedProcess.start(
                self._command.argv("worker", str(self.folder.path)), self.folder.path, self.folder.console_file, self._command.environ()
            )
            self.folder.record(self._process.pid)
        except (MedGSError, OSError) as error:
            if self._process is not None:
                self._process.kill()
            self._end(JobState.FAILED, explain_exception(error))

    def attach(self) -> None:
        """Take over the worker that an earlier session started in the folder, or judge the end that it came to meanwhile.

        :raises InputError: if the job was never started.
        """
        record = self.folder.process()
        if record is None:
            raise InputError(f"The job in {self.folder.path} was never started.")
        self._begin(JobState.STARTING, from_end=False)
        self._process = DetachedProcess.attach(record)

    def poll(self) -> List[JobEvent]:
        """Look at the worker. :return: the events since the last call, heartbeats left out; the state is up to date after it."""
        if not self.state.is_active:
            return []
        if self._process is not None and self._clock() >= self._kill_at:
            self._process.kill()
        alive = self._process is not None and self._process.is_alive()
        received = self._reader.read()
        events = [event for event in received if not event.is_heartbeat]
        for event in events:
            self.last_event = event if event.message or event.total or self.last_event is None else self.last_event
            self._reported_exit = event.exit_code
        self._watch_silence(bool(received))
        if not alive and not received:
            self._judge_end()
        elif alive and received and self.state in (JobState.STARTING, JobState.HUNG):
            self.state = JobState.RUNNING
        elif alive and self.state in (JobState.STARTING, JobState.RUNNING) and self._silent_s > self._hang_after_s:
            self.state = JobState.HUNG
        return events

    def cancel(self) -> None:
        """Ask the worker to stop, and have its process tree killed if it has not within the grace time, polled or not.

        Does nothing once the worker has ended by itself: its result is judged as it is.
        """
        if not self.state.is_active or self.state is JobState.CANCELLING or self._process is None or not self._process.is_alive():
            return
        self.state = JobState.CANCELLING
        self._process.remember_children()
        try:
            self.folder.cancel_file.touch()
            grace = self._cancel_grace_s
        except OSError:
            grace = 0.0
        self._kill_at = self._clock() + grace
        self._kill_timer = threading.Timer(grace, self._process.kill)
        self._kill_timer.daemon = True
        self._kill_timer.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Cancel and wait for the end, for an application that is closing; blocks up to ``timeout_s`` and kills what is left then.

        A result that is still being checked stays in its folder, to be imported later.
        """
        self.cancel()
        if self._process is not None and self.state.is_active:
            if not self._process.wait(max(0.0, timeout_s - 0.5)):
                self._process.kill()
                self._process.wait(0.5)
            while self.state.is_active and self._verification is None and not self._process.is_alive():
                self.poll()

    def _begin(self, state: JobState, from_end: bool) -> None:
        self.state = state
        self.failure = self.result = self.last_event = self._verification = self._reported_exit = self._process = None
        self._reader = EventReader(self.folder.events_file, from_end=from_end)
        self._kill_at = math.inf
        self._started_at = self._polled_at = self._clock()
        self._silent_s = 0.0

    def _watch_silence(self, heard: bool) -> None:
        now = self._clock()
        self._silent_s = 0.0 if heard else self._silent_s + min(now - self._polled_at, LONGEST_POLL_GAP_S)
        self._polled_at = now

    def _judge_end(self) -> None:
        """The worker has ended and its last event was read: success needs exit code 0 and a valid manifest."""
        assert self._process is not None
        if self.state is JobState.CANCELLING:
            self._end(JobState.CANCELLED, explain_exit(EXIT_CANCELLED, ""))
            return
        code = self._exit_code()
        if code != EXIT_DONE:
            self._end(JobState.CANCELLED if code == EXIT_CANCELLED else JobState.FAILED, self._explain(code))
            return
        if self._verification is None:
            self._verification = _in_background(lambda: verify(self.folder.path))
        if not self._verification.done():
            return
        error = self._verification.exception()
        if error is None:
            self.result = self._verification.result()
            self._end(JobState.SUCCEEDED, None)
        else:
            self._end(JobState.FAILED, explain_exception(error))

    def _exit_code(self) -> Optional[int]:
        """That of our own child; for one that was taken over, what it reported or what its result means."""
        assert self._process is not None
        code = self._process.exit_code
        if code is None:
            code = self._reported_exit
        if code is None and self.folder.result_file.is_file():
            code = EXIT_DONE
        return code

    def _explain(self, code: Optional[int]) -> Failure:
        event = self.last_event
        if event is not None and event.exit_code is not None and event.message:
            return Failure(event.message, event.next_step or Failure("").next_step, event.exit_code)
        failure = explain_exit(code, tail(self.folder.console_file))
        if failure.exit_code == EXIT_NO_RESOURCES and shutil.disk_usage(self.folder.path).free < ALMOST_FULL_BYTES:
            return Failure("The disk is full.", CHECK_DISK, EXIT_NO_RESOURCES)
        return failure

    def _end(self, state: JobState, failure: Optional[Failure]) -> None:
        if self._kill_timer is not None:
            self._kill_timer.cancel()
            self._kill_timer = None
        if self._process is not None:
            self._process.clean_up()
        self.state, self.failure, self._ended_at = state, failure, self._clock()


def import_finished(folder: JobFolder) -> JobResult:
    """The verified result of a job that finished earlier, here or on another machine.

    :raises InputError: if the job is still running, did not succeed, or an output is missing or was changed.
    """
    if folder.state() is FolderState.RUNNING:
        raise InputError("The job is still running; wait for its end or cancel it.")
    if not folder.result_file.is_file():
        raise InputError(f"The job in {folder.path} has not finished; resume it or run it again.")
    if last_exit_code(folder.events_file) not in (None, EXIT_DONE):
        raise InputError(f"The job in {folder.path} did not succeed; run it again.")
    return verify(folder.path)


def _in_background(work: Callable[[], JobResult]) -> Future:
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="medgs-verify")
    future = executor.submit(work)
    executor.shutdown(wait=False)
    return future
