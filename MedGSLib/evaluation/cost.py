"""What a computation costs: processor time, wall time and peak memory."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

HOW_MEASURED = (
    "cpu_s: processor time of all threads of the process (the contour filter of 'morphological' runs in another one and is not counted); "
    "wall_s: elapsed time, on whatever else the machine was doing; peak_mib: largest resident memory during the method minus that just "
    "before it, after free memory was given back (Linux: VmHWM after a reset through /proc/self/clear_refs; elsewhere not measured)"
)
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Cost:
    """:ivar cpu_s: and :ivar wall_s: seconds; :ivar peak_mib: memory on top of what was in use before, None where not measured."""

    cpu_s: float
    wall_s: float
    peak_mib: float | None


def measured(work: Callable[[], Result]) -> tuple[Result, Cost]:
    """Do the work. :return: its result and what it cost."""
    before = _reset_peak()
    wall, cpu = time.monotonic(), time.process_time()
    result = work()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    peak = None if before is None else max(0.0, _status_mib("VmHWM") - before)
    return result, Cost(cpu, wall, peak)


def _reset_peak() -> float | None:
    """Make the memory in use now the peak. :return: that memory in MiB, or None where the system has no such counter."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _RESET.write_text("5")
        return _status_mib("VmRSS")
    except (OSError, AttributeError, TypeError):
        return None


def _status_mib(name: str) -> float:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"{name} is not in {_STATUS}")
