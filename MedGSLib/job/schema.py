"""Typed access to the JSON files of a job folder, whose every complaint is one sentence."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Type, Union

from MedGSLib.errors import InputError

SCHEMA_VERSION = 1
"""Version of request.json, events.jsonl and result.json; raised when an older reader would misread a newer file."""

HASHED_PIECE_BYTES = 64 << 20
"""Large, as each piece of a file that is read in the background costs Slicer's main thread a turn."""

_PLAIN_NAME = re.compile(r"[\w][\w .()+@=-]*(/[\w][\w .()+@=-]*)*")
_MISSING = object()
_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object", list: "a list"}


class Fields:
    """Typed access to one JSON object.

    :param document: the parsed JSON.
    :param what: how the document is called in error messages, e.g. ``"The job request"``.
    :raises InputError: from every method, where the member is missing or of another type.
    """

    def __init__(self, document: Any, what: str) -> None:
        if not isinstance(document, dict):
            raise InputError(f"{what} is not a JSON object.")
        self._document: Dict[str, Any] = document
        self._what = what

    def check_version(self) -> None:
        """Refuse a file written by a newer MedGS, or one without a version."""
        version = self.get("schema", int)
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{self._what} has schema version {version} and this MedGS reads up to {SCHEMA_VERSION}; update MedGS to open it."
            )
        if version < 1:
            raise InputError(f"{self._what} has the impossible schema version {version}.")

    def check_known(self, known: Tuple[str, ...]) -> None:
        """Refuse members that nobody would read, since they are most likely typing errors."""
        unknown = sorted(set(self._document) - set(known))
        if unknown:
            raise InputError(f"{self._what} has the unknown entry '{unknown[0]}'.")

    def get(self, name: str, kind: Type, default: Any = _MISSING) -> Any:
        """The member ``name``; whole numbers pass as numbers, booleans never do; null counts as absent."""
        value = self._document.get(name)
        if value is None:
            if default is _MISSING:
                raise InputError(f"{self._what} lacks the entry '{name}'.")
            return default
        accepted = (int, float) if kind is float else (kind,)
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"The entry '{name}' of {_lower_first(self._what)} must be {_NAMES[kind]}, not {value!r:.60}.")
        return float(value) if kind is float else value

    def file_name(self, name: str, default: Any = _MISSING) -> Any:
        """A member that names a file inside the job folder: relative, with no way out of the folder."""
        value = self.get(name, str, default)
        if value is not default and not is_plain_name(value):
            raise InputError(f"The entry '{name}' of {_lower_first(self._what)} must name a file inside the job folder, not {value!r:.80}.")
        return value


def is_plain_name(name: str) -> bool:
    """Whether ``name`` is a relative path with forward slashes that cannot leave its folder on any system."""
    return bool(_PLAIN_NAME.fullmatch(name)) and not name.endswith((".", " "))


def read_json(path: Path, what: str) -> Any:
    """Parse a JSON file.

    :raises InputError: if the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{what} is missing: there is no file {path}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} cannot be read from {path}: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} in {path} is damaged: it is not valid JSON.") from error


def file_sha256(path: Path) -> str:
    """:return: the SHA-256 of a file as 64 hexadecimal digits, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(HASHED_PIECE_BYTES), b""):
            digest.update(piece)
    return digest.hexdigest()


def finite(value: Optional[Union[int, float]]) -> Optional[float]:
    """:return: the value as a float, or None for None, NaN and infinities (which JSON cannot hold)."""
    if value is None:
        return None
    number = float(value)
    return number if number - number == 0.0 else None


def _lower_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
