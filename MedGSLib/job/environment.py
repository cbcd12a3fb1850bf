"""The worker's own Python: which one is used, the private environment that MedGS keeps, and the probe that runs in it."""

from __future__ import annotations

import enum
import hashlib
import json
import os
import shutil
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional

from MedGSLib import __version__
from MedGSLib.errors import InputError, MedGSError
from MedGSLib.io.atomic import write_json
from MedGSLib.job.detached import DetachedProcess, tail
from MedGSLib.job.failures import explain_exit
from MedGSLib.job.launch import WorkerCommand
from MedGSLib.job.schema import Fields, file_sha256, read_json

OWNER_FILE = "medgs-environment.txt"
MARKER_FILE = "installed.json"
_MARKER = "The record of the MedGS environment"
PROBE_TIMEOUT_S = 120.0
"""The first import of PyTorch from a slow disk behind a virus scanner takes its time."""


class PythonSource(enum.Enum):
    """Where the worker's Python comes from, in the order in which they are tried."""

    NAMED = "named by the user"
    MANAGED = "private environment of MedGS"
    SLICER = "Slicer's own Python"


@dataclass(frozen=True)
class Interpreter:
    """The worker's Python."""

    path: Path
    source: PythonSource


@dataclass(frozen=True)
class ManagedEnvironment:
    """The private environment under ``root``; it may not exist.

    Layout: ``installer/`` (uv), ``python/`` (CPython), ``venv/`` (the packages), ``cache/``, ``install.log``, and :data:`MARKER_FILE`,
    which is written last and removed first.
    """

    root: Path

    @property
    def python(self) -> Path:
        """The interpreter of the environment."""
        return self.root / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    @property
    def log_file(self) -> Path:
        """Everything that the installation printed."""
        return self.root / "install.log"

    def is_ready(self) -> bool:
        """Whether the installation was completed; quick, see :meth:`check` for the thorough answer."""
        return self._marker() is not None and self.python.exists()

    def check(self) -> None:
        """Compare what is installed with what was recorded after the installation.

        :raises MedGSError: if the environment is missing, incomplete or was changed.
        """
        marker = self._marker()
        if marker is None or not self.python.exists():
            raise MedGSError("The MedGS environment is not installed completely; open Advanced, Environment and press Repair.")
        if marker.get("fingerprint") != self.fingerprint():
            raise MedGSError("The MedGS environment was changed after its installation; open Advanced, Environment and press Repair.")

    def fingerprint(self) -> str:
        """:return: a hash over the file lists of all installed packages."""
        digest = hashlib.sha256()
        for record in self._records():
            digest.update(f"{record.parent.name} {file_sha256(record)}\n".encode())
        return digest.hexdigest()

    def packages(self) -> Dict[str, str]:
        """:return: versions of the installed packages by name."""
        names = [record.parent.name[: -len(".dist-info")].rpartition("-") for record in self._records()]
        return {name: version for name, _, version in names}

    def own(self) -> None:
        """Make the folder and mark it as one that MedGS may delete.

        :raises InputError: if it holds something else.
        """
        if self.root.is_dir() and any(self.root.iterdir()) and not (self.root / OWNER_FILE).is_file():
            raise InputError(f"The folder {self.root} holds other files; choose an empty or new one for the environment.")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / OWNER_FILE).write_text("Made by MedGS for its worker; removed with Delete in the module.\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"The folder {self.root} cannot be made: {error.strerror or error}.") from error

    def mark_installed(self, build: str) -> None:
        """Record that the installation is complete, last of all."""
        document = {"schema": 1, "medgs": __version__, "build": build, "installed": time.time(), "packages": self.packages()}
        write_json(self.root / MARKER_FILE, {**document, "fingerprint": self.fingerprint()})

    def mark_incomplete(self) -> None:
        """Take the record away before anything is changed."""
        (self.root / MARKER_FILE).unlink(missing_ok=True)

    def size_bytes(self) -> int:
        """:return: what it takes on disk, files with several names counted once."""
        seen: Dict[Any, int] = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                facts = (Path(folder) / name).lstat()
                seen[(facts.st_dev, facts.st_ino) if facts.st_ino else (folder, name)] = facts.st_size
        return sum(seen.values())

    def delete(self) -> None:
        """Remove the environment with everything that its installation downloaded.

        :raises InputError: if the folder is not an environment made by MedGS, or parts of it cannot be removed.
        """
        if not self.root.exists():
            return
        if not (self.root / OWNER_FILE).is_file() or self.root.is_symlink():
            raise InputError(f"The folder {self.root} was not made by MedGS and was left alone.")
        self.mark_incomplete()
        try:
            _remove_tree(self.root)
        except OSError as error:
            raise InputError(f"{error.filename or self.root} cannot be removed; end running jobs and try again.") from error

    def _marker(self) -> Optional[Mapping[str, Any]]:
        try:
            document = read_json(self.root / MARKER_FILE, _MARKER)
            Fields(document, _MARKER).check_version()
        except InputError:
            return None
        return document

    def _records(self) -> List[Path]:
        return sorted((self.root / "venv").glob("[lL]ib/**/site-packages/*.dist-info/RECORD"))


def resolve_interpreter(
    named: Optional[Path] = None, managed: Optional[ManagedEnvironment] = None, slicer_python: Optional[Path] = None
) -> Interpreter:
    """The Python that the worker is to run in: the one that the user names, else MedGS's own, else Slicer's.

    A named one is taken or refused, never silently replaced.

    :param named: an interpreter, or the folder of an environment that has one.
    :raises InputError: if the named one does not exist, or there is none at all.
    """
    if named is not None:
        return Interpreter(_interpreter_in(named), PythonSource.NAMED)
    if managed is not None and managed.is_ready():
        return Interpreter(managed.python, PythonSource.MANAGED)
    if slicer_python is not None and slicer_python.is_file():
        return Interpreter(slicer_python, PythonSource.SLICER)
    raise InputError("MedGS has no Python for its computations yet; open Advanced, Environment and press Install.")


class EnvironmentProbe:
    """Runs the probe in the worker's Python without blocking; call :meth:`poll` a few times a second.

    :param folder: where the output goes for the moment.
    """

    def __init__(self, command: WorkerCommand, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._command = command
        self._console = folder / "probe.log"
        self._clock = clock
        self._process: Optional[DetachedProcess] = None
        self._started_at = 0.0
        self._facts: Optional[Dict[str, Any]] = None

    def start(self) -> None:
        """Start it; a Python that cannot be started shows in the facts."""
        self._facts = None
        self._started_at = self._clock()
        try:
            self._console.parent.mkdir(parents=True, exist_ok=True)
            self._console.unlink(missing_ok=True)
            self._process = DetachedProcess.start(self._command.argv("probe"), self._console.parent, self._console, self._command.environ())
        except (MedGSError, OSError) as error:
            self._facts = {"error": str(error)}

    def poll(self) -> Optional[Dict[str, Any]]:
        """:return: the facts of :func:`MedGSLib.job.probe.probe`, or ``{"error": sentence}``; None while it is not done."""
        if self._facts is not None or self._process is None:
            return self._facts
        if self._process.is_alive():
            if self._clock() - self._started_at < PROBE_TIMEOUT_S:
                return None
            self._process.kill()
            self._facts = {"error": "the worker's Python does not answer."}
        else:
            self._facts = _facts_in(tail(self._console), self._process.exit_code)
        return self._facts

    def stop(self) -> None:
        """End it, as nobody wants the answer any more."""
        if self._process is not None and self._facts is None:
            self._process.kill()
            self._process.wait(1.0)
            self._facts = {"error": "stopped."}


def _facts_in(console: str, exit_code: Optional[int]) -> Dict[str, Any]:
    for line in reversed(console.splitlines()):
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict) and "python" in document:
            return document
    return {"error": explain_exit(exit_code or 1, console).sentence}


def _interpreter_in(named: Path) -> Path:
    for inside in ("", "bin/python", "Scripts/python.exe", "python.exe", "bin/python3"):
        candidate = named / inside if inside else named
        if candidate.is_file():
            return candidate
    raise InputError(f"There is no Python at {named}; choose the python program itself or the folder of its environment.")


def _remove_tree(root: Path) -> None:
    """Remove a folder, read-only files included; links are removed, not followed."""

    def make_writable(remove: Callable[[str], Any], path: str, reason: Any) -> None:
        if not os.access(path, os.W_OK):
            Path(path).chmod(stat.S_IWUSR)
            remove(path)
        else:
            raise reason[1]

    shutil.rmtree(root, onerror=make_writable)
