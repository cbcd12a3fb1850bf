"""Train the general row network from synthetic anatomy and write the weights that MedGS ships.

Usage: ``python -m MedGSLib.prior.train_general_network OUTPUT.safetensors``. Deterministic on one kind of machine: one thread, fixed
seeds. It takes most of an hour and 2 GB of memory.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.func import functional_call

from MedGSLib.prior.anatomy_synthesis import SIDE, synthetic_anatomy
from MedGSLib.prior.general_network import CHANNELS, CONTEXT, DEPTH, RowNetworkFamily, save_family
from MedGSLib.prior.image_optimizer import RowOptimizer
from MedGSLib.prior.image_training import CHARBONNIER_SQUARED, PATCH_COLUMNS, PATCH_ROWS
from MedGSLib.prior.network import Precision, RowNetwork

log = logging.getLogger(__name__)

Volumes = NDArray[np.float16]
LOGGED_STEPS = 1000


@dataclass(frozen=True)
class TrainingPlan:
    """How the shipped weights were made.

    :ivar gaps: voxels between the rows that the network sees; :ivar gap_shares: how often each is drawn.
    :ivar blurred: share of patches whose rows are blurred along the stack, as slices that overlap are.
    :ivar alone: share of batches without neighbouring planes, as the draft of the patient's network has to do.
    :ivar hidden_rate: largest learning rate of the hidden convolutions, ``other_rate`` of all else; the slopes learn slower by
        ``slope_pace``. At 0.005 and 0.001 the loss rises again and again until the rates have fallen.
    """

    volumes: int = 320
    seed: int = 11
    iterations: int = 24000
    batch: int = 16
    gaps: tuple[int, ...] = (2, 3, 4, 5, 6, 8, 10)
    gap_shares: tuple[float, ...] = (0.19, 0.23, 0.18, 0.18, 0.1, 0.07, 0.05)
    blurred: float = 0.12
    inverted: float = 0.2
    alone: float = 0.2
    channels: int = CHANNELS
    depth: int = DEPTH
    hidden_rate: float = 0.003
    other_rate: float = 5e-4
    slope_pace: float = 0.3


def make_volumes(plan: TrainingPlan) -> Volumes:
    """(N, 96, 96, 96), the same for the same plan."""
    generators = np.random.default_rng(plan.seed).spawn(plan.volumes)
    return np.stack([synthetic_anatomy(rng).astype(np.float16) for rng in generators])


def draw_batch(volumes: Volumes, gap: int, plan: TrainingPlan, rng: Generator) -> tuple[Tensor, Tensor]:
    """Random patches in random orientation and contrast.

    :return: what the network sees (B, 5, R, X), and the rows between them (B, gap - 1, R - 1, X).
    """
    patches = np.stack([_patch(volumes[rng.integers(len(volumes))], gap, plan, rng) for _ in range(plan.batch)])
    sign = np.where(rng.random(plan.batch) < plan.inverted, -1, 1)
    contrast, brightness = sign * rng.uniform(0.6, 1.3, plan.batch), (sign < 0) + rng.uniform(-0.1, 0.1, plan.batch)
    joined = torch.from_numpy((patches * contrast[:, None, None, None] + brightness[:, None, None, None]).astype(np.float32))
    seen = joined[:, :, ::gap]
    if rng.random() < plan.alone:
        seen = seen[:, CONTEXT : CONTEXT + 1].expand(-1, 2 * CONTEXT + 1, -1, -1)
    return seen, joined[:, CONTEXT, :-1].unflatten(1, (-1, gap)).transpose(1, 2)[:, 1:]


def _patch(volume: NDArray[np.float16], gap: int, plan: TrainingPlan, rng: Generator) -> NDArray[np.float32]:
    """Neighbouring planes (5, rows, columns) of a randomly turned volume."""
    turned = volume.transpose(rng.permutation(3))
    turned = turned[tuple(slice(None, None, int(step)) for step in rng.choice((-1, 1), 3))]
    rows = min(PATCH_ROWS, (SIDE - 1) // gap) * gap + 1
    shape = (2 * CONTEXT + 1, rows, PATCH_COLUMNS)
    first = [int(rng.integers(SIDE - length + 1)) for length in shape]
    patch = turned[tuple(slice(begin, begin + length) for begin, length in zip(first, shape, strict=True))].astype(np.float32)
    return gaussian_filter1d(patch, rng.uniform(0.2, 0.9) * gap, axis=1) if rng.random() < plan.blurred else patch


def train_family(volumes: Volumes, plan: TrainingPlan) -> RowNetworkFamily:
    """The networks from scratch; the same plan on the same machine gives the same weights."""
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed + 1)
    precision = Precision(torch.device("cpu"), reduced=True)
    family = RowNetworkFamily(plan.channels, plan.depth).to(memory_format=precision.layout)  # type: ignore[call-overload]
    templates = {gap: RowNetwork(gap, plan.channels, plan.depth, CONTEXT) for gap in plan.gaps}
    optimizers = [
        _optimizer(family.middle, plan.hidden_rate, plan.other_rate, plan),
        _optimizer(family.slope, plan.slope_pace * plan.hidden_rate, plan.slope_pace * plan.other_rate, plan),
    ]
    recent: list[float] = []
    started = time.process_time()
    for step in range(plan.iterations):
        gap = int(rng.choice(plan.gaps, p=plan.gap_shares))
        seen, wanted = draw_batch(volumes, gap, plan, rng)
        with precision():
            predicted = functional_call(templates[gap], family.weights(gap, gap), (seen.contiguous(memory_format=precision.layout),))
        loss = torch.sqrt((predicted - wanted).square() + CHARBONNIER_SQUARED).mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        recent.append(float(loss.detach()))
        if (step + 1) % LOGGED_STEPS == 0:
            mean = np.mean(recent[-LOGGED_STEPS:])
            log.info("step %d of %d, loss %.5f, %.0f CPU s", step + 1, plan.iterations, mean, time.process_time() - started)
    return family


def _optimizer(network: RowNetwork, hidden_rate: float, other_rate: float, plan: TrainingPlan) -> RowOptimizer:
    hidden, others = network.hidden_and_other_parameters()
    return RowOptimizer(hidden, others, hidden_rate, other_rate, plan.iterations)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path)
    output = parser.parse_args(arguments).output
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    plan = TrainingPlan()
    torch.set_num_threads(1)
    volumes = make_volumes(plan)
    log.info("%d volumes made", len(volumes))
    provenance: dict[str, object] = {"training": asdict(plan), "data": "synthetic anatomy only", "torch": torch.__version__}
    save_family(train_family(volumes, plan), output, provenance)


if __name__ == "__main__":
    main()
