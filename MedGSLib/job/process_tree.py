"""Processes by number: whether one still is the one that was started, which others it started, and how all of them are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Callable, Dict, FrozenSet, List, Optional, Tuple

WINDOWS = "win32"
_PROC = Path("/proc")
_NO_WINDOW = 0x08000000
_TASK_QUERY = 0x1000
"""PROCESS_QUERY_LIMITED_INFORMATION of the Windows API."""


def start_token(pid: int) -> Optional[str]:
    """A text that tells this process from a later one with the same number, or None where no such process is alive.

    Zombies count as dead. It is the start time as the system keeps it, which stays the same over clock changes.
    """
    if pid <= 0:
        return None
    if sys.platform == WINDOWS:
        return _windows_start(pid)
    if (_PROC / "self" / "stat").exists():
        return _linux_start(pid)
    return _ps_start(pid)


def descendants(pid: int) -> FrozenSet[Tuple[int, str]]:
    """Numbers and start tokens of all children, grandchildren, ... of a process (POSIX; empty elsewhere)."""
    children: Dict[int, List[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found: List[int] = []
    waiting = [pid]
    while waiting:
        new = children.pop(waiting.pop(), [])
        found += new
        waiting += new
    return frozenset((child, token) for child in found for token in [start_token(child)] if token is not None)


def kill_tree(pid: int, platform: str = sys.platform, run: Callable[..., object] = subprocess.run) -> None:
    """End a process, its group if it leads one, and everything that it started, at once and without asking.

    :param run: stands in for :func:`subprocess.run` in tests of the Windows path.
    """
    if platform == WINDOWS:
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 10, "creationflags": _NO_WINDOW}
        run(["taskkill", "/PID", str(pid), "/T", "/F"], check=False, **options)
        return
    token = start_token(pid)
    found = descendants(pid) | (frozenset() if token is None else {(pid, token)})
    kill_group(pid)
    kill_each(found)


def kill_group(pid: int) -> None:
    """End what is left of the process group of a leader (POSIX; elsewhere nothing)."""
    if sys.platform != WINDOWS:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def kill_each(processes: FrozenSet[Tuple[int, str]]) -> None:
    """End single processes, each only where its number still means the same one."""
    for pid, token in processes:
        if start_token(pid) == token:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM if sys.platform == WINDOWS else signal.SIGKILL)


def spawn_options(platform: str = sys.platform) -> Dict[str, object]:
    """:return: keyword arguments of :class:`subprocess.Popen` that make a child the leader of its own session, without a window.

    On Windows it also gets a lower priority, as the worker gives itself elsewhere, so that Slicer stays responsive.
    """
    if platform == WINDOWS:
        create_new_process_group, below_normal_priority = 0x00000200, 0x00004000
        return {"creationflags": create_new_process_group | _NO_WINDOW | below_normal_priority}
    return {"start_new_session": True}


def _linux_start(pid: int) -> Optional[str]:
    fields = _stat_fields(pid)
    if fields is None or fields[0] in ("Z", "X"):
        return None
    return f"{_boot_id()}:{fields[19]}"


def _stat_fields(pid: int) -> Optional[List[str]]:
    """The fields of /proc/PID/stat after the name, which may itself hold spaces and brackets (proc(5): state is field 3)."""
    try:
        return (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _parents() -> List[Tuple[int, int]]:
    if sys.platform == WINDOWS:
        return []
    if (_PROC / "self" / "stat").exists():
        pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
        return [(pid, int(fields[1])) for pid in pids for fields in [_stat_fields(pid)] if fields]
    rows = [row.split() for row in _ps("-A", "-o", "pid=,ppid=").splitlines()]
    return [(int(row[0]), int(row[1])) for row in rows if len(row) == 2]


def _ps_start(pid: int) -> Optional[str]:
    state, _, started = _ps("-o", "stat=,lstart=", "-p", str(pid)).strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()


def _ps(*arguments: str) -> str:
    environment = {"LC_ALL": "C", "PATH": os.defpath}
    try:
        done = subprocess.run(["ps", *arguments], check=False, capture_output=True, text=True, timeout=5, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _windows_start(pid: int) -> Optional[str]:
    import ctypes

    still_active = 259
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel.OpenProcess(_TASK_QUERY, False, pid))
    if not handle:
        return None
    try:
        code = ctypes.c_ulong()
        times = [ctypes.c_ulonglong() for _ in range(4)]
        if not kernel.GetExitCodeProcess(handle, ctypes.byref(code)) or code.value != still_active:
            return None
        if not kernel.GetProcessTimes(handle, *(ctypes.byref(entry) for entry in times)):
            return None
        return str(times[0].value)
    finally:
        kernel.CloseHandle(handle)
