"""Paths for SimpleITK, whose file formats open on Windows only what the process's code page can spell, UTF-8 mode or not (ITK 6739)."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def ascii_path(path: Path) -> str:
    """A name of the same file that is ASCII, if there is one; other systems than Windows take every name.

    A job works inside its folder, so its files have one even where the user's name, and with it the whole path, has accents.
    """
    text = str(path)
    if text.isascii() or sys.platform != "win32":
        return text
    try:
        relative = os.path.relpath(text)
    except ValueError:  # another drive
        return text
    return relative if relative.isascii() else text


def is_unreadable_name(path: Path) -> bool:
    """Whether SimpleITK may fail because of the name alone."""
    return sys.platform == "win32" and not ascii_path(path).isascii()
