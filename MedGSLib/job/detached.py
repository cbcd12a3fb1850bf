"""A process in a session of its own, whose output goes to a file so that it never waits for a reader and outlives its starter."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import FrozenSet, Mapping, Optional, Sequence, Tuple

from MedGSLib.errors import MedGSError
from MedGSLib.job.folder import ProcessRecord
from MedGSLib.job.process_tree import descendants, kill_each, kill_group, kill_tree, spawn_options

CONSOLE_TAIL = 1 << 16


class DetachedProcess:
    """A process that this program started, or one that an earlier run of this program did.

    Made by :meth:`start` or :meth:`attach`.
    """

    def __init__(self, record: ProcessRecord, popen: Optional[subprocess.Popen] = None) -> None:
        self.record = record
        self._popen = popen
        self._was_alive = popen is not None or record.is_alive()
        self._strays: FrozenSet[Tuple[int, str]] = frozenset()

    @classmethod
    def start(cls, argv: Sequence[str], cwd: Path, console: Path, environment: Mapping[str, str]) -> DetachedProcess:
        """Start a program detached from this one.

        :param argv: the program and its arguments; no shell sees them.
        :param console: file to which standard output and error are appended.
        :raises MedGSError: if the program cannot be started.
        """
        try:
            with console.open("ab") as stream:
                popen = subprocess.Popen(  # type: ignore[call-overload]
                    list(argv),
                    cwd=str(cwd),
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    close_fds=True,
                    **spawn_options(),
                )
        except (OSError, ValueError) as error:
            raise MedGSError(f"The program {argv[0]} cannot be started: {getattr(error, 'strerror', None) or error}.") from error
        return cls(ProcessRecord.of(popen.pid), popen)

    @classmethod
    def attach(cls, record: ProcessRecord) -> DetachedProcess:
        """Take over a process that another run of this program started."""
        return cls(record)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self.record.pid

    def is_alive(self) -> bool:
        """Whether the process still runs; answers at once."""
        return self.record.is_alive() if self._popen is None else self._popen.poll() is None

    @property
    def exit_code(self) -> Optional[int]:
        """The exit code of an ended process that this program started; None before that, and always for an attached one."""
        return None if self._popen is None else self._popen.poll()

    def remember_children(self) -> None:
        """Note which processes it started, so that :meth:`clean_up` finds even those that left its group."""
        self._strays |= descendants(self.pid)

    def kill(self) -> None:
        """End the process and everything that it started; does nothing once it has ended."""
        if self.is_alive():
            kill_tree(self.pid)

    def clean_up(self) -> None:
        """End what an ended process left running; nothing where it had ended long ago, as its number may be another's by now."""
        if self._was_alive:
            kill_group(self.pid)
            kill_each(self._strays)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end. :return: whether it came in time."""
        deadline = time.monotonic() + timeout_s
        while self.is_alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True


def tail(path: Path, most: int = CONSOLE_TAIL) -> str:
    """:return: the end of a text file, without raising for a missing file or undecodable bytes."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - most))
            return stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
