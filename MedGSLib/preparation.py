"""From a stack of slices to what the Gaussians are fitted to: intensities in a window, the output grid, in-between targets."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGSLib.config import ReconstructionConfig
from MedGSLib.errors import InputError
from MedGSLib.geometry import OutputGrid, default_scale, output_grid
from MedGSLib.memory import refuse_too_large
from MedGSLib.prior.image import ImagePrior, image_prior
from MedGSLib.prior.mask import mask_prior
from MedGSLib.prior.mask_distance import soft_occupancy
from MedGSLib.prior.profile import MOST_GAPS, SliceProfile
from MedGSLib.prior.thick import filled_as_annotated
from MedGSLib.prior.thickness_check import supported_profile, thickness_doubt
from MedGSLib.progress import Reporter
from MedGSLib.training.checkpoint import PRIOR_STAGE, CheckpointStore, cpu_copy
from MedGSLib.training.config import TrainingConfig
from MedGSLib.training.targets import TrainingTargets
from MedGSLib.volume import SliceStack, distinct_labels, header_thickness_mm

logger = logging.getLogger(__name__)

WINDOW_PERCENTILES = (0.5, 99.5)
SPARSE_MASK_SPREAD = 0.7
"""Initial sigma, in gaps between annotated slices, where masks are sparser than images (method study, section 4)."""
THIN_PROFILE = 1.05
"""A slice thinner than this many output slices is a point sample."""


@dataclass(frozen=True)
class Preparation:
    """Everything known before the first Gaussian.

    :ivar stack: the input, with only the parts that the mode uses.
    :ivar grid: output slices; ``step_mm`` is their distance and the unit of the Gaussians' stack coordinate.
    :ivar factor: subdivisions of each gap.
    :ivar window: image values that become 0 and 1, None without an image.
    :ivar slices: float32 (S, H, W), the acquired slices in the window, None without an image.
    :ivar targets: S acquired slices and (S-1)(factor-1) in-between ones.
    :ivar prior: dense normalised image at the targets' coordinates, None without an image.
    :ivar distances: float32 (L, T, H, W) signed distances in px at the targets' coordinates, None without a mask.
    :ivar training: the configuration with what depends on the data filled in.
    """

    stack: SliceStack
    grid: OutputGrid
    factor: int
    window: tuple[float, float] | None
    slices: NDArray[np.float32] | None
    profile: SliceProfile
    targets: TrainingTargets
    prior: ImagePrior | None
    distances: NDArray[np.float32] | None
    training: TrainingConfig
    report: dict[str, Any]

    @property
    def step_mm(self) -> float:
        """Distance of output slices."""
        return self.grid.spacing_mm


def prepare(
    stack: SliceStack,
    config: ReconstructionConfig,
    reporter: Reporter,
    checkpoints: CheckpointStore | None = None,
    window: tuple[float, float] | None = None,
    device: str = "cpu",
) -> Preparation:
    """Choose window and output grid, and predict the image and the masks between the acquired slices.

    :param window: image values that become 0 and 1; None takes percentiles of the image.
    :param device: torch device of the prior's network.
    :raises InputError: if the stack lacks what the mode needs.
    :raises ResourceError: if the result cannot fit into memory.
    """
    stack = _parts_for_mode(stack, config.mode)
    factor, grid = choose_grid(stack, config)
    refuse_too_large(len(grid) * stack.shape[1] * stack.shape[2], stack.image is not None, len(stack.labels))
    if stack.image is None:
        window = None
    elif window is None:
        window = intensity_window(stack.image)
    profile = slice_profile(stack, config, factor)
    fractional = np.arange((stack.shape[0] - 1) * factor + 1) / factor
    positions_mm = np.interp(fractional, np.arange(stack.shape[0]), stack.positions_mm)
    report: dict[str, Any] = {"factor": factor, "profile": {"kind": profile.kind, "width_in_gaps": profile.width}}
    prior, slices = None, None
    if stack.image is not None and window is not None:
        slices = (stack.image - np.float32(window[0])) / np.float32(window[1] - window[0])
        profile = _believed_profile(stack, slices, profile, config, report, reporter)
        prior = _image_prior(stack, slices, factor, profile, config, reporter, checkpoints, device)
        report["image_prior"] = prior.report
    distances = None
    if stack.occupancy is not None:
        distances, report["mask_prior"] = _mask_distances(stack, factor, reporter)
        _fill_slabs(distances, stack, profile if prior is not None else None, config, factor, report["mask_prior"])
    training = _fitted_to_data(stack, factor, config.training)
    targets = _targets(stack, factor, positions_mm / grid.spacing_mm, prior, distances, profile, training)
    return Preparation(stack, grid, factor, window, slices, profile, targets, prior, distances, training, report)


def intensity_window(image: NDArray[np.float32]) -> tuple[float, float]:
    """Image values that become 0 and 1; values beyond keep their linear scale.

    :raises InputError: if all voxels have the same value.
    """
    low, high = (float(value) for value in np.percentile(image, WINDOW_PERCENTILES))
    if high <= low:
        low, high = float(image.min()), float(image.max())
    if high <= low:
        raise InputError(f"The image has the same value ({low:g}) everywhere, so there is nothing to reconstruct.")
    return low, high


def choose_grid(stack: SliceStack, config: ReconstructionConfig) -> tuple[int, OutputGrid]:
    """Subdivisions of a gap, and the grid of output slices, for the wanted scale or spacing."""
    scale, spacing_mm = config.scale, config.spacing_mm
    if scale is None and spacing_mm is None:
        scale = default_scale(stack.gap_mm, min(stack.pixel_mm))
    grid = output_grid(stack.positions_mm, scale, spacing_mm)
    return max(1, round(stack.gap_mm / grid.spacing_mm)), grid


def slice_profile(stack: SliceStack, config: ReconstructionConfig, factor: int) -> SliceProfile:
    """How the image of an acquired slice averages along the stack; a stack without an image has no averages."""
    return SliceProfile() if stack.image is None else thickness_profile(stack, config, factor)


def thickness_profile(stack: SliceStack, config: ReconstructionConfig, factor: int) -> SliceProfile:
    """How an acquired slice averages along the stack: over its known thickness, else not at all.

    :raises InputError: if a profile is asked for by name and the thickness is unknown.
    """
    thickness = stack.slice_thickness_mm
    if config.slice_profile == "point" or factor == 1:
        return SliceProfile()
    if thickness is None:
        if config.slice_profile != "auto":
            raise InputError(f"A {config.slice_profile} slice profile needs the slice thickness; give it with --slice-thickness.")
        return SliceProfile()
    width = thickness / stack.gap_mm
    if width * factor < THIN_PROFILE or header_too_thick(stack, config):
        return SliceProfile()
    return SliceProfile("box" if config.slice_profile == "auto" else config.slice_profile, width)


def header_too_thick(stack: SliceStack, config: ReconstructionConfig) -> bool:
    """Whether the header's slice thickness is more than a profile covers; one that the user gave is refused instead."""
    thickness = stack.slice_thickness_mm
    if config.slice_profile != "auto" or thickness is None or thickness / stack.gap_mm <= MOST_GAPS:
        return False
    return header_thickness_mm(stack.meta, stack.axis) == thickness


def _believed_profile(
    stack: SliceStack,
    slices: NDArray[np.float32],
    profile: SliceProfile,
    config: ReconstructionConfig,
    report: dict[str, Any],
    reporter: Reporter,
) -> SliceProfile:
    """The assumed profile, or a narrower one where the slices contradict it and it was not asked for by name.

    Assuming too thick a slice does damage, too thin a one little (method study, section 9). What was found goes into ``report``.
    """
    if report["factor"] > 1 and header_too_thick(stack, config):
        width = float(stack.slice_thickness_mm or 0.0) / stack.gap_mm
        reason = f"The slice thickness in the header is {width:.3g} slice gaps, more than the {MOST_GAPS} that can be reckoned with."
        found: dict[str, Any] = {"doubtful": True, "reason": reason, "width_in_gaps": width}
    elif profile.kind == "point":
        return profile
    else:
        found = thickness_doubt(slices, stack.coordinates, gap_over_pixel(stack), profile)
        if found["doubtful"] and config.slice_profile == "auto":
            profile = supported_profile(slices, stack.coordinates, gap_over_pixel(stack), profile)
    report["profile"] |= found | {"used_width_in_gaps": profile.width}
    if found["doubtful"]:
        reporter.message(f"{found['reason']} {thickness_decision(report['profile'])}", level="warning")
    return profile


def thickness_decision(profile: dict[str, Any]) -> str:
    """What was done about a doubtful slice thickness, as a sentence; ``profile`` is that of the report."""
    if profile["used_width_in_gaps"] == profile["width_in_gaps"]:
        return "It is used because it was asked for."
    if profile["used_width_in_gaps"] == 0:
        return "The reconstruction takes the slices as thin; give the true thickness with --slice-thickness."
    return f"The reconstruction takes {100 * profile['used_width_in_gaps'] / profile['width_in_gaps']:.0f} % of it."


def _parts_for_mode(stack: SliceStack, mode: str) -> SliceStack:
    if mode != "mask" and stack.image is None:
        raise InputError(f"The mode '{mode}' needs an image.")
    if mode != "image" and stack.occupancy is None:
        raise InputError(f"The mode '{mode}' needs a mask.")
    if stack.shape[0] < 2:
        raise InputError("The stack is a single slice, and at least 2 are needed to reconstruct between.")
    if mode != "mask" and stack.image is not None and not np.isfinite(stack.image).all():
        raise InputError("The image holds values that are not numbers, so it cannot be reconstructed.")
    if mode == "image":
        return replace(stack, occupancy=None, labels=(), annotated=np.ones(stack.shape[0], bool))
    stack = replace(stack, labels=distinct_labels(stack.labels))
    return replace(stack, image=None) if mode == "mask" else stack


def _image_prior(
    stack: SliceStack,
    slices: NDArray[np.float32],
    factor: int,
    profile: SliceProfile,
    config: ReconstructionConfig,
    reporter: Reporter,
    checkpoints: CheckpointStore | None,
    device: str,
) -> ImagePrior:
    """The prior, with its network taken from a checkpoint of the same run where there is one."""
    stored = None if checkpoints is None else checkpoints.load(PRIOR_STAGE)
    prior = image_prior(
        slices,
        factor,
        gap_over_pixel(stack),
        config.prior,
        profile,
        reporter,
        stack.coordinates,
        device,
        state=None if stored is None else stored.tensors,
    )
    if checkpoints is not None and stored is None and prior.state:
        checkpoints.save(PRIOR_STAGE, cpu_copy(prior.state), {})
    return prior


def _mask_distances(stack: SliceStack, factor: int, reporter: Reporter) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Signed distances (L, T, H, W) of every label at the targets' coordinates."""
    assert stack.occupancy is not None
    found = [
        mask_prior(
            occupancy,
            stack.annotated,
            factor,
            gap_over_pixel(stack),
            image=stack.image,
            coordinates=stack.coordinates,
            reporter=reporter,
        )
        for occupancy in stack.occupancy
    ]
    report = {label.name: one.report for label, one in zip(stack.labels, found, strict=True)}
    return np.stack([one.signed_distance for one in found]), report


def _fill_slabs(
    distances: NDArray[np.float32],
    stack: SliceStack,
    profile: SliceProfile | None,
    config: ReconstructionConfig,
    factor: int,
    report: dict[str, dict[str, Any]],
) -> None:
    """Make the distances (L, T, H, W) of partial-volume masks fill the slabs of thick slices, in place, and say in ``report`` for which.

    A binary mask stays a sample of the centre plane: where a slab is filled from one side only, more than half of it is filled exactly
    where its centre is, so that its average says nothing more.

    :param profile: of the image that the mask was drawn on, None without one.
    """
    assert stack.occupancy is not None
    for number, label in enumerate(stack.labels):
        shares = stack.occupancy[number]
        seen = shares[stack.annotated]
        averaged = bool(((seen > 0.0) & (seen < 1.0)).any())
        if averaged:
            profile = profile or thickness_profile(stack, config, factor)
            averaged = profile.kind != "point"
        if averaged and profile is not None:
            distances[number] = filled_as_annotated(distances[number], shares, stack.annotated, profile, factor)
        report[label.name]["read_as"] = "average over the slice thickness" if averaged else "sample of the centre plane"


def gap_over_pixel(stack: SliceStack) -> tuple[float, float]:
    """Median slice gap over pixel size, along (row, column)."""
    row_mm, column_mm = stack.pixel_mm
    return stack.gap_mm / row_mm, stack.gap_mm / column_mm


def _targets(
    stack: SliceStack,
    factor: int,
    coordinates: NDArray[np.float64],
    prior: ImagePrior | None,
    distances: NDArray[np.float32] | None,
    profile: SliceProfile,
    training: TrainingConfig,
) -> TrainingTargets:
    acquired = np.zeros(len(coordinates), dtype=bool)
    acquired[::factor] = True
    annotated = np.zeros_like(acquired)
    annotated[::factor] = stack.annotated
    channels, weights = [], []
    if prior is not None:
        between = 1.0 if profile.kind != "point" else training.pseudo_image_weight
        channels.append(prior.image)
        weights.append(np.where(acquired, 1.0, between))
    if distances is not None:
        for distance in distances:
            channels.append(soft_occupancy(distance))
            weights.append(np.where(annotated, 1.0, training.pseudo_mask_weight))
    values = np.stack(channels, axis=1).astype(np.float32)
    return TrainingTargets(coordinates, values, np.stack(weights, axis=1).astype(np.float32), acquired, prior is not None)


def _fitted_to_data(stack: SliceStack, factor: int, training: TrainingConfig) -> TrainingConfig:
    """The recipe for masks that are sparser than the images, where the images are not interpolated themselves."""
    if stack.image is None or factor > 1 or stack.annotated.all() or training.initialization == "random":
        return training
    gap = float(np.median(np.diff(np.flatnonzero(stack.annotated)))) if stack.annotated.sum() > 1 else 1.0
    return replace(
        training,
        iterations=min(training.iterations, 200),
        voxels_per_gaussian=50.0,
        max_gaussians=20_000,
        spread=SPARSE_MASK_SPREAD * gap,
        size_factor=1.0,
        pseudo_mask_weight=0.15,
    )
