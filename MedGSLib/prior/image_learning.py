"""The two steps of learning: a draft from single planes, then the network that also sees what the draft puts beside each plane."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from MedGSLib.errors import InputError
from MedGSLib.prior.image_apply import DensePrediction, neighbouring_planes, predict
from MedGSLib.prior.image_config import PriorConfig, Sampling
from MedGSLib.prior.image_training import TrainedPrior, knows_anatomy, new_network, row_planes, train, trainable, untrained
from MedGSLib.prior.network import Precision, RowNetwork
from MedGSLib.prior.smoothness import sharpness
from MedGSLib.prior.thick import ProfileOperator
from MedGSLib.progress import Reporter

Slices = NDArray[np.float32]

LARGEST_TRAINING_SET = 80 * 2**20
"""Voxels of the slices and their neighbours to train on at most; of longer stacks, evenly spaced slices are taken."""
BACK_PROJECTIONS = 10
VOXELS_PER_STEP, ALWAYS_GOOD_STEPS = 300, 250
"""A network that starts from the general one takes at most one step for so many voxels of the slices, or so many if that is more. 1000
steps instead of 250 gained stacks of 280 000 voxels 0.3 dB and lost those of 50 000 up to 0.1 dB on the development set (on the validation
set, where this was noticed, up to 0.3 dB)."""
DRAFT_SEED = 1000
"""Added to the seed of the draft's patches, so that the network does not see the same ones again."""


def train_prior(
    slices: Slices,
    sampling: Sampling,
    config: PriorConfig,
    reporter: Reporter,
    device: str | torch.device = "cpu",
    state: dict[str, torch.Tensor] | None = None,
) -> TrainedPrior:
    """Train the network on the patient's own slices, or load weights into it; where these are too small, it stays the general one.

    :param slices: float32 (S, H, W) normalised.
    :param device: torch device of the network.
    :param state: weights of an earlier run on the same stack and settings.
    :raises InputError: if the slices are too small to learn from and there is no general network, or ``state`` belongs to another network.
    :raises Cancelled: when the caller cancels.
    """
    precision = Precision(torch.device(device), config.bf16)
    network = new_network(sampling, config, precision, config.context)
    if state is not None:
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise InputError("The stored prior belongs to other settings; start again without resuming.") from error
        return untrained(network, precision)
    if not trainable(slices.shape, sampling):
        if knows_anatomy(config, config.context):
            return untrained(network, precision)
        raise InputError("The slices are too small in-plane to learn from them what lies in between.")
    stacks = (slices[:, None], slices[:, None])
    if config.context:
        draft_config = replace(config, iterations=config.draft_iterations, seed=config.seed + DRAFT_SEED)
        draft = _trained(stacks, new_network(sampling, config, precision), sampling, draft_config, precision, reporter)
        if not knows_anatomy(config, config.context):
            network.start_from(draft.network)
        stacks = _among_neighbours(draft, slices, sampling, config.context, reporter)
    config = replace(config, iterations=affordable_iterations(slices.shape, sampling, config))
    return _trained(stacks, network, sampling, config, precision, reporter)


def affordable_iterations(shape: tuple[int, ...], sampling: Sampling, config: PriorConfig) -> int:
    """Training steps before a network that knows other anatomy learns a stack (S, H, W) by heart, or blurred or unlike rows too well."""
    if not knows_anatomy(config, config.context):
        return config.iterations
    if not trainable(shape, sampling):
        return 0
    steps = int((1 - sampling.wideness) * sharpness(sampling.stack_ratio) * math.prod(shape) / VOXELS_PER_STEP)
    return min(config.iterations, max(ALWAYS_GOOD_STEPS, steps))


def _trained(
    stacks: tuple[Slices, Slices], network: RowNetwork, sampling: Sampling, config: PriorConfig, precision: Precision, reporter: Reporter
) -> TrainedPrior:
    if config.iterations == 0:
        return untrained(network, precision)
    return train(row_planes(stacks, sampling, precision.device), network, config, precision, reporter)


def _among_neighbours(draft: TrainedPrior, slices: Slices, sampling: Sampling, context: int, reporter: Reporter) -> tuple[Slices, Slices]:
    """Slices among planes predicted by the draft, as far apart as the pixels of the axis whose rows are removed.

    Thick slices are replaced by what the draft says of their centre: the network is to learn sharp anatomy.
    """
    count = max(1, min(len(slices), LARGEST_TRAINING_SET // (slices[0].size * (2 * context + 1))))
    chosen = np.unique(np.linspace(0, len(slices) - 1, count).round().astype(np.int64))
    steps = np.arange(-context, context + 1)
    stacks = [neighbouring_planes(draft, slices, axis + 1, chosen, steps / sampling.gap_over_pixel[axis]) for axis in (0, 1)]
    middle = slices
    if sampling.averaged:
        middle = _sharpened(draft, slices, sampling, reporter)
    for stack in stacks:
        stack[:, context] = middle[chosen]
    return stacks[0], stacks[1]


def _sharpened(draft: TrainedPrior, slices: Slices, sampling: Sampling, reporter: Reporter) -> Slices:
    predicted = predict(draft, slices, reporter)
    operator = ProfileOperator(sampling.profile, len(slices), sampling.factor, predicted.margin)
    image = reconciled(predicted, draft, slices, operator)
    return image[predicted.margin :: sampling.factor][: len(slices)]


def reconciled(predicted: DensePrediction, trained: TrainedPrior, slices: Slices, operator: ProfileOperator) -> Slices:
    """A prediction made to reproduce the thick slices, margins included, unless the network does so by itself.

    :param operator: of the slices' profile on the grid of the prediction.
    """
    return predicted.image if trained.network.exact else operator.consistent(predicted.image, slices, BACK_PROJECTIONS)
