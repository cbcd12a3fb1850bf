"""What the partial-volume mask of thick slices is worth: real masks averaged over n slices, given as shares, cut at a half, or as centres.

    python Testing/Benchmarks/partial_volume.py [--data ../shared/data] [--subset test validation development] [--every 3 5] [--threads N]
        [-o Testing/Benchmarks/results/partial_volume.json]

A slab of n thin mask slices becomes one thick slice, whose pixels hold the share of the slab that is filled (``shares``). A file of whole
labels can only hold these cut at a half (``half``), or what is drawn on the slab's middle (``centre``). Each is reconstructed by preset
``fast`` without an image and compared with the thin slices; ``sdf`` is linear interpolation of the signed distances of the centres.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from MedGSLib.config import preset_config
from MedGSLib.evaluation.cases import SUBSETS, Case, read_definitions
from MedGSLib.evaluation.figures import figures
from MedGSLib.evaluation.methods import Estimate, solve
from MedGSLib.evaluation.names import MASK, SPARSE
from MedGSLib.evaluation.protocols import Problem, Truth
from MedGSLib.io.atomic import write_json
from MedGSLib.prior.profile import SliceProfile
from MedGSLib.reconstruct import reconstruct

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data"
FEWEST_SLABS = 4

logger = logging.getLogger("partial_volume")


def thick_masks(case: Case, every: int) -> dict[str, Problem]:
    """What stands for a case's mask in slabs of ``every`` (odd) slices; the truth are the thin slices from first to last centre."""
    stack = replace(case.stack, image=None)
    assert stack.occupancy is not None
    count = stack.shape[0] // every
    middle = every // 2
    centres = middle + every * np.arange(count)
    mask = stack.occupancy[0, middle : centres[-1] + 1] >= 0.5
    truth = Truth(np.arange(len(mask)), np.ones(len(mask), bool), None, mask)
    slabs = stack.occupancy[:, : count * every].reshape(1, count, every, *stack.shape[1:])
    thick = replace(stack.select(centres), slice_thickness_mm=every * stack.gap_mm)
    shares = slabs.mean(axis=2)
    drawn = {"shares": shares, "half": (shares >= 0.5).astype(np.float32), "centre": slabs[:, :, middle]}
    return {
        name: Problem(case.name, case.subset, SPARSE, every, replace(thick, occupancy=given), every, SliceProfile("box", 1.0), truth)
        for name, given in drawn.items()
    }


def measure(case: Case, every: int, threads: int | None) -> dict[str, dict[str, float]]:
    """The figures of each way to give the mask."""
    problems = thick_masks(case, every)
    config = preset_config("fast", mode="mask", scale=every, self_check=False, threads=threads)
    found = {}
    for name, problem in problems.items():
        result = reconstruct(problem.stack, config)
        assert result.occupancy is not None
        found[name] = figures(Estimate(None, result.occupancy[0], next(iter(result.meshes.values()))), problem)
    return found | {"sdf": figures(solve("sdf", problems["centre"], {}), problems["centre"])}


def main() -> None:
    """Measure all cases with a mask, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--subset", nargs="+", choices=SUBSETS, default=["test"])
    parser.add_argument("--every", nargs="+", type=int, choices=(3, 5, 7), default=[3, 5])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "partial_volume.json")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cells = []
    for subset in options.subset:
        for definition in read_definitions(HERE / f"cases_{subset}.json"):
            if MASK not in definition.every:
                continue
            case = definition.load(options.data)
            for every in options.every:
                if case.stack.shape[0] // every < FEWEST_SLABS:
                    continue
                found = measure(case, every, options.threads)
                cells.append({"case": case.name, "subset": subset, "every": every, "figures": found})
                logger.info("%s %d %s", case.name, every, {name: round(values["dice_volume"], 4) for name, values in found.items()})
    write_json(options.output, {"date": date.today().isoformat(), "preset": "fast, mask alone", "cells": cells})


if __name__ == "__main__":
    main()
