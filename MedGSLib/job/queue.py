"""One job at a time, first come first served: two jobs on one graphics card would only take each other's memory."""

from __future__ import annotations

from collections import deque
from typing import Deque, List, Optional, Tuple

from MedGSLib.errors import InputError
from MedGSLib.job.events import JobEvent
from MedGSLib.job.process import JobController


class JobQueue:
    """Jobs that wait for the one that runs; call :meth:`poll` a few times a second."""

    def __init__(self) -> None:
        self._waiting: Deque[JobController] = deque()
        self._active: Optional[JobController] = None

    @property
    def active(self) -> Optional[JobController]:
        """The job that runs now."""
        return self._active

    @property
    def waiting(self) -> Tuple[JobController, ...]:
        """The jobs that have not started, the next one first."""
        return tuple(self._waiting)

    def submit(self, job: JobController) -> None:
        """Start the job if none runs, else let it wait. A job that was taken over from an earlier session becomes the one that runs.

        :raises InputError: if the job is already in the queue, or runs while another one does.
        """
        if job is self._active or job in self._waiting:
            raise InputError("The job is already in the queue.")
        if job.state.is_active:
            if self._active is not None:
                raise InputError("Another job is running; only one can run at a time.")
            self._active = job
            return
        self._waiting.append(job)
        self._start_next()

    def cancel(self, job: JobController) -> None:
        """Cancel the job that runs, or drop one that waits."""
        if job is self._active:
            job.cancel()
        elif job in self._waiting:
            self._waiting.remove(job)

    def poll(self) -> List[Tuple[JobController, JobEvent]]:
        """Look at the running job and start the next one after its end.

        :return: the new events, each with its job. A job that has just ended is no longer :attr:`active`; its own state says how.
        """
        job = self._active
        if job is None:
            self._start_next()
            return []
        events = job.poll()
        if not job.state.is_active:
            self._active = None
            self._start_next()
        return [(job, event) for event in events]

    def stop(self) -> None:
        """Drop what waits and stop what runs, for an application that is closing; blocks for up to 2 s."""
        self._waiting.clear()
        if self._active is not None:
            self._active.stop()
            self._active = None

    def _start_next(self) -> None:
        while self._active is None and self._waiting:
            job = self._waiting.popleft()
            job.start()
            self._active = job if job.state.is_active else None
