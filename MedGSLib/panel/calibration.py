"""How long a reconstruction takes, from runs on this computer where there were any, else from runs on a reference machine."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional, Tuple

from MedGSLib.panel.wording import duration

REFERENCE_SECONDS_PER_MEGAVOXEL = {
    "cpu/fast": 60.0,
    "cpu/standard": 200.0,
    "cpu/high": 400.0,
    "cpu/paper": 4000.0,
    "cuda/fast": 6.0,
    "cuda/standard": 20.0,
    "cuda/high": 40.0,
    "cuda/paper": 300.0,
}
"""Seconds per million output voxels on the reference machine, by backend and preset."""

START_UP_S = 8.0
"""Time for the worker to import its libraries."""

MEMORY_OF = 0.5
"""Weight of the newest run in the running mean."""


class Calibration:
    """Measured speeds; ``text`` is their JSON form, kept in the application's settings."""

    def __init__(self, text: str = "") -> None:
        try:
            stored = json.loads(text) if text else {}
        except ValueError:
            stored = {}
        known = stored.items() if isinstance(stored, dict) else ()
        self._measured: Dict[str, float] = {str(key): float(value) for key, value in known if isinstance(value, (int, float)) and value > 0}

    @property
    def text(self) -> str:
        """The measured speeds as JSON."""
        return json.dumps(self._measured, sort_keys=True)

    def learn(self, report: Mapping[str, Any], seconds: float) -> None:
        """Take a finished run into account.

        :param report: the worker's report; :param seconds: what the whole job took.
        """
        found = _size(report)
        if found is None or seconds <= START_UP_S:
            return
        key, megavoxels = found
        rate = (seconds - START_UP_S) / megavoxels
        self._measured[key] = MEMORY_OF * rate + (1 - MEMORY_OF) * self._measured.get(key, rate)

    def sentence(self, voxels: int, preset: str, onGpu: bool) -> str:
        """What the user reads below the presets."""
        if voxels <= 0:
            return ""
        key = f"{'cuda' if onGpu else 'cpu'}/{preset}"
        rate = self._measured.get(key, REFERENCE_SECONDS_PER_MEGAVOXEL[key])
        source = "measured on this computer" if key in self._measured else "no run on this computer yet, so this is a rough guess"
        seconds = START_UP_S + rate * voxels / 1e6
        return f"About {duration(seconds)} for {voxels / 1e6:.1f} million output voxels ({source})."


def _size(report: Mapping[str, Any]) -> Optional[Tuple[str, float]]:
    """Key and million output voxels of a run, or None where the report does not say."""
    try:
        sizes = report["geometry"]
        rows, columns = sizes["rows_columns"]
        voxels = float(sizes["output_slices"]) * float(rows) * float(columns)
        backend = "cuda" if "GPU rasterizer is used" in str(report["backend"]) else "cpu"
        key = f"{backend}/{report['preset']}"
    except (KeyError, TypeError, ValueError):
        return None
    return (key, voxels / 1e6) if voxels > 0 and key in REFERENCE_SECONDS_PER_MEGAVOXEL else None
