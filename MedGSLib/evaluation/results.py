"""The cells of an evaluation, kept in a file that survives an interruption."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from MedGSLib.errors import InputError
from MedGSLib.evaluation.cost import HOW_MEASURED, Cost
from MedGSLib.io.atomic import write_json

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Cell:
    """One method on one problem.

    :ivar profile: of thick slices, else ``point``.
    :ivar settings: fingerprint of the recipe and of the crop, so that a stored cell is only taken for the same work.
    :ivar figures: see :func:`MedGSLib.evaluation.figures.figures`; empty where the method failed.
    :ivar failure: the sentence with which it failed, or empty.
    """

    case: str
    subset: str
    protocol: str
    every: int
    profile: str
    method: str
    seed: int
    settings: str
    figures: dict[str, float] = field(default_factory=dict)
    cost: Cost | None = None
    failure: str = ""

    @property
    def key(self) -> tuple[str | int, ...]:
        """What makes it the same work."""
        return self.case, self.protocol, self.every, self.profile, self.method, self.seed, self.settings

    @property
    def row(self) -> tuple[str, str, int, str]:
        """The problem: (case, protocol, n, profile)."""
        return self.case, self.protocol, self.every, self.profile

    def figure(self, name: str) -> float:
        """A figure, NaN where there is none."""
        return self.figures.get(name, math.nan)


class ResultStore:
    """Finished cells, written to ``path`` after each one.

    :param notes: facts about the run that go into the file, e.g. versions.
    :raises InputError: if the file exists and holds something else.
    """

    def __init__(self, path: Path, notes: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        self._notes = notes or {}
        self._cells: dict[tuple[str | int, ...], Cell] = {cell.key: cell for cell in read_cells(self.path)} if self.path.exists() else {}

    @property
    def cells(self) -> list[Cell]:
        """All finished cells, in the order in which they were measured."""
        return list(self._cells.values())

    def __contains__(self, key: tuple[str | int, ...]) -> bool:
        return key in self._cells

    def add(self, cell: Cell) -> None:
        """Keep a cell and write the file."""
        self._cells[cell.key] = cell
        self.write()

    def write(self, **further: Any) -> None:
        """Write the file; ``further`` is stored beside the cells."""
        write_json(self.path, as_dict(self.cells, self._notes | further))


def as_dict(cells: list[Cell], notes: dict[str, Any]) -> dict[str, Any]:
    """The content of the file."""
    return {"schema_version": SCHEMA_VERSION, "cost": HOW_MEASURED, **notes, "cells": [asdict(cell) for cell in cells]}


def read_cells(path: Path) -> list[Cell]:
    """Cells of a file written by :class:`ResultStore`.

    :raises InputError: if it is none.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"The results in {path} have another schema; remove the file to measure anew.")
        return [_cell(entry) for entry in content["cells"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not hold the results of an evaluation; remove the file to measure anew.") from error


def _cell(entry: dict[str, Any]) -> Cell:
    figures = {name: math.nan if value is None else float(value) for name, value in entry["figures"].items()}
    cost = None if entry["cost"] is None else Cost(**entry["cost"])
    return Cell(**{**entry, "figures": figures, "cost": cost})
