"""How much memory this machine has, and whether a result can fit into it at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Optional

from MedGSLib.errors import ResourceError

IMAGE_BYTES, MASK_BYTES = 40, 20
"""Of a voxel of the result, the least that an image and each segment take while it is made (measured: about 110 for an image)."""
_GB = 1e9

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def refuse_too_large(voxels: int, has_image: bool, segments: int) -> None:
    """Make sure before any work that a result is not certain to run out of memory, since systems end such processes without a word.

    :raises ResourceError: with both figures.
    """
    needed, there = voxels * (IMAGE_BYTES * int(has_image) + MASK_BYTES * segments), total_bytes()
    if needed > there:
        raise ResourceError(
            f"The result would have {voxels / 1e6:.0f} million voxels, for which {needed / _GB:.0f} GB of memory and more are needed, and "
            f"this machine has {there / _GB:.0f} GB; crop to the mask, choose fewer segments or a smaller scale."
        )


def total_bytes() -> int:
    """Main memory of the machine, or what the container that this process runs in may use of it."""
    if sys.platform == "win32":
        return _windows_bytes()
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [limit for limit in map(_limit, CGROUP_LIMITS) if limit is not None]
    return min([physical, *limits])


def _limit(path: Path) -> Optional[int]:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _windows_bytes() -> int:
    import ctypes

    class Status(ctypes.Structure):
        """MEMORYSTATUSEX of the Windows API."""

        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong), ("values", ctypes.c_ulonglong * 7)]

    status = Status(length=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.values[0])
