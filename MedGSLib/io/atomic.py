"""Files that appear under their final name complete, or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from MedGSLib.errors import InputError, MedGSError, ResourceError

PARTIAL = ".partial-"
"""How the names of unfinished files begin."""
DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)


def write_error(path: Path, error: OSError) -> MedGSError:
    """:return: the exception that tells a user why ``path`` could not be written."""
    if error.errno in DISK_FULL:
        return ResourceError(f"The disk is full: {path} could not be written; free some space and run again.")
    return InputError(f"The file {path} cannot be written: {error.strerror or error}.")


def cut_short(path: Path) -> ResourceError:
    """:return: the exception for a file that a library wrote in part only, without a reason that can be relied on."""
    return ResourceError(f"Not all of a file could be written into the folder {path.parent}: the disk may be full.")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place, flushed to disk, once the block ends without an error.

    The temporary name keeps every suffix of ``path``, so that writers which choose the format by suffix work. A missing parent
    folder is made. The file has the mode of any new file, whatever its writer thinks. On any error the temporary file is removed and an
    earlier file at ``path`` stays as it was.

    :raises ResourceError: if the disk or the quota is full.
    :raises InputError: if the place cannot be written to for another reason.
    """
    path = Path(path)
    temporary = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        usual_mode = _mode_of_new_files(temporary)
        yield temporary
        temporary.chmod(usual_mode)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def make_result_folder(path: Path) -> None:
    """Make a folder where needed, and make sure that files can be written to it, before long work begins.

    :raises ResourceError: if the disk is full.
    :raises InputError: if it is a file, or may not be written to.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"The output {path} is a file, and a folder is needed.")
    trial = path / f"{PARTIAL}{secrets.token_hex(4)}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        if error.errno in DISK_FULL:
            raise write_error(path, error) from error
        raise InputError(f"The folder {path} cannot be written to: {error.strerror or error}.") from error


def _mode_of_new_files(path: Path) -> int:
    """The mode of a file made at ``path``, which is gone again; some writers leave theirs readable by the user alone."""
    path.touch()
    try:
        return path.stat().st_mode
    finally:
        path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed :func:`atomic_write` left in ``folder``, which no other process may be writing to."""
    for left in Path(folder).glob(f"{PARTIAL}*"):
        with suppress(OSError):
            left.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON atomically.

    numpy scalars and arrays, paths and tuples become their plain counterparts; values that are not finite become null, as JSON has none.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    if isinstance(content, (np.ndarray, np.generic)):
        return _plain(content.tolist())
    if isinstance(content, Path):
        return str(content)
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
