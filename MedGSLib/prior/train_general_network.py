"""Train the general row networks from synthetic anatomy and write the weights that MedGS ships.

Usage: ``python -m MedGSLib.prior.train_general_network [--thick] OUTPUT.safetensors``, for slices that are points or, with ``--thick``,
averages. Deterministic on one kind of machine: one thread, fixed seeds. It takes most of an hour and 2 GB of memory.
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
from scipy.ndimage import correlate1d, gaussian_filter1d
from torch import Tensor
from torch.func import functional_call

from MedGSLib.prior.anatomy_synthesis import SIDE, synthetic_anatomy
from MedGSLib.prior.general_network import CHANNELS, CONTEXT, DEPTH, RowNetworkFamily, save_family
from MedGSLib.prior.image_optimizer import RowOptimizer
from MedGSLib.prior.image_training import PATCH_COLUMNS, PATCH_ROWS, row_loss
from MedGSLib.prior.network import Precision, RowNetwork
from MedGSLib.prior.profile import SliceProfile

log = logging.getLogger(__name__)

Volumes = NDArray[np.float16]
LOGGED_STEPS = 1000
TILING_SHARE, BOX_SHARE = 0.45, 0.3
"""Of batches of averages: over boxes as wide as the gap, and over others; the rest are Gaussian."""
BOX_WIDTHS, GAUSSIAN_WIDTHS = (0.4, 1.8), (0.6, 1.4)
"""In gaps."""


@dataclass(frozen=True)
class TrainingPlan:
    """How the shipped weights were made.

    :ivar gaps: voxels between the rows that the network sees; :ivar gap_shares: how often each is drawn.
    :ivar averaged: for slices that are averages, mostly over a box as wide as the gap, else over a narrower or wider one or a Gaussian.
    :ivar blurred: share of patches whose rows are blurred along the stack, as slices that overlap are.
    :ivar alone: share of batches without neighbouring planes, as the draft of the patient's network has to do.
    :ivar hidden_rate: largest learning rate of the hidden convolutions, ``other_rate`` of all else; the slopes learn slower by
        ``slope_pace``. At 0.005 and 0.001 the loss rises again and again until the rates have fallen.
    """

    averaged: bool = False
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


THICK_PLAN = TrainingPlan(averaged=True, blurred=0.0)


def make_volumes(plan: TrainingPlan) -> Volumes:
    """(N, 96, 96, 96), the same for the same plan."""
    generators = np.random.default_rng(plan.seed).spawn(plan.volumes)
    return np.stack([synthetic_anatomy(rng).astype(np.float16) for rng in generators])


def draw_profile(plan: TrainingPlan, rng: Generator) -> SliceProfile:
    """How the slices of a batch average."""
    if not plan.averaged:
        return SliceProfile()
    kind = rng.random()
    if kind < TILING_SHARE:
        return SliceProfile("box", 1.0)
    if kind < TILING_SHARE + BOX_SHARE:
        return SliceProfile("box", float(rng.uniform(*BOX_WIDTHS)))
    return SliceProfile("gaussian", float(rng.uniform(*GAUSSIAN_WIDTHS)))


def draw_batch(
    volumes: Volumes, gap: int, plan: TrainingPlan, rng: Generator, profile: SliceProfile | None = None
) -> tuple[Tensor, Tensor]:
    """Random patches in random orientation and contrast.

    :param profile: of the rows that the network sees; points by default.
    :return: what the network sees (B, 5, R, X), and the rows wanted from it, shaped as its output.
    """
    profile = profile or SliceProfile()
    patches = np.stack([_patch(volumes[rng.integers(len(volumes))], gap, plan, rng, profile) for _ in range(plan.batch)])
    sign = np.where(rng.random(plan.batch) < plan.inverted, -1, 1)
    contrast, brightness = sign * rng.uniform(0.6, 1.3, plan.batch), (sign < 0) + rng.uniform(-0.1, 0.1, plan.batch)
    joined = torch.from_numpy((patches * contrast[:, None, None, None] + brightness[:, None, None, None]).astype(np.float32))
    if profile.kind == "point":
        seen, rows = joined[:, :, ::gap], joined[:, CONTEXT, :-1]
    else:
        seen, rows = _averages(joined, gap, profile), joined[:, CONTEXT, _reach(gap, profile) : -_reach(gap, profile)]
    if rng.random() < plan.alone:
        seen = seen[:, CONTEXT : CONTEXT + 1].expand(-1, 2 * CONTEXT + 1, -1, -1)
    wanted = rows.unflatten(1, (-1, gap)).transpose(1, 2)
    return seen, wanted[:, 1:] if profile.kind == "point" else wanted


def _averages(joined: Tensor, gap: int, profile: SliceProfile) -> Tensor:
    """Rows (B, C, rows, X), with what the profile reaches beyond them, averaged about every gap-th one."""
    offsets, weights = profile.weights(gap)
    averages = correlate1d(joined.numpy(), _kernel(offsets, weights), axis=2)
    reach = _reach(gap, profile)
    return torch.from_numpy(np.ascontiguousarray(averages[:, :, reach + gap // 2 : -reach : gap]))


def _kernel(offsets: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    kernel = np.zeros(2 * int(offsets[-1]) + 1)
    kernel[offsets + offsets[-1]] = weights
    return kernel


def _reach(gap: int, profile: SliceProfile) -> int:
    """Rows that the profile reaches beyond those of a patch, at least 1."""
    return max(1, int(profile.weights(gap)[0][-1]))


def _patch(volume: NDArray[np.float16], gap: int, plan: TrainingPlan, rng: Generator, profile: SliceProfile) -> NDArray[np.float32]:
    """Neighbouring planes (5, rows, columns) of a randomly turned volume."""
    turned = volume.transpose(rng.permutation(3))
    turned = turned[tuple(slice(None, None, int(step)) for step in rng.choice((-1, 1), 3))]
    extra = 1 if profile.kind == "point" else 2 * _reach(gap, profile)
    rows = min(PATCH_ROWS, (SIDE - extra) // gap) * gap + extra
    shape = (2 * CONTEXT + 1, rows, PATCH_COLUMNS)
    first = [int(rng.integers(SIDE - length + 1)) for length in shape]
    patch = turned[tuple(slice(begin, begin + length) for begin, length in zip(first, shape, strict=True))].astype(np.float32)
    return gaussian_filter1d(patch, rng.uniform(0.2, 0.9) * gap, axis=1) if rng.random() < plan.blurred else patch


def train_family(volumes: Volumes, plan: TrainingPlan) -> RowNetworkFamily:
    """The networks from scratch; the same plan on the same machine gives the same weights."""
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed + 1)
    precision = Precision(torch.device("cpu"), reduced=True)
    family = RowNetworkFamily(plan.channels, plan.depth, plan.averaged).to(memory_format=precision.layout)  # type: ignore[call-overload]
    optimizers = [
        _optimizer(family.middle, plan.hidden_rate, plan.other_rate, plan),
        _optimizer(family.slope, plan.slope_pace * plan.hidden_rate, plan.slope_pace * plan.other_rate, plan),
    ]
    if plan.averaged:
        optimizers.append(RowOptimizer([], list(family.widening), 0.0, plan.slope_pace * plan.other_rate, plan.iterations))
    recent: list[float] = []
    started = time.process_time()
    for step in range(plan.iterations):
        gap = int(rng.choice(plan.gaps, p=plan.gap_shares))
        profile = draw_profile(plan, rng)
        seen, wanted = draw_batch(volumes, gap, plan, rng, profile)
        template = row_network(gap, plan, profile)
        with precision():
            predicted = functional_call(template, family.weights(gap, gap, profile), (seen.contiguous(memory_format=precision.layout),))
        loss = row_loss(predicted, wanted, plan.averaged)
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


def row_network(gap: int, plan: TrainingPlan, profile: SliceProfile) -> RowNetwork:
    """A network that takes the weights of the family."""
    exact = plan.averaged and profile.tiles_exactly(gap)
    return RowNetwork(gap, plan.channels, plan.depth, CONTEXT, plan.averaged, exact)


def _optimizer(network: RowNetwork, hidden_rate: float, other_rate: float, plan: TrainingPlan) -> RowOptimizer:
    hidden, others = network.hidden_and_other_parameters()
    return RowOptimizer(hidden, others, hidden_rate, other_rate, plan.iterations)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path)
    parser.add_argument("--thick", action="store_true", help="for slices that are averages")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    plan = THICK_PLAN if options.thick else TrainingPlan()
    torch.set_num_threads(1)
    volumes = make_volumes(plan)
    log.info("%d volumes made", len(volumes))
    provenance: dict[str, object] = {"training": asdict(plan), "data": "synthetic anatomy only", "torch": torch.__version__}
    save_family(train_family(volumes, plan), options.output, provenance)


if __name__ == "__main__":
    main()
