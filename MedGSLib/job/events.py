"""``events.jsonl``: one JSON object a line, appended by the worker and read by the panel while it grows."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from MedGSLib.job.schema import finite
from MedGSLib.progress import ProgressEvent

HEARTBEAT = "heartbeat"
"""Level of the lines that say only that the worker is alive."""

LONGEST_LINE = 1 << 16
"""Longer lines cannot be events; they are skipped without being kept in memory."""

_WORDS = ("stage", "level", "message", "preview", "next_step")
_WHOLE = ("step", "total", "exit_code")
_NUMBERS = ("eta_s", "loss", "psnr", "gpu_mem_mb", "time", "idle_s")


@dataclass(frozen=True)
class JobEvent(ProgressEvent):
    """A progress event as it stands in the file.

    :ivar time: seconds since 1970 when it was written.
    :ivar preview: file name inside the job folder of a new preview picture.
    :ivar next_step: what the user may do about an error.
    :ivar exit_code: set on the last event of a run that did not succeed.
    :ivar idle_s: on heartbeats, seconds since the last progress.
    """

    time: float = 0.0
    preview: str = ""
    next_step: str = ""
    exit_code: Optional[int] = None
    idle_s: Optional[float] = None

    @property
    def is_heartbeat(self) -> bool:
        """Whether the line says nothing but that the worker lives."""
        return self.level == HEARTBEAT

    @property
    def fraction(self) -> Optional[float]:
        """How much of the stage is done, 0 to 1, or None where that is not known."""
        return min(1.0, max(0.0, self.step / self.total)) if self.total > 0 else None

    @classmethod
    def from_progress(cls, event: ProgressEvent, **extra: Any) -> JobEvent:
        """The event of the library, stamped with the time now."""
        return cls(**asdict(event), **{"time": time.time(), **extra})

    @classmethod
    def from_line(cls, line: bytes) -> Optional[JobEvent]:
        """:return: the event of one line, or None where the line is none (garbage, half-written, another program's output)."""
        try:
            document = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            return None
        if not isinstance(document, dict) or not isinstance(document.get("stage"), str):
            return None
        return cls(**_sound_members(document))

    def as_line(self) -> str:
        """:return: compact JSON without empty fields, NaN or infinities, and without the line's end."""
        members = {name: finite(value) if name in _NUMBERS else value for name, value in self.as_dict().items()}
        return json.dumps({name: value for name, value in members.items() if value is not None}, separators=(",", ":"))


class EventWriter:
    """Appends events to a file, each flushed at once; safe to use from several threads since a line is one write.

    A full disk must not hide the reason for it: a failed write sets :attr:`failed` and is otherwise ignored.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
        self.failed = False
        if not _ends_with_newline(path):
            self._write(b"\n")

    def write(self, event: JobEvent) -> None:
        """Append one event."""
        self._write(event.as_line().encode("utf-8") + b"\n")

    def close(self) -> None:
        """Close the file; later writes are ignored."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _write(self, data: bytes) -> None:
        if self._descriptor < 0:
            return
        try:
            os.write(self._descriptor, data)
        except OSError:
            self.failed = True


class EventReader:
    """Reads what was appended since the last call; tolerates a half-written last line, garbage and a file not yet there.

    :ivar garbage: lines skipped so far because they were no events.
    """

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self._path = path
        self._rest = b""
        self._skipping = False
        self._offset = path.stat().st_size if from_end and path.exists() else 0
        self.garbage = 0

    def read(self, most: int = 1 << 22) -> List[JobEvent]:
        """:param most: bytes to read at most in this call, so that a panel never waits long; -1 for all. :return: the new events."""
        try:
            with self._path.open("rb") as stream:
                if stream.seek(0, os.SEEK_END) < self._offset:
                    self._offset, self._rest, self._skipping = 0, b"", False
                stream.seek(self._offset)
                data = stream.read(most)
        except OSError:
            return []
        self._offset += len(data)
        return self._events(data)

    def _events(self, data: bytes) -> List[JobEvent]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        events = []
        for line in lines:
            event = None if self._skipping or len(line) > LONGEST_LINE else JobEvent.from_line(line)
            self._skipping = False
            if event is not None:
                events.append(event)
            elif line.strip():
                self.garbage += 1
        if len(self._rest) > LONGEST_LINE:
            self._rest, self._skipping = b"", True
        return events


def _sound_members(document: Mapping[str, Any]) -> Dict[str, Any]:
    sound: Dict[str, Any] = {name: document[name] for name in _WORDS if isinstance(document.get(name), str)}
    for name in (*_WHOLE, *_NUMBERS):
        value = document.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and finite(value) is not None:
            sound[name] = int(value) if name in _WHOLE else float(value)
    return sound


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            return True
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"
