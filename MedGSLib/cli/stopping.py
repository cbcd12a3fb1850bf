"""Ctrl-C and SIGTERM as a polite request to stop, and as an interrupt where the request goes unheard."""

from __future__ import annotations

import _thread
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

PATIENCE_S = 1.5
"""How long work may take to notice a request before it is interrupted where it stands."""


class StopRequest:
    """While open, the first Ctrl-C or SIGTERM sets :attr:`asked`, and a second one, or the end of the patience, raises KeyboardInterrupt.

    The polite way lets the fit write its checkpoint and files be closed; the interrupt ends stages that report no progress.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._timer = threading.Timer(PATIENCE_S, _interrupt)
        self._timer.daemon = True
        self._timer.start()


def _interrupt() -> None:
    """Interrupt the main thread; on POSIX by a real signal, which also ends waiting for locks and files."""
    if hasattr(signal, "pthread_kill"):
        identity = threading.main_thread().ident
        assert identity is not None
        signal.pthread_kill(identity, signal.SIGINT)
    else:
        _thread.interrupt_main()
