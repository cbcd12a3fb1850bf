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

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional

from MedGSLib.prior.shape_network import RowNetwork, SliceNetwork, between, row_signed_distance, save_networks
from MedGSLib.prior.shape_synthesis import ANNOTATED, SIDE, WANTED_FRACTIONS, ShapeSet, make_shapes

log = logging.getLogger(__name__)

EMA = 0.995


@dataclass(frozen=True)
class TrainingPlan:
    """How the shipped weights were made."""

    shapes: int = 6000
    seed: int = 7
    slice_channels: int = 48
    slice_iterations: int = 4000
    slice_batch: int = 16
    slice_rate: float = 1.5e-3
    row_channels: int = 48
    row_depth: int = 7
    row_iterations: int = 4000
    row_batch: int = 24
    row_rate: float = 3e-3
    row_gaps: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 9)
    row_count: int = 12


def side_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy of which pixels are inside; the prediction becomes a log odds whose sign is the shape."""
    return functional.binary_cross_entropy_with_logits(predicted, (wanted > 0).float())


def _augmented(sample: np.ndarray, rng: Generator) -> np.ndarray:
    """A sample (9, H, W) mirrored, transposed and turned upside down at random, at times without an outer slice."""
    annotated, wanted = sample[: len(ANNOTATED)], sample[len(ANNOTATED) :]
    if rng.random() < 0.5:
        annotated, wanted = annotated[::-1], wanted[::-1]
    annotated = annotated.copy()
    for outer, inner in ((0, 1), (3, 2)):
        if rng.random() < 0.12:
            annotated[outer] = annotated[inner]
    joined = np.concatenate([annotated, wanted])
    if rng.random() < 0.5:
        joined = joined[:, ::-1]
    if rng.random() < 0.5:
        joined = joined[:, :, ::-1]
    return joined.transpose(0, 2, 1) if rng.random() < 0.5 else joined


def slice_loss(network: nn.Module, shapes: ShapeSet, plan: TrainingPlan, rng: Generator) -> Tensor:
    """Loss of one random batch of the slice network."""
    chosen = rng.integers(0, len(shapes.gaps), plan.slice_batch)
    samples = np.stack([_augmented(shapes.distances[k].astype(np.float32), rng) for k in chosen])
    batch = torch.from_numpy(samples)
    slices, wanted = batch[:, : len(ANNOTATED)], batch[:, len(ANNOTATED) :]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coefficients = network(slices, torch.from_numpy(shapes.gaps[chosen]))
    predicted = between(slices[:, 1], slices[:, 2], coefficients, torch.tensor(WANTED_FRACTIONS))
    return side_loss(predicted, wanted)


def row_loss(network: nn.Module, shapes: ShapeSet, plan: TrainingPlan, rng: Generator) -> Tensor:
    """Loss of one random batch of the row network: slices of the shapes of which every gap-th row is kept."""
    gap = int(rng.choice(plan.row_gaps))
    rows = min(plan.row_count, (SIDE - 1) // gap)
    pictures: list[np.ndarray] = []
    while len(pictures) < plan.row_batch:
        picture = shapes.distances[rng.integers(len(shapes.gaps)), rng.integers(len(ANNOTATED), shapes.distances.shape[1])]
        picture = picture.T if rng.random() < 0.5 else picture
        start = rng.integers(0, SIDE - rows * gap)
        picture = picture[start : start + rows * gap + 1]
        if (picture > 0).any():
            picture = picture[::-1] if rng.random() < 0.5 else picture
            pictures.append(picture[:, ::-1] if rng.random() < 0.5 else picture)
    truth = np.stack(pictures).astype(np.float32)
    kept = torch.from_numpy(row_signed_distance(truth[:, ::gap]))
    wanted = torch.from_numpy(np.stack([truth[:, j:-1:gap] for j in range(1, gap)], axis=1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coefficients = network(kept, torch.full((len(kept),), float(gap)))
    predicted = between(kept[:, :-1], kept[:, 1:], coefficients, torch.arange(1, gap) / gap)
    return side_loss(predicted, wanted)


def train(network: nn.Module, loss: Callable[[nn.Module], Tensor], iterations: int, rate: float) -> nn.Module:
    """AdamW on a cosine schedule; returns the moving average of the weights, which generalises better than the last ones."""
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
    log.info("%d shapes made", plan.shapes)
    rng = _seeded(plan)
    rows = train(
        RowNetwork(plan.row_channels, plan.row_depth), lambda net: row_loss(net, shapes, plan, rng), plan.row_iterations, plan.row_rate
    )
    rng = _seeded(plan)
    slices = train(
        SliceNetwork(plan.slice_channels), lambda net: slice_loss(net, shapes, plan, rng), plan.slice_iterations, plan.slice_rate
    )
    assert isinstance(slices, SliceNetwork) and isinstance(rows, RowNetwork)
    return slices, rows


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
