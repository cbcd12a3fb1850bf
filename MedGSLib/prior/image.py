"""The image prior: what the slices between the acquired ones look like, judged by this patient's own slices."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from MedGSLib.baselines.images import linear
from MedGSLib.errors import InputError
from MedGSLib.prior.flow import SMALLEST_SIDE, flow_interpolate
from MedGSLib.prior.image_apply import DensePrediction, predict
from MedGSLib.prior.image_blend import (
    AFFORDABLE_STACK,
    blend_with_flow,
    blend_with_general,
    default_general_share,
    leave_one_out,
)
from MedGSLib.prior.image_coarse import coarse_share, coarse_steps, coarsened, mix_in_coarse
from MedGSLib.prior.image_config import DEFAULT_FLOW_SHARE, PRIOR_PRESETS, PriorConfig, PriorMethod, Sampling
from MedGSLib.prior.image_learning import BACK_PROJECTIONS, affordable_iterations, reconciled, train_prior
from MedGSLib.prior.image_training import TrainedPrior, knows_anatomy, trainable
from MedGSLib.prior.network import Precision
from MedGSLib.prior.profile import SliceProfile
from MedGSLib.prior.smoothness import sharpness, structure_ratio
from MedGSLib.prior.thick import ProfileOperator, back_project
from MedGSLib.progress import Reporter

__all__ = ["PRIOR_PRESETS", "ImagePrior", "PriorConfig", "Sampling", "image_prior", "train_prior"]

logger = logging.getLogger(__name__)

Slices = NDArray[np.float32]
COARSE = "coarse."
"""Before the names of the weights of the network of coarse pixels."""
IRREGULAR_GAP = 1.5
"""A gap larger than this many median gaps is reported: the network was trained for the median."""


@dataclass(frozen=True)
class ImagePrior:
    """Dense image between and on the acquired slices.

    :ivar image: float32 (T, H, W), T = (S - 1) * factor + 1, normalised like the slices; each gap is divided into ``factor``. Equal to
        the acquired slices where they are point samples, else consistent with them under their profile.
    :ivar disagreement: float32 (T, H, W), how far the views of the network and the other interpolator differ; 0 on acquired points.
    :ivar report: what was done and why.
    :ivar state: weights of the network for a checkpoint, empty where none was trained.
    """

    image: Slices
    disagreement: Slices
    report: dict[str, Any]
    state: dict[str, torch.Tensor] = field(default_factory=dict)


def image_prior(
    slices: Slices,
    factor: int,
    gap_over_pixel: tuple[float, float],
    config: PriorConfig | None = None,
    profile: SliceProfile | None = None,
    reporter: Reporter | None = None,
    coordinates: NDArray[np.float64] | None = None,
    device: str | torch.device = "cpu",
    state: dict[str, torch.Tensor] | None = None,
) -> ImagePrior:
    """Predict the slices between the acquired ones.

    :param slices: float32 (S, H, W), normalised intensities, finite.
    :param factor: sub-slices per gap; 1 returns the slices.
    :param gap_over_pixel: median slice gap over pixel size along (row axis, column axis).
    :param config: default: ``PRIOR_PRESETS["standard"]``.
    :param profile: default: point samples.
    :param coordinates: (S,) in median gaps, where the stack is irregular.
    :param device: torch device of the network.
    :param state: weights of an earlier run of the same stack and configuration; training is then skipped.
    :raises InputError: fewer than one slice or a factor below 1.
    :raises Cancelled: when the caller cancels.
    """
    config, profile, reporter = config or PriorConfig(), profile or SliceProfile(), reporter or Reporter()
    slices = np.ascontiguousarray(slices, np.float32)
    if slices.ndim != 3 or len(slices) < 1 or factor < 1:
        raise InputError("The slices in between can only be predicted for a stack of images and a factor of 1 or more.")
    sampling = Sampling(factor, gap_over_pixel, profile, structure_ratio(slices) if profile.kind == "point" else None)
    report = _opening_report(config, sampling, coordinates) | {"iterations": affordable_iterations(slices.shape, sampling, config)}
    if factor == 1 or len(slices) == 1:
        report["method"], report["reason"] = "none", "there is nothing between the slices"
        return ImagePrior(slices.copy(), np.zeros_like(slices), report)
    method, reason = _feasible_method(slices, sampling, config)
    report.update(method=method, reason=reason)
    if method != "learned":
        return _without_network(slices, sampling, method, report)
    own, coarse_state = _divided(state)
    trained = train_prior(slices, sampling, config, reporter, device, own)
    prior = _applied(trained, slices, sampling, config, reporter, report)
    steps = coarse_steps(gap_over_pixel, slices.shape)
    if steps is None:
        return prior
    coarse_gap = (gap_over_pixel[0] / steps[0], gap_over_pixel[1] / steps[1])
    coarse = image_prior(coarsened(slices, steps), factor, coarse_gap, config, profile, reporter, coordinates, device, coarse_state)
    return _with_large_structures(prior, coarse, steps, coarse_share(gap_over_pixel))


def _divided(state: dict[str, torch.Tensor] | None) -> tuple[dict[str, torch.Tensor] | None, dict[str, torch.Tensor] | None]:
    """The stored weights of the network of the given pixels, and of that of coarse ones."""
    if state is None:
        return None, None
    coarse = {name.removeprefix(COARSE): value for name, value in state.items() if name.startswith(COARSE)}
    return {name: value for name, value in state.items() if not name.startswith(COARSE)}, coarse or None


def _with_large_structures(prior: ImagePrior, coarse: ImagePrior, steps: tuple[float, float], share: float) -> ImagePrior:
    """Of slices far apart in pixels, the large structures as predicted on coarse pixels."""
    mix_in_coarse(prior.image, prior.disagreement, coarse.image, steps, share)
    state = prior.state | {COARSE + name: value for name, value in coarse.state.items()}
    return ImagePrior(prior.image, prior.disagreement, prior.report | {"coarse": coarse.report | {"steps": steps, "share": share}}, state)


def _applied(
    trained: TrainedPrior,
    slices: Slices,
    sampling: Sampling,
    config: PriorConfig,
    reporter: Reporter,
    report: dict[str, Any],
) -> ImagePrior:
    """Dense image from a trained network; ``report`` is what is already known of the run."""
    report = dict(report, final_loss=trained.loss, bf16=trained.precision.reduced)
    predicted = predict(trained, slices, reporter, turned=slices.size <= AFFORDABLE_STACK)
    given = config.general_share
    report["general_share"] = default_general_share(slices.size, sampling) if given is None else given
    if report["general_share"] > 0:
        blend_with_general(predicted, slices, sampling, report["general_share"], trained.precision, reporter)
    if sampling.averaged:
        return _consistent(predicted, trained, slices, sampling, report)
    share = _flow_share(slices, sampling, config, trained.precision, report)
    if share > 0:
        blend_with_flow(predicted.image, predicted.spread, slices, sampling.factor, share, reporter)
    return ImagePrior(predicted.image, predicted.spread, dict(report, flow_share=share), trained.state)


def _flow_share(slices: Slices, sampling: Sampling, config: PriorConfig, precision: Precision, report: dict[str, Any]) -> float:
    certainty = sharpness(sampling.stack_ratio)
    if config.flow_share is not None:
        return config.flow_share * certainty
    judged = leave_one_out(slices, sampling, precision) if certainty > 0 else None
    if judged is None:
        return DEFAULT_FLOW_SHARE * certainty
    report.update(judged.report)
    return judged.flow_share * certainty


def _consistent(
    predicted: DensePrediction, trained: TrainedPrior, slices: Slices, sampling: Sampling, report: dict[str, Any]
) -> ImagePrior:
    """The network's volume made to reproduce the thick slices; compared with spline interpolation instead of flow, which loses there."""
    operator = ProfileOperator(sampling.profile, len(slices), sampling.factor, predicted.margin)
    image = reconciled(predicted, trained, slices, operator)
    spline = operator.consistent(operator.spread(slices), slices, BACK_PROJECTIONS)
    disagreement = np.hypot(predicted.spread, image - spline)
    inside = slice(predicted.margin, len(image) - predicted.margin)
    report["consistency_rms"] = float(np.sqrt(np.mean((operator.average(image) - slices) ** 2)))
    return ImagePrior(image[inside].copy(), disagreement[inside].copy(), report, trained.state)


def _without_network(slices: Slices, sampling: Sampling, method: PriorMethod, report: dict[str, Any]) -> ImagePrior:
    index = np.arange(len(slices), dtype=np.float64)
    wanted = np.arange((len(slices) - 1) * sampling.factor + 1) / sampling.factor
    blend = linear(slices, index, wanted)
    image = flow_interpolate(slices, index, wanted) if method == "flow" else blend
    if sampling.averaged and method != "none":
        image = back_project(image, slices, sampling.profile, sampling.factor, BACK_PROJECTIONS)
    return ImagePrior(image, np.abs(image - blend), report)


def _opening_report(config: PriorConfig, sampling: Sampling, coordinates: NDArray[np.float64] | None) -> dict[str, Any]:
    report: dict[str, Any] = {
        "wanted_method": config.method,
        "factor": sampling.factor,
        "stack_smoothness": sampling.stack_ratio,
        "profile": {"kind": sampling.profile.kind, "width": sampling.profile.width},
        "channels": config.channels,
        "depth": config.depth,
        "starts_from": "synthetic anatomy" if knows_anatomy(config, config.context) else "random weights",
        "seed": config.seed,
    }
    if coordinates is not None and len(coordinates) > 2:
        gaps = np.diff(coordinates)
        report["wide_gaps"] = int(np.sum(gaps > IRREGULAR_GAP * np.median(gaps)))
    return report


def _feasible_method(slices: Slices, sampling: Sampling, config: PriorConfig) -> tuple[PriorMethod, str]:
    """The configured method, or the best one that this stack allows, and why."""
    if config.method in ("none", "linear"):
        return config.method, "as configured"
    if np.ptp(slices) == 0:
        return "linear", "all pixels have the same value"
    if config.method == "learned":
        if trainable(slices.shape, sampling):
            return "learned", "as configured"
        reason = "the slices are too small in-plane to learn from"
        if knows_anatomy(config, config.context):
            return "learned", f"{reason}, so the general network is used as it is"
    else:
        reason = "as configured"
    if min(slices.shape[1:]) >= SMALLEST_SIDE:
        return "flow", reason
    return "linear", reason if config.method == "learned" else "the slices are too small to estimate motion"
