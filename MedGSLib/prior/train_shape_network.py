"""Train the shape network from synthetic shapes and write the weights that MedGS ships.

Usage: ``python -m MedGSLib.prior.train_shape_network OUTPUT.safetensors``. Deterministic: one thread, fixed seeds.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from MedGSLib.prior.mask_distance import slice_signed_distances
from MedGSLib.prior.shape_network import SLICE_LIMIT_PX, RowNetwork, SliceNetwork, between, row_signed_distance, save_networks
from MedGSLib.prior.shape_synthesis import GAP_RANGE_PX, SIDE, THIN_FAMILIES, ShapeSet, make_shapes

log = logging.getLogger(__name__)

EMA = 0.998
MISSING_SHARE = 0.12
PLANES_OF_A_SHAPE = 3

Network = TypeVar("Network", SliceNetwork, RowNetwork)


@dataclass(frozen=True)
class TrainingPlan:
    """How the shipped weights were made."""

    shapes: int = 6000
    seed: int = 7
    thin_shapes: int = 2400
    slice_channels: int = 64
    slice_iterations: int = 10000
    slice_batch: int = 16
    slice_rate: float = 1.5e-3
    slice_positions: int = 3
    row_channels: int = 64
    row_depth: int = 8
    row_context: int = 2
    row_iterations: int = 14000
    row_batch: int = 24
    row_rate: float = 1.5e-3
    row_refining: int = 5000
    row_refining_rate: float = 8e-4
    row_gaps: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 9)
    row_count: int = 12


def side_loss(predicted: Tensor, inside: Tensor) -> Tensor:
    """Cross-entropy of which pixels are inside; the prediction becomes a log odds whose sign is the shape."""
    return functional.binary_cross_entropy_with_logits(predicted, inside.float())


def slice_loss(network: nn.Module, shapes: ShapeSet, plan: TrainingPlan, rng: Generator) -> Tensor:
    """Loss of one random batch of the slice network: four slices of each shape, and some of those between the middle two."""
    seen: list[NDArray[np.float32]] = []
    wanted: list[NDArray[np.bool_]] = []
    places: list[NDArray[np.float64]] = []
    gaps: list[int] = []
    while len(seen) < plan.slice_batch:
        shape = shapes.draw(rng)
        gap = max(2, round(float(np.exp(rng.uniform(*np.log(GAP_RANGE_PX))))))
        start = rng.integers(0, SIDE - 3 * gap)
        slices = shape[start : start + 3 * gap + 1 : gap]
        middle = shape[start + gap : start + 2 * gap]
        if not (slices[1].any() or slices[2].any()):
            continue
        offsets = rng.integers(1, gap, plan.slice_positions)
        seen.append(_slice_distances(slices, rng))
        wanted.append(middle[offsets])
        places.append(offsets / gap)
        gaps.append(gap)
    distances = torch.from_numpy(np.stack(seen))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coefficients = network(distances, torch.tensor(gaps, dtype=torch.float32))
    predicted = between(distances[:, 1], distances[:, 2], coefficients, torch.from_numpy(np.stack(places).astype(np.float32)))
    return side_loss(predicted, torch.from_numpy(np.stack(wanted)))


def _slice_distances(slices: NDArray[np.bool_], rng: Generator) -> NDArray[np.float32]:
    """Distances (4, H, W) of neighbouring slices, at times with an outer one missing."""
    distances = np.clip(slice_signed_distances(slices), -SLICE_LIMIT_PX, SLICE_LIMIT_PX)
    for outer, inner in ((0, 1), (3, 2)):
        if rng.random() < MISSING_SHARE:
            distances[outer] = distances[inner]
    return distances


def row_loss(network: RowNetwork, shapes: ShapeSet, plan: TrainingPlan, rng: Generator) -> Tensor:
    """Loss of one random batch of the row network: planes through the shapes, with their neighbours, of which every gap-th row is kept."""
    gap = int(rng.choice(plan.row_gaps))
    height = min(plan.row_count, (SIDE - 1) // gap) * gap
    reach = network.context
    pictures: list[NDArray[np.bool_]] = []
    while len(pictures) < plan.row_batch:
        shape = shapes.draw(rng)
        for _ in range(PLANES_OF_A_SHAPE):
            plane, start = rng.integers(reach, SIDE - reach), rng.integers(0, SIDE - height)
            picture = shape[start : start + height + 1, plane - reach : plane + reach + 1]
            if picture[:, reach].any():
                pictures.append(picture)
    truth = np.stack(pictures[: plan.row_batch]).transpose(0, 2, 1, 3)
    kept = torch.from_numpy(row_signed_distance(truth[:, :, ::gap] - np.float32(0.5)))
    wanted = torch.from_numpy(np.stack([truth[:, reach, j:-1:gap] for j in range(1, gap)], axis=1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coefficients = network(kept, torch.full((len(kept),), float(gap)))
    middle = kept[:, reach]
    return side_loss(between(middle[:, :-1], middle[:, 1:], coefficients, torch.arange(1, gap) / gap), wanted)


def train(network: Network, loss: Callable[[Network], Tensor], iterations: int, rate: float) -> Network:
    """AdamW on a cosine schedule; returns the moving average of the weights, which generalises better than the last ones."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    running, started = 0.0, time.process_time()
    for step in range(iterations):
        share = min(1.0, step / 50 + 0.02) * 0.5 * (1 + math.cos(math.pi * step / iterations))
        for group in optimizer.param_groups:
            group["lr"] = rate * share + 1e-5
        value = loss(network)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        keep = min(EMA, (step + 2) / (step + 11))
        with torch.no_grad():
            for kept, current in zip(average.parameters(), network.parameters()):
                kept.lerp_(current, 1 - keep)
        running = value.item() if step == 0 else 0.99 * running + 0.01 * value.item()
        if (step + 1) % 250 == 0:
            log.info("step %d of %d, loss %.4f, %.0f CPU s", step + 1, iterations, running, time.process_time() - started)
    return average


def train_networks(plan: TrainingPlan) -> tuple[SliceNetwork, RowNetwork]:
    """Both networks from scratch; the same plan on the same machine gives the same weights."""
    torch.set_num_threads(1)
    shapes = make_shapes(plan.shapes, plan.seed)
    thin = make_shapes(plan.thin_shapes, plan.seed, THIN_FAMILIES)
    log.info("%d shapes made", plan.shapes + plan.thin_shapes)
    everything = ShapeSet(np.concatenate([shapes.packed, thin.packed]))
    return train_slices(plan, shapes), refine_rows(train_rows(plan, shapes), plan, everything)


def train_rows(plan: TrainingPlan, shapes: ShapeSet) -> RowNetwork:
    """The row network alone, taught by solid shapes."""
    rng = _seeded(plan)
    network = RowNetwork(plan.row_channels, plan.row_depth, plan.row_context)
    return train(network, lambda net: row_loss(net, shapes, plan, rng), plan.row_iterations, plan.row_rate)


def refine_rows(network: RowNetwork, plan: TrainingPlan, shapes: ShapeSet) -> RowNetwork:
    """A second course of the row network, which shows it thin shapes too; it starts from the weights as they would be stored."""
    network.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    rng = np.random.default_rng(plan.seed + 2)
    return train(network, lambda net: row_loss(net, shapes, plan, rng), plan.row_refining, plan.row_refining_rate)


def train_slices(plan: TrainingPlan, shapes: ShapeSet) -> SliceNetwork:
    """The slice network alone."""
    rng = _seeded(plan)
    network = SliceNetwork(plan.slice_channels)
    return train(network, lambda net: slice_loss(net, shapes, plan, rng), plan.slice_iterations, plan.slice_rate)


def _seeded(plan: TrainingPlan) -> Generator:
    """Start both random sources anew, so that either network can be trained without the other."""
    torch.manual_seed(plan.seed)
    return np.random.default_rng(plan.seed + 1)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path)
    output = parser.parse_args(arguments).output
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    plan = TrainingPlan()
    slices, rows = train_networks(plan)
    save_networks(slices, rows, output, {"training": asdict(plan), "data": "synthetic shapes only", "torch": torch.__version__})


if __name__ == "__main__":
    main()
