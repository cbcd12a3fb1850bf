"""One process at a time in a result folder."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

from filelock import FileLock, Timeout

from MedGSLib.errors import InputError

LOCK_NAME = ".medgs-lock"

logger = logging.getLogger(__name__)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other processes out of an existing folder; the system ends the lock of a process that is killed.

    Where the file system knows no locks, nothing is kept out.

    :raises InputError: if another process is at work in the folder.
    """
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"Another run is writing into the folder {folder}: wait for it, or choose another output folder.") from None
    except (OSError, NotImplementedError) as error:
        logger.debug("The folder %s cannot be locked: %s", folder, error)
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                (folder / LOCK_NAME).unlink()
            lock.release()
