"""Quality on left-out real slices, MedGS beside what a user could pick instead: all cases of the data folder, one table, one figure.

    python Testing/Benchmarks/quality.py [--data ../shared/data] [--subset test regions validation development]
        [--protocols image mask sparse thick] [--cases NAME ...] [--rounds 1 2 3 4] [--minutes M] [--threads N]
        [-o Testing/Benchmarks/results]

Round 1 measures the alternatives and ``standard`` on every problem, round 2 ``high`` on images, round 3 the prior alone and ``fast``, round
4 two more seeds of ``standard`` on the first n of each case, round 5, which takes hours, ``paper``: shortened, but for the full schedule on
the case that is small enough for it. Each cell is stored when it is done; a run that was stopped, or ran out of its minutes, is continued
by the same command.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from MedGSLib.config import preset_config
from MedGSLib.errors import Cancelled
from MedGSLib.evaluation.cases import SUBSETS, Case, CaseDefinition, read_definitions
from MedGSLib.evaluation.evaluate import Task, notes, run_tasks
from MedGSLib.evaluation.methods import Recipes
from MedGSLib.evaluation.names import IMAGE, METHODS_OF, OWN, PROFILES, PROTOCOLS, THICK
from MedGSLib.evaluation.plots import draw
from MedGSLib.evaluation.results import ResultStore
from MedGSLib.evaluation.table import markdown, summarize, summary_table, write_csv
from MedGSLib.progress import ProgressEvent

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data"
SHORT_PAPER = {"iterations": 2000, "gaussians": 10_000}
FULL_PAPER_CASE = "gd_centre"
OPENING = """# Quality on left-out slices

Made by `python Testing/Benchmarks/quality.py`; how to read it, and where MedGS is behind: README.md beside it. Entries of images are
PSNR dB / SSIM, of masks mean-slice Dice / volume Dice · Chamfer / HD95 mm, all on slices that no method saw; ± is half the range of
three seeds. Leads are over the best alternative of each problem, positive where MedGS is better; error ratios are of 1 - Dice, or of mm."""

logger = logging.getLogger("quality")


@dataclass(frozen=True)
class Wanted:
    """A problem to measure, and its place in the order: first choice of n before the second, then case by case."""

    place: int
    turn: int
    definition: CaseDefinition
    protocol: str
    every: int
    profile: str


def recipes(threads: int | None) -> Recipes:
    """The presets, and the published recipe at an affordable length."""
    found = {name: preset_config(name, self_check=False, threads=threads) for name in ("fast", "standard", "high", "paper")}
    return found | {"paper_short": preset_config("paper", self_check=False, threads=threads, **SHORT_PAPER)}


def problems(definitions: list[CaseDefinition], protocols: list[str]) -> list[Wanted]:
    """All problems, the most informative ones first."""
    found = []
    for definition in definitions:
        for protocol in protocols:
            for place, every in enumerate(definition.every.get(protocol, ())):
                for later, profile in enumerate(PROFILES if protocol == THICK else ("point",)):
                    if later < 2 or (later == 2 and place == 0) or place + definition.turn == 0:
                        found.append(Wanted(place + later, definition.turn, definition, protocol, every, profile))
    return sorted(found, key=lambda one: (one.place, one.turn, PROTOCOLS.index(one.protocol)))


def methods(wanted: Wanted, stage: int) -> Iterator[tuple[str, int]]:
    """Methods and seeds of a round."""
    right = PROFILES[wanted.profile][1] == 1.0 if wanted.protocol == THICK else True
    if stage == 1:
        yield from ((name, 0) for name in METHODS_OF[wanted.protocol] if name not in OWN)
        yield "medgs:standard", 0
    elif stage == 2 and wanted.protocol in (IMAGE, THICK) and right:
        yield "medgs:high", 0
    elif stage == 3 and right:
        yield from (("prior:standard", 0), ("medgs:fast", 0))
    elif stage == 4 and right and wanted.place == 0:
        yield from (("medgs:standard", 1), ("medgs:standard", 2))
    elif stage == 5 and wanted.protocol != THICK:
        yield ("medgs:paper" if wanted.definition.name == FULL_PAPER_CASE else "medgs:paper_short"), 0


def tasks(found: list[Wanted], rounds: list[int], data: Path) -> Iterator[Task]:
    """Round by round; files are read when their turn comes."""
    loaded: dict[str, Case] = {}
    for stage in rounds:
        for wanted in found:
            for method, seed in methods(wanted, stage):
                name = wanted.definition.name
                if name not in loaded:
                    loaded[name] = wanted.definition.load(data)
                yield Task(loaded[name], wanted.protocol, wanted.every, wanted.profile, method, seed)


def write_tables(out: Path, chosen: Recipes) -> None:
    """Everything that is made from the stored cells."""
    store = ResultStore(out / "quality.json", notes(chosen))
    summary = summarize(store.cells)
    store.write(summary=[asdict(line) for line in summary])
    write_csv(store.cells, out / "quality.csv")
    lines = [OPENING]
    for subset in SUBSETS[::-1]:
        cells = [cell for cell in store.cells if cell.subset == subset]
        if not cells:
            continue
        draw(cells, out / f"quality_{subset}.png")
        lines += ["", f"## {subset.capitalize()} set", "", summary_table([line for line in summary if line.subset == subset])]
        for protocol in PROTOCOLS:
            if any(cell.protocol == protocol for cell in cells):
                lines += ["", f"### {protocol}", "", markdown(store.cells, protocol, subset)]
    (out / "quality.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--subset", nargs="+", choices=SUBSETS, default=["test"])
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--cases", nargs="+", default=None)
    parser.add_argument("--rounds", nargs="+", type=int, choices=(1, 2, 3, 4, 5), default=[1, 2, 3, 4])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--tables-only", action="store_true", help="only make the tables from the stored cells")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    deadline = time.monotonic() + 60 * options.minutes
    definitions = [one for subset in options.subset for one in read_definitions(HERE / f"cases_{subset}.json")]
    definitions = [one for one in definitions if options.cases is None or one.name in options.cases]
    chosen = recipes(options.threads)

    def progress(event: ProgressEvent) -> bool:
        logger.info("%d of %d cells", event.step, event.total)
        return time.monotonic() < deadline

    if not options.tables_only:
        try:
            run_tasks(
                tasks(problems(definitions, options.protocols), options.rounds, options.data),
                chosen,
                options.output / "quality.json",
                progress,
            )
        except Cancelled:
            logger.info("The time is up; the same command continues.")
    write_tables(options.output, chosen)


if __name__ == "__main__":
    main()
