"""What a command prints: progress bars on a terminal, plain lines elsewhere, or JSON objects for programs."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from MedGSLib.progress import ProgressEvent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from MedGSLib.cli.stopping import StopRequest

LINE_INTERVAL_S = 10.0
"""Off a terminal, a stage under way is mentioned this often."""


class Console:
    """Receives progress events and prints them; results go to stdout, everything else to stderr.

    :param style: ``bars``, ``lines``, ``json`` or ``quiet``.
    """

    def __init__(self, style: str) -> None:
        self.style = style
        self.stop: StopRequest | None = None
        self._bars: Progress | None = None
        self._bar: TaskID | None = None
        self._stage = ""
        self._last_line = 0.0

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Console:
        """:return: the console that --json-events, --quiet and the kind of terminal ask for."""
        if arguments.json_events:
            return cls("json")
        if arguments.quiet:
            return cls("quiet")
        return cls("bars" if sys.stderr.isatty() else "lines")

    def __enter__(self) -> Console:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            if error is None:
                self._finish_bar()
            self._bars.stop()
            self._bars = None

    def progress(self, event: ProgressEvent) -> bool:
        """Show an event.

        :return: False once the user asked to stop, which cancels the work.
        """
        if self.style == "json":
            self._write_json(event.as_dict())
        elif self.style == "bars":
            self._show_bar(event)
        elif self.style == "lines":
            self._show_line(event)
        return not (self.stop is not None and self.stop.asked)

    def result(self, text: str, **fields: Any) -> None:
        """Print what the command was asked for; in JSON, ``fields`` as one object of the stage ``result``."""
        if self.style == "json":
            self._write_json({"stage": "result", "message": text, **fields})
        elif self.style != "quiet":
            self._say(text, sys.stdout)

    def error(self, sentence: str, code: int) -> None:
        """Print why the command failed."""
        if self.style == "json":
            self._write_json({"stage": "error", "level": "error", "message": sentence, "exit_code": code})
        self._say(f"medgs: {sentence}", sys.stderr)

    def _write_json(self, fields: dict[str, Any]) -> None:
        self._say(json.dumps(_finite(fields), allow_nan=False, default=str), sys.stdout)

    def say(self, text: str) -> None:
        """Print text on stdout as it is, whatever the style."""
        self._say(text, sys.stdout)

    def _say(self, text: str, stream: Any) -> None:
        if self._bars is not None and stream is sys.stderr:
            self._bars.console.print(text, markup=False, highlight=False)
            return
        stream.write(f"{text}\n")
        stream.flush()

    def _show_line(self, event: ProgressEvent) -> None:
        now = time.monotonic()
        new_stage = event.stage != self._stage
        if not (event.message or new_stage or now - self._last_line >= LINE_INTERVAL_S):
            return
        self._stage, self._last_line = event.stage, now
        parts = [f"{event.stage}:"]
        if event.total and event.step:
            parts.append(f"{100 * event.step // event.total} % ({event.step} of {event.total})")
        elif not event.message:
            parts.append("started")
        if event.eta_s is not None:
            parts.append(f"{event.eta_s:.0f} s left")
        if event.loss is not None:
            parts.append(f"loss {event.loss:.4g}")
        parts.append(event.message)
        self._say(" ".join(part for part in parts if part), sys.stderr)

    def _show_bar(self, event: ProgressEvent) -> None:
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        if event.stage != self._stage or self._bar is None:
            self._finish_bar()
            self._stage = event.stage
            self._bar = self._bars.add_task(event.stage, total=event.total or None, details="")
        details = "" if event.loss is None else f"loss {event.loss:.4g}"
        self._bars.update(self._bar, completed=event.step, total=event.total or None, details=details)
        if event.message:
            self._bars.console.print(event.message, markup=False, highlight=False)

    def _finish_bar(self) -> None:
        """Fill the bar of a stage that ended without ever knowing how long it was."""
        if self._bars is not None and self._bar is not None and self._bars.tasks[-1].total is None:
            self._bars.update(self._bar, total=1, completed=1)


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _new_bars() -> Progress:
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[details]}"),
        console=Terminal(stderr=True),
    )
