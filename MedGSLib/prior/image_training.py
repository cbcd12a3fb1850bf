"""Training of the row network on the acquired slices themselves: rows are removed in-plane as slices are missing along the stack."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter1d, zoom
from torch import Tensor

from MedGSLib.prior.general_network import CHANNELS, CONTEXT, DEPTH, general_weights
from MedGSLib.prior.image_config import PriorConfig, Sampling
from MedGSLib.prior.image_optimizer import RowOptimizer
from MedGSLib.prior.network import Precision, RowNetwork
from MedGSLib.prior.smoothness import matching_blur
from MedGSLib.progress import Reporter

Stack = NDArray[np.float32]

logger = logging.getLogger(__name__)

PATCH_ROWS = 12
"""Acquired-like rows per patch at most."""
PATCH_COLUMNS = 64
FEWEST_ROWS = 3
FEWEST_COLUMNS = 8
RESAMPLING_TOLERANCE = 0.02
JUDGED_SLICES = 8
"""Slices at least whose smoothness along the rows is compared with that of the stack."""
CHARBONNIER_SQUARED = 1e-3
EDGE_LEARNING_RATE = 2e-3
"""Of the first and last convolution and the biases."""


@dataclass(frozen=True)
class TrainedPrior:
    """The network of one patient.

    :ivar state: its weights, for a checkpoint.
    :ivar loss: mean loss over the last tenth of the training.
    """

    network: RowNetwork
    precision: Precision
    loss: float

    @property
    def state(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu() for name, value in self.network.state_dict().items()}


class RowPlanes:
    """Slices whose rows stand for sub-slices, each with its neighbouring planes, and the patches drawn from them.

    :param planes: (S, 2 * context + 1, rows, columns), the row axis already at the sub-slice spacing; the middle plane is learnt.
    :param sampling: the network sees rows averaged over its profile.
    """

    def __init__(self, planes: NDArray[np.float32], sampling: Sampling, device: torch.device) -> None:
        offsets, weights = sampling.profile.weights(sampling.factor)
        self._factor = factor = sampling.factor
        self._averaged = sampling.averaged
        kernel = np.zeros(2 * int(offsets[-1]) + 1, np.float32)
        kernel[offsets + offsets[-1]] = weights
        blurred = correlate1d(planes, kernel, axis=2, mode="nearest") if len(kernel) > 1 else planes
        self._targets = torch.from_numpy(np.ascontiguousarray(planes[:, planes.shape[1] // 2])).to(device)
        self._inputs = torch.from_numpy(np.ascontiguousarray(blurred)).to(device)
        height, width = planes.shape[2:]
        self._rows = min(PATCH_ROWS, height // factor if self._averaged else (height - 1) // factor)
        self._columns = min(PATCH_COLUMNS, width)
        self._extent = self._rows * factor + (0 if self._averaged else 1)

    @property
    def usable(self) -> bool:
        """Whether a patch shows the network enough to learn from."""
        return self._rows >= FEWEST_ROWS and self._columns >= FEWEST_COLUMNS

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random patches, mirrored at random along all three axes.

        :return: input rows (B, 2 * context + 1, R, X) and the rows wanted from them, shaped as the network's output.
        """
        slices, planes, height, width = self._inputs.shape
        device = self._inputs.device

        def whole_numbers(end: int) -> Tensor:
            return torch.randint(end, (count, 1), generator=generator)

        row = _runs(whole_numbers(height - self._extent + 1), self._extent, whole_numbers(2)).to(device)
        column = _runs(whole_numbers(width - self._columns + 1), self._columns, whole_numbers(2)).to(device)
        plane = _runs(torch.zeros((count, 1), dtype=torch.int64), planes, whole_numbers(2)).to(device)
        piece = whole_numbers(slices).to(device)
        factor = self._factor
        seen = row[:, factor // 2 :: factor] if self._averaged else row[:, ::factor]
        inputs = self._inputs[piece[:, :, None, None], plane[:, :, None, None], seen[:, None, :, None], column[:, None, None, :]]
        wanted = row if self._averaged else row[:, :-1]
        targets = self._targets[piece[:, :, None], wanted[:, :, None], column[:, None, :]]
        targets = targets.unflatten(1, (self._rows, factor)).transpose(1, 2)
        return inputs, targets if self._averaged else targets[:, 1:]


def _runs(start: Tensor, length: int, mirrored: Tensor) -> Tensor:
    """Indices (B, length) of consecutive runs from ``start`` (B, 1), backwards where ``mirrored`` (B, 1) is 1."""
    steps = torch.arange(length)
    return start + torch.where(mirrored == 1, length - 1 - steps, steps)


def trainable(shape: tuple[int, ...], sampling: Sampling) -> bool:
    """Whether slices of shape (S, H, W) are large enough to learn from along at least one axis."""
    blank = np.zeros((1, 1, *shape[1:]), np.float32)
    return bool(row_planes((blank, blank), sampling, torch.device("cpu")))


def row_planes(stacks: tuple[Stack, Stack], sampling: Sampling, device: torch.device) -> list[RowPlanes]:
    """The training planes of both in-plane axes that are large enough; each axis is resampled to the sub-slice spacing.

    Rows that are sharper than the stack are blurred, so that the network does not learn detail that the stack lacks.

    :param stacks: (S, 2 * context + 1, H, W) normalised, for rows removed along the row axis and along the column axis.
    """
    planes = []
    for oriented, ratio in zip((stacks[0], stacks[1].swapaxes(2, 3)), sampling.gap_over_pixel, strict=True):
        scale = sampling.factor / ratio
        if abs(scale - 1) > RESAMPLING_TOLERANCE:
            oriented = zoom(oriented, (1, 1, scale, 1), order=1)
        if sampling.stack_ratio is not None:
            oriented = _as_smooth_as_the_stack(oriented, sampling.factor, sampling.stack_ratio)
        candidate = RowPlanes(np.asarray(oriented, np.float32), sampling, device)
        if candidate.usable:
            planes.append(candidate)
    return planes


def _as_smooth_as_the_stack(planes: Stack, factor: int, stack_ratio: float) -> Stack:
    """Planes (S, C, R, X) blurred along the rows."""
    judged = planes[:: max(1, len(planes) // JUDGED_SLICES), planes.shape[1] // 2]
    sigma = matching_blur(np.moveaxis(judged, 1, 0), factor, stack_ratio)
    return gaussian_filter1d(planes, sigma, axis=2) if sigma > 0 else planes


def new_network(sampling: Sampling, config: PriorConfig, precision: Precision, context: int = 0) -> RowNetwork:
    """A network of the configured size that knows nothing of this patient: the general one, or random, the same for the same seed."""
    devices = [precision.device] if precision.device.type == "cuda" else []
    exact = sampling.averaged and sampling.profile.tiles_exactly(sampling.factor)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        network = RowNetwork(sampling.factor, config.channels, config.depth, context, sampling.averaged, exact)
    if knows_anatomy(config, context):
        network.load_state_dict(_general_start(sampling, context))
    return network.to(precision.device, memory_format=precision.layout)  # type: ignore[call-overload]


def knows_anatomy(config: PriorConfig, context: int) -> bool:
    """Whether a network of the configured size starts from what the general one has learnt from synthetic anatomy."""
    shipped = (config.channels, config.depth) == (CHANNELS, DEPTH) and context in (0, CONTEXT)
    return config.general and shipped


def _general_start(sampling: Sampling, context: int) -> dict[str, Tensor]:
    """Weights of the general network; without context, it sees the plane itself beside it, which it was trained for as well."""
    weights = general_weights(sampling.gap_px, sampling.factor, sampling.profile)
    if context == 0:
        weights["features.0.weight"] = weights["features.0.weight"].sum(1, keepdim=True)
    return weights


def untrained(network: RowNetwork, precision: Precision) -> TrainedPrior:
    """A network that is applied as it is."""
    return TrainedPrior(network.eval(), precision, float("nan"))


def train(planes: Sequence[RowPlanes], network: RowNetwork, config: PriorConfig, precision: Precision, reporter: Reporter) -> TrainedPrior:
    """Fit the network with a Charbonnier loss.

    :param planes: at least one, drawn from in turn.
    :raises Cancelled: when the caller cancels.
    """
    generator = torch.Generator().manual_seed(config.seed)
    hidden, others = network.hidden_and_other_parameters()
    optimizer = RowOptimizer(hidden, others, config.learning_rate, EDGE_LEARNING_RATE, config.iterations)
    reporter.start("prior", config.iterations, "learning from this patient's own slices")
    recent: list[float] = []
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        for step in range(config.iterations):
            inputs, targets = planes[step % len(planes)].draw(config.batch, generator)
            loss = _loss(network, inputs, targets, precision)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recent.append(float(loss.detach()))
            reporter.step(step + 1, loss=recent[-1])
    last = float(np.mean(recent[-max(len(recent) // 10, 1) :]))
    logger.info("prior trained for %d steps, loss %.4f", config.iterations, last)
    return TrainedPrior(network.eval(), precision, last)


def _loss(network: RowNetwork, inputs: Tensor, targets: Tensor, precision: Precision) -> Tensor:
    with precision():
        predicted = network(inputs.contiguous(memory_format=precision.layout))
    return row_loss(predicted, targets, network.averaged)


def row_loss(predicted: Tensor, wanted: Tensor, averaged: bool) -> Tensor:
    """Charbonnier loss of rows (B, factor or factor - 1, R, X); the outermost thick rows lack a neighbour and do not count."""
    difference = predicted - wanted
    if averaged:
        difference = difference[:, :, 1:-1]
    return torch.sqrt(difference.square() + CHARBONNIER_SQUARED).mean()
