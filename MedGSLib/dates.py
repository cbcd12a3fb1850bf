"""Dates as files and people write them."""

from __future__ import annotations

import datetime
import re
from typing import Optional

_DATE = re.compile(r"(\d{4})(?:(\d{2})(\d{2})|([-./])(\d{1,2})\4(\d{1,2}))")


def parse_date(text: str) -> Optional[datetime.date]:
    """A date from YYYYMMDD (as DICOM writes it) or year, month and day separated by ``-``, ``.`` or ``/``; None from anything else."""
    found = _DATE.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day = (int(part) for part in found.groups() if part is not None and part.isdigit())
    try:
        return datetime.date(year, month, day)
    except ValueError:
        return None
