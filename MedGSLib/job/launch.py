"""How a worker is started: the exact argument list and an environment that nothing of Slicer leaks into."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional

LIBRARY_ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the package MedGSLib; the worker runs this very copy unless its Python has its own."""

_BOOTSTRAP = (
    "import sys; sys.path[:1] = []; sys.path.append(sys.argv[1]); from MedGSLib.job.__main__ import main; sys.exit(main(sys.argv[2:]))"
)
"""The library's folder goes to the end of the path, since in an installed extension it holds all of Slicer's modules too."""

_FOREIGN = re.compile(
    r"PYTHON|LD_LIBRARY_PATH$|LD_PRELOAD$|DYLD_|QT_|QML|SLICER|CTK_|ITK_|VTK_"
    r"|TCL_LIBRARY$|TK_LIBRARY$|CONDA_|VIRTUAL_ENV|__PYVENV_LAUNCHER__$",
    re.IGNORECASE,
)
"""Names of variables, from their start, that would make another Python load Slicer's libraries or packages."""

_FIXED = {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}


def clean_environment(base: Optional[Mapping[str, str]] = None, extra: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """Environment variables for a process that must not see Slicer's Python, Qt and libraries.

    :param base: what to start from; in Slicer ``slicer.util.startupEnvironment()``. By default that of this process.
    :param extra: variables to add at the end, e.g. a proxy.
    """
    source = dict(os.environ if base is None else base)
    home = source.get("SLICER_HOME", "")
    cleaned = {name: value for name, value in source.items() if not _FOREIGN.match(name)}
    for name, value in list(cleaned.items()) if home else ():
        if name.upper() == "PATH":
            cleaned[name] = os.pathsep.join(part for part in value.split(os.pathsep) if not _is_inside(part, home))
        elif _is_inside(value, home):  # SSL_CERT_FILE, with which the installer would not ask the system for certificates
            del cleaned[name]
    return {**cleaned, **_FIXED, **(extra or {})}


@dataclass(frozen=True)
class WorkerCommand:
    """The Python that runs the library, and the environment that it gets (None: that of this process, cleaned)."""

    python: Path
    environment: Optional[Mapping[str, str]] = None
    library_root: Path = LIBRARY_ROOT

    def argv(self, *arguments: str) -> List[str]:
        """:return: the argument list that runs ``MedGSLib.job`` with the given arguments; no shell is involved."""
        return [str(self.python), "-c", _BOOTSTRAP, str(self.library_root), *arguments]

    def environ(self) -> Dict[str, str]:
        """:return: the cleaned environment."""
        return clean_environment(self.environment)


def _is_inside(path: str, folder: str) -> bool:
    normal = os.path.normcase(os.path.normpath(path))
    root = os.path.normcase(os.path.normpath(folder))
    return normal == root or normal.startswith(root + os.sep)
