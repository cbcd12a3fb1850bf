"""Blend of the network's prediction with motion compensation, and how much of each this patient should get."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from MedGSLib.metrics import best_share
from MedGSLib.prior.flow import FlowMethod, SlicePair
from MedGSLib.prior.general_network import CONTEXT
from MedGSLib.prior.image_apply import DensePrediction, predict
from MedGSLib.prior.image_config import DEFAULT_FLOW_SHARE, PriorConfig, Sampling
from MedGSLib.prior.image_training import TrainedPrior, new_network, untrained
from MedGSLib.prior.network import Precision
from MedGSLib.progress import Reporter

Slices = NDArray[np.float32]

AFFORDABLE_STACK = 400_000
"""Voxels up to which TV-L1 is averaged with DIS, which alone is not behind it and ten times quicker, and the network sees turned slices."""
GENERAL_SHARE = 0.5
"""Of the general network in the prediction for a small stack, or for slices far apart in pixels, chosen on the development set."""
ENOUGH_TO_LEARN_FROM, LITTLE_TO_LEARN_FROM = 200_000, 50_000
"""Voxels of the acquired slices between which the general network's share rises from none."""
FEWEST_LEFT_OUT = 3
"""With fewer left-out slices the fitted share means nothing."""
PRIOR_WEIGHT = 20.0
"""The default share counts like this many left-out slices; the fit alone failed on short stacks."""
SHARE_RANGE = (0.05, 0.6)
JUDGED_SIDE = 192
"""Pixels of the middle of each slice that decide the share."""


@dataclass(frozen=True)
class LeaveOneOut:
    """How the candidates do on every other acquired slice, predicted from its neighbours at twice the gap.

    :ivar flow_share: the share to use, already shrunk towards the default.
    :ivar report: mean squared errors and the unshrunk share.
    """

    flow_share: float
    report: dict[str, float]


def default_general_share(voxels: int, sampling: Sampling) -> float:
    """Part of the general network, by which a network is held back from learning by heart what is little or unlike what it predicts."""
    return GENERAL_SHARE * max(_scarcity(voxels), sampling.wideness)


def _scarcity(voxels: int) -> float:
    scarcity = np.log(ENOUGH_TO_LEARN_FROM / max(voxels, 1)) / np.log(ENOUGH_TO_LEARN_FROM / LITTLE_TO_LEARN_FROM)
    return float(np.clip(scarcity, 0, 1))


class BlendedMotion:
    """Motion between two slices by the methods that a stack of this size can afford, averaged.

    :param first: (H, W).
    :param second: (H, W).
    :param voxels: of all acquired slices.
    """

    def __init__(self, first: Slices, second: Slices, voxels: int) -> None:
        methods: tuple[FlowMethod, ...] = ("dis", "tvl1") if voxels <= AFFORDABLE_STACK else ("dis",)
        self._pairs = [SlicePair(first, second, method) for method in methods]

    def at(self, fraction: float) -> Slices:
        """The slice (H, W) at ``fraction`` of the way."""
        return np.mean([pair.at(fraction) for pair in self._pairs], axis=0, dtype=np.float32)


def general_prior(sampling: Sampling, precision: Precision) -> TrainedPrior:
    """The general network, untouched by any patient."""
    return untrained(new_network(sampling, PriorConfig(), precision, CONTEXT), precision)


def blend_with_general(
    predicted: DensePrediction, slices: Slices, sampling: Sampling, share: float, precision: Precision, reporter: Reporter
) -> None:
    """Mix in what the general network makes of this patient, in place; the spread becomes the disagreement of both.

    :param slices: (S, H, W) normalised.
    """
    second = predict(general_prior(sampling, precision), slices, reporter)
    _mix_in(second.image, share, predicted.image, predicted.spread)


def blend_with_flow(image: Slices, spread: Slices, slices: Slices, factor: int, flow_share: float, reporter: Reporter) -> None:
    """Mix motion compensation into the network's dense image, in place, gap by gap.

    :param image: (T, H, W) prediction of the network, exact on acquired slices; becomes the blend.
    :param spread: (T, H, W) standard deviation of the network's views; becomes the disagreement of views and flow.
    """
    reporter.start("prior", len(slices) - 1, "motion between the slices")
    for gap in range(len(slices) - 1):
        pair = BlendedMotion(slices[gap], slices[gap + 1], slices.size)
        for sub in range(1, factor):
            index = gap * factor + sub
            _mix_in(pair.at(sub / factor), flow_share, image[index], spread[index])
        reporter.step(gap + 1)


def _mix_in(other: Slices, share: float, image: Slices, spread: Slices) -> None:
    """Take ``share`` of another prediction into an image, and their difference into its spread, in place."""
    difference = other - image
    image += share * difference
    np.hypot(spread, difference, out=spread)


def leave_one_out(slices: Slices, sampling: Sampling, precision: Precision) -> LeaveOneOut | None:
    """Predict every other acquired slice from the rest with the general network and with flow, in the middle of large slices.

    :param sampling: of all slices.
    :return: None where the stack is too short for it.
    """
    voxels = slices.size
    rows, columns = (slice(max(0, (side - JUDGED_SIDE) // 2), (side + JUDGED_SIDE) // 2) for side in slices.shape[1:])
    slices = np.ascontiguousarray(slices[:, rows, columns])
    kept, left_out = slices[::2], slices[1 : len(slices) - 1 + len(slices) % 2 : 2]
    left_out = left_out[: len(kept) - 1]
    if len(left_out) < FEWEST_LEFT_OUT:
        return None
    halved = Sampling(2, (2 * sampling.gap_over_pixel[0], 2 * sampling.gap_over_pixel[1]))
    network = predict(general_prior(halved, precision), kept, Reporter()).image[1::2]
    flow = np.stack([BlendedMotion(first, second, voxels).at(0.5) for first, second in zip(kept[:-1], kept[1:], strict=True)])
    return _weigh(left_out, network, flow, 0.5 * (kept[:-1] + kept[1:]))


def _weigh(truth: Slices, network: Slices, flow: Slices, linear: Slices) -> LeaveOneOut:
    fitted = float(np.clip(best_share(flow, network, truth, undecided=DEFAULT_FLOW_SHARE), 0, 1))
    share = (len(truth) * fitted + PRIOR_WEIGHT * DEFAULT_FLOW_SHARE) / (len(truth) + PRIOR_WEIGHT)
    errors = {name: float(np.mean((values - truth) ** 2)) for name, values in (("network", network), ("flow", flow), ("linear", linear))}
    report = {f"left_out_mse_{name}": error for name, error in errors.items()}
    return LeaveOneOut(float(np.clip(share, *SHARE_RANGE)), {**report, "left_out_slices": len(truth), "fitted_flow_share": fitted})
