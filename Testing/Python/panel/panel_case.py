"""The case of the panel's tests, and how a panel is let run."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import numpy as np

STUB = Path(__file__).with_name("stub_worker.py")
SHAPE = (30, 26, 8)
MATRIX = np.diag([-1.0, -1.0, 4.0, 1.0])


def stub_command(way: str, output: str) -> Any:
    """A worker command that runs the stub."""
    environment = {**os.environ, "MEDGS_STUB": way, "MEDGS_STUB_OUTPUT": output, "OMP_NUM_THREADS": "1"}
    return SimpleNamespace(argv=lambda *arguments: [sys.executable, str(STUB), *arguments], environ=lambda: environment)


def run(widget: Any, until: Callable[[], bool], seconds: float = 30.0) -> None:
    """Tick the panel's timer by hand."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, widget.ui.logTextEdit.plainText
        widget.onTimer()
        time.sleep(0.02)
    widget.onTimer()


def tickSegments(widget: Any, ids: list) -> None:
    """Tick segments as the user's clicks do."""
    widget.ui.segmentSelector.setSelectedSegmentIDs(ids)
    widget.ui.segmentSelector.segmentSelectionChanged(ids)
