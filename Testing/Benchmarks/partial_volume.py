"""What the partial-volume mask of thick slices is worth: real masks averaged over n slices, given as shares, cut at a half, or as centres.

    python Testing/Benchmarks/partial_volume.py [--data ../shared/data] [--subset test development] [--every 3 5] [--threads N]
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
from numpy.typing import NDArray
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.baselines.masks import sdf_linear
from MedGSLib.config import preset_config
from MedGSLib.evaluation.cases import SUBSETS, Case, read_definitions
from MedGSLib.evaluation.names import MASK
from MedGSLib.io.atomic import write_json
from MedGSLib.mesh import occupancy_to_mesh
from MedGSLib.metrics import dice
from MedGSLib.metrics_surface import surface_distance, volume_mm3
from MedGSLib.prior.mask_distance import soft_occupancy
from MedGSLib.reconstruct import reconstruct
from MedGSLib.volume import SliceStack

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data"
FEWEST_SLABS = 4

logger = logging.getLogger("partial_volume")


def thick_masks(case: Case, every: int) -> tuple[dict[str, SliceStack], NDArray[np.bool_]]:
    """The stacks that stand for the case's mask in slabs of ``every`` (odd) slices, and the truth from the first centre to the last."""
    stack = replace(case.stack, image=None)
    assert stack.occupancy is not None
    count = stack.shape[0] // every
    middle = every // 2
    centres = middle + every * np.arange(count)
    slabs = stack.occupancy[:, : count * every].reshape(1, count, every, *stack.shape[1:])
    thick = replace(stack.select(centres), slice_thickness_mm=every * stack.gap_mm)
    shares = slabs.mean(axis=2)
    drawn = {"shares": shares, "half": (shares >= 0.5).astype(np.float32), "centre": slabs[:, :, middle]}
    return {name: replace(thick, occupancy=mask) for name, mask in drawn.items()}, stack.occupancy[0, middle : centres[-1] + 1] >= 0.5


def figures(occupancy: NDArray[np.float32], surface: vtkPolyData, truth: NDArray[np.bool_], stack: SliceStack) -> dict[str, float]:
    """Of a dense mask (T, H, W) and its surface, against the thin slices."""
    reference = occupancy_to_mesh(truth.astype(np.float32), stack.index_to_ras(stack.gap_mm * (stack.shape[0] - 1) / (len(truth) - 1)))
    return {
        "dice": dice(occupancy > 0.5, truth),
        "chamfer_mm": surface_distance(surface, reference).chamfer_mm,
        "volume_bias_percent": 100.0 * (volume_mm3(surface) / volume_mm3(reference) - 1.0),
    }


def measure(case: Case, every: int, threads: int | None) -> dict[str, dict[str, float]]:
    """The figures of each way to give the mask."""
    stacks, truth = thick_masks(case, every)
    config = preset_config("fast", mode="mask", scale=every, self_check=False, threads=threads)
    found = {}
    for name, stack in stacks.items():
        result = reconstruct(stack, config)
        assert result.occupancy is not None
        found[name] = figures(result.occupancy[0], next(iter(result.meshes.values())), truth, stack)
    centre = stacks["centre"]
    assert centre.occupancy is not None
    wanted = np.arange(len(truth)) / every
    linear = soft_occupancy(sdf_linear(centre.occupancy[0] >= 0.5, np.arange(centre.shape[0], dtype=float), wanted, centre.pixel_mm))
    found["sdf"] = figures(linear, occupancy_to_mesh(linear, centre.index_to_ras(centre.gap_mm / every)), truth, centre)
    return found


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
                logger.info("%s %d %s", case.name, every, {name: round(values["dice"], 4) for name, values in found.items()})
    write_json(options.output, {"date": date.today().isoformat(), "preset": "fast, mask alone", "cells": cells})


if __name__ == "__main__":
    main()
