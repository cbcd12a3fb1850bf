"""Evaluation: cases, protocols and methods in, a resumable table of figures out."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from MedGSLib.config import InputOptions, ReconstructionConfig, preset_config
from MedGSLib.errors import InputError
from MedGSLib.evaluation.cases import Case, cases_of_stack, protocols_of
from MedGSLib.evaluation.cost import measured
from MedGSLib.evaluation.figures import figures
from MedGSLib.evaluation.methods import Recipes, applies, random, solve
from MedGSLib.evaluation.names import MEDGS, METHODS, OWN, PRIOR, THICK, kind_of
from MedGSLib.evaluation.plots import draw
from MedGSLib.evaluation.protocols import Problem, pose
from MedGSLib.evaluation.results import Cell, ResultStore
from MedGSLib.evaluation.table import summarize, write_csv
from MedGSLib.io.stack import load_stack
from MedGSLib.progress import ProgressCallback, Reporter
from MedGSLib.report import versions
from MedGSLib.volume import SliceStack

logger = logging.getLogger(__name__)

RESULT_FILE, TABLE_FILE, PLOT_FILE = "evaluation.json", "evaluation.csv", "evaluation.png"
DEFAULT_METHODS = (MEDGS, *(name for name in METHODS if name not in (MEDGS, PRIOR)))


@dataclass(frozen=True)
class Plan:
    """What to measure.

    :ivar every: the n of each protocol.
    :ivar protocols: of :data:`MedGSLib.evaluation.names.PROTOCOLS`; empty for those of images, and with a mask those of masks too.
    :ivar profiles: of thick slices.
    :ivar methods: ``medgs`` and ``prior`` alone take the first recipe; methods are left out where they do not apply.
    :ivar recipes: name of a preset to its configuration.
    :ivar seeds: for methods that depend on one.
    """

    every: tuple[int, ...] = (2, 3, 5)
    protocols: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ("box", "gaussian")
    methods: tuple[str, ...] = DEFAULT_METHODS
    recipes: Recipes = field(default_factory=lambda: {"standard": preset_config("standard", self_check=False)})
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if kind_of(name) not in METHODS]
        if unknown:
            raise InputError(f"There is no method called {', '.join(unknown)}; the methods are {', '.join(METHODS)}.")

    def concrete_methods(self) -> tuple[str, ...]:
        """The methods with their recipes, ``medgs`` becoming ``medgs:standard`` and so on."""
        first = next(iter(self.recipes), "")
        return tuple(dict.fromkeys(f"{name}:{first}" if name in OWN else name for name in self.methods))


@dataclass(frozen=True)
class Task:
    """One cell to measure."""

    case: Case
    protocol: str
    every: int
    profile: str
    method: str
    seed: int = 0


def tasks_of(case: Case, plan: Plan) -> Iterator[Task]:
    """The tasks of a case, problem by problem; what the case is too small for is left out."""
    for protocol in protocols_of(case, plan.protocols):
        for every in plan.every:
            for profile in plan.profiles if protocol == THICK else ("point",):
                for method in plan.concrete_methods():
                    for seed in plan.seeds if random(method) else plan.seeds[:1]:
                        yield Task(case, protocol, every, profile, method, seed)


def evaluate(
    cases: SliceStack | Sequence[Case], plan: Plan | None = None, out: Path | None = None, progress: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure methods side by side on volumes all of whose slices are true.

    :param cases: a stack of evenly spaced thin slices, or cases.
    :param out: folder for the table (JSON, CSV) and the plot; an earlier, unfinished evaluation there is continued. None writes nothing.
    :param progress: called with every event; returning False cancels.
    :return: the table: ``cells`` and ``summary``.
    :raises InputError: if nothing can be measured.
    """
    plan = plan or Plan()
    chosen = cases_of_stack(cases, "input") if isinstance(cases, SliceStack) else tuple(cases)
    tasks = [task for case in chosen for task in tasks_of(case, plan)]
    path = None if out is None else out / RESULT_FILE
    cells = run_tasks(tasks, plan.recipes, path, progress)
    if not cells:
        raise InputError("The volume has too few slices to leave any out, or none of the methods applies to it.")
    summary = summarize(cells)
    if out is not None:
        ResultStore(out / RESULT_FILE, notes(plan.recipes)).write(summary=[asdict(line) for line in summary])
        write_csv(cells, out / TABLE_FILE)
        draw(cells, out / PLOT_FILE)
    return {"cells": [asdict(cell) for cell in cells], "summary": [asdict(line) for line in summary]}


def evaluate_files(
    image: Path,
    mask: Path | None,
    out: Path,
    *,
    every: tuple[int, ...] = (2, 3, 5),
    methods: tuple[str, ...] = DEFAULT_METHODS,
    protocols: tuple[str, ...] = (),
    config: ReconstructionConfig | None = None,
    inputs: InputOptions | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """:func:`evaluate` on an image file, and a mask file that annotates each of its slices.

    :param config: the recipe of ``medgs`` and ``prior``; ``medgs:fast`` is the preset of that name.
    """
    config = config or preset_config("standard", self_check=False)
    inputs = inputs or InputOptions()
    stack = load_stack(
        image, mask, labels=inputs.labels or None, axis=inputs.axis, margin_mm=inputs.margin_mm, annotated="all", positions=inputs.positions
    )
    named = {name.partition(":")[2] for name in methods} - {"", config.preset}
    recipes = {config.preset: config} | {name: preset_config(name, self_check=False) for name in sorted(named)}
    plan = Plan(every, protocols, methods=methods, recipes=recipes, seeds=(config.seed,))
    return evaluate(cases_of_stack(stack, image.name), plan, out, progress)


def run_tasks(tasks: Iterable[Task], recipes: Recipes, path: Path | None, progress: ProgressCallback | None = None) -> list[Cell]:
    """Measure the cells that ``path`` does not hold yet, writing it after each.

    :return: the cells of these tasks, those measured earlier included.
    """
    reporter = Reporter(progress)
    store = None if path is None else ResultStore(path, notes(recipes))
    known = {} if store is None else {cell.key: cell for cell in store.cells}
    todo = list(tasks)
    cells: list[Cell] = []
    posed: tuple[tuple[Any, ...], Problem | None] = ((), None)
    reporter.start("evaluate", len(todo))
    for number, task in enumerate(todo):
        which = (task.case.name, task.protocol, task.every, task.profile)
        if posed[0] != which:
            posed = (which, _posed(task))
        problem = posed[1]
        if problem is not None and applies(task.method, problem):
            empty = Cell(
                task.case.name, task.case.subset, task.protocol, task.every, task.profile, task.method, task.seed,
                fingerprint(problem, task.method, recipes),
            )  # fmt: skip
            cell = known.get(empty.key) or _measure(empty, problem, recipes)
            cells.append(cell)
            if store is not None and cell.key not in store:
                store.add(cell)
        reporter.step(number + 1)
    return cells


def _posed(task: Task) -> Problem | None:
    try:
        return pose(task.case, task.protocol, task.every, task.profile)
    except InputError as error:
        logger.warning("%s: %s", task.case.name, error)
        return None


def _measure(cell: Cell, problem: Problem, recipes: Recipes) -> Cell:
    try:
        estimate, cost = measured(lambda: solve(cell.method, problem, recipes, cell.seed))
    except InputError as error:
        logger.warning("%s on %s: %s", cell.method, cell.case, error)
        return Cell(**{**vars(cell), "failure": str(error)})
    return Cell(**{**vars(cell), "figures": figures(estimate, problem), "cost": cost})


def fingerprint(problem: Problem, method: str, recipes: Recipes) -> str:
    """Short hash of what the method sees and how it is set up, seeds apart."""
    digest = hashlib.sha256()
    for array in (problem.stack.image, problem.stack.occupancy, problem.stack.annotated, problem.stack.plane_to_ras):
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    recipe = recipes.get(method.partition(":")[2])
    digest.update(json.dumps(None if recipe is None else asdict(recipe), sort_keys=True).encode())
    return digest.hexdigest()[:12]


def notes(recipes: Mapping[str, ReconstructionConfig]) -> dict[str, Any]:
    """Versions, machine and recipes, for the file of results."""
    return {
        "versions": versions(),
        "machine": {"system": platform.system(), "processor": platform.machine()},
        "recipes": {name: asdict(config) for name, config in recipes.items()},
    }
