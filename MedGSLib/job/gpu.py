"""What the NVIDIA driver says about the graphics card, without any CUDA library."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple

from MedGSLib.job.process_tree import spawn_options

_QUERY = "name,driver_version,memory.total,compute_cap"


@dataclass(frozen=True)
class GpuFacts:
    """The first NVIDIA card: its name, driver version, memory in MB and compute capability (0, 0 where the driver is too old to say)."""

    name: str
    driver: str
    memory_mb: int
    compute_capability: Tuple[int, int] = (0, 0)

    @property
    def driver_major(self) -> int:
        """The number before the first dot of the driver version."""
        found = re.match(r"\d+", self.driver)
        return int(found.group()) if found else 0


def query_gpu(run: Callable[..., Any] = subprocess.run) -> Optional[GpuFacts]:
    """Ask ``nvidia-smi``; takes about 0.1 s and never raises.

    :param run: stands in for :func:`subprocess.run` in tests.
    :return: None where there is no card or no working driver.
    """
    for query in (_QUERY, _QUERY.rpartition(",")[0]):
        argv = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
        try:
            done = run(argv, check=False, capture_output=True, text=True, timeout=10, **_no_window())
        except (OSError, subprocess.TimeoutExpired):
            return None
        facts = _parse(done.stdout) if done.returncode == 0 else None
        if facts is not None:
            return facts
    return None


def _parse(output: str) -> Optional[GpuFacts]:
    cells = [cell.strip() for cell in output.strip().splitlines()[0].split(",")] if output.strip() else []
    if len(cells) < 3 or not re.fullmatch(r"[\d.]+", cells[1]):
        return None
    capability = re.fullmatch(r"(\d+)\.(\d+)", cells[3]) if len(cells) > 3 else None
    return GpuFacts(
        name=cells[0],
        driver=cells[1],
        memory_mb=int(cells[2]) if cells[2].isdigit() else 0,
        compute_capability=(int(capability[1]), int(capability[2])) if capability else (0, 0),
    )


def _no_window() -> Dict[str, object]:
    """On Windows a console program would flash up a window."""
    return {name: value for name, value in spawn_options().items() if name == "creationflags"}
