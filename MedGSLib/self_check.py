"""Each run measures itself: acquired slices are left out, reconstructed, and compared with what they really show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGSLib.baselines import images as image_baselines
from MedGSLib.baselines.masks import sdf_linear
from MedGSLib.config import PRESETS, Mode, ReconstructionConfig
from MedGSLib.metrics import best_share, dice, mean_psnr, mean_ssim
from MedGSLib.preparation import Preparation, header_too_thick, slice_profile
from MedGSLib.prior.mask_distance import signed_distance_2d, soft_occupancy
from MedGSLib.progress import Reporter
from MedGSLib.volume import SliceStack

MOST_SLICES = 17
FEWEST_SLICES = 5
LARGEST_SIDE_PX = 160
ALTERNATIVES = ("linear", "cubic", "sinc", "flow_dis")
CONTOUR_BAND_PX = 1.0
MASK_SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
SSIM_WINDOW_PX = 11
THICK_SCALE = 4
"""Subdivisions of the doubled gap at which slices as thick as their own gap are still told from point samples."""

Reconstruct = Callable[[SliceStack, ReconstructionConfig, Reporter], "LeftOutResult"]


@dataclass(frozen=True)
class LeftOutResult:
    """What a reconstruction shows on its output grid, for comparison with slices it did not see.

    :ivar image: normalised (T, H, W) or None; :ivar doubt: (T, H, W), how far Gaussians and prior disagree, or None.
    :ivar occupancy: (L, T, H, W) or None.
    """

    prepared: Preparation
    image: NDArray[np.float32] | None
    doubt: NDArray[np.float32] | None
    occupancy: NDArray[np.float32] | None


@dataclass(frozen=True)
class SelfCheck:
    """Errors on acquired slices that were left out, at twice the slice distance of the real run.

    :ivar left_out: number of slices that were left out.
    :ivar image: PSNR and SSIM of each method, empty without an image.
    :ivar masks: per label, Dice of each method, ``share_of_medgs`` in the blend with linear interpolation of the contours (1 where MedGS
        is best), and the 90 % quantile of the contour's distance from the true one in mm.
    :ivar alternative: the best alternative for the image, and ``share`` of MedGS in the blend with it (1 where MedGS is best).
    :ivar doubt_bins: doubt at the bins' upper ends; ``error_bins``: 90 % quantile of the absolute image error in each.
    """

    left_out: int
    image: dict[str, dict[str, float]] = field(default_factory=dict)
    masks: dict[str, dict[str, float]] = field(default_factory=dict)
    alternative: str = ""
    share: float = 1.0
    doubt_bins: tuple[float, ...] = ()
    error_bins: tuple[float, ...] = ()

    def mask_share(self, label: str) -> float:
        """Part of MedGS in the occupancy of a segment, 1 where it was not checked."""
        return self.masks.get(label, {}).get("share_of_medgs", 1.0)

    def as_dict(self) -> dict[str, Any]:
        """:return: the figures for the report."""
        return {
            "left_out_slices": self.left_out,
            "note": "measured at twice the slice distance of the result itself",
            "image": self.image,
            "masks": self.masks,
            "blended_with": self.alternative if self.share < 1.0 else None,
            "share_of_medgs": self.share,
        }


def self_check(stack: SliceStack, config: ReconstructionConfig, reconstruct: Reconstruct, reporter: Reporter) -> SelfCheck | None:
    """Leave every other slice (or annotation, where masks are sparser than the image) out of the middle of the stack.

    :return: None where the stack has too few slices to leave any out.
    """
    reporter.message("Checking the result on slices that are left out.")
    part = _middle(stack)
    if not part.annotated.all():
        return _check_annotations(part, config, reconstruct, reporter)
    if part.shape[0] < FEWEST_SLICES:
        return None
    kept = np.arange(0, part.shape[0], 2)
    left_out = np.arange(1, part.shape[0], 2)
    thick = slice_profile(part, config, THICK_SCALE).kind != "point"
    if header_too_thick(part, config):
        config = replace(config, slice_profile="point")
    result = reconstruct(part.select(kept), _quick(config, scale=THICK_SCALE if thick else 2), reporter)
    rows = _rows(result.prepared, part.positions_mm[left_out])
    check = SelfCheck(len(left_out))
    if result.image is not None and result.doubt is not None:
        check = _check_image(check, part, result, kept, left_out, rows)
    if result.occupancy is not None and part.occupancy is not None:
        check = replace(check, masks=_check_masks(part, result.occupancy[:, rows], kept, left_out))
    return check


def _quick(config: ReconstructionConfig, scale: int) -> ReconstructionConfig:
    """The recipe of the run at the cost of the fast preset."""
    fast = PRESETS["fast"]
    training = replace(
        config.training,
        iterations=min(config.training.iterations, fast.training.iterations),
        voxels_per_gaussian=max(config.training.voxels_per_gaussian, fast.training.voxels_per_gaussian),
    )
    prior = config.prior if config.prior.method != "learned" else replace(fast.prior, seed=config.seed)
    return replace(
        config, scale=scale, spacing_mm=None, self_check=False, training=training, prior=prior, refine_mask=None, start_model=None
    )


def checked_part(stack: SliceStack) -> tuple[slice, slice, slice]:
    """The slices, rows and columns that are checked: an odd number of slices, and a window of pixels, round the middle of the stack.

    Of a stack with sparse annotations all slices are taken.
    """
    slices, height, width = stack.shape
    first, count = 0, slices
    if stack.annotated.all():
        count = min(slices - (slices + 1) % 2, MOST_SLICES)
        first = (slices - count) // 2
    rows, columns = (_centered(size, LARGEST_SIDE_PX) for size in (height, width))
    return slice(first, first + count), rows, columns


def _middle(stack: SliceStack) -> SliceStack:
    """The part that is checked, which bounds what the check costs."""
    slices, rows, columns = checked_part(stack)
    if stack.annotated.all():
        stack = stack.select(np.arange(slices.start, slices.stop))
    return replace(
        stack,
        image=None if stack.image is None else np.ascontiguousarray(stack.image[:, rows, columns]),
        occupancy=None if stack.occupancy is None else np.ascontiguousarray(stack.occupancy[:, :, rows, columns]),
    )


def _centered(size: int, most: int) -> slice:
    start = max(0, (size - most) // 2)
    return slice(start, start + min(size, most))


def _rows(prepared: Preparation, positions_mm: NDArray[np.float64]) -> NDArray[np.int64]:
    """Output slices nearest to positions given from the first slice of the same stack."""
    return np.abs(prepared.grid.positions_mm[None, :] - positions_mm[:, None]).argmin(axis=1)


def _check_image(
    check: SelfCheck,
    part: SliceStack,
    result: LeftOutResult,
    kept: NDArray[np.int64],
    left_out: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> SelfCheck:
    assert part.image is not None and result.image is not None and result.doubt is not None
    low, high = result.prepared.window or (0.0, 1.0)
    slices = (part.image - low) / (high - low)
    truth = slices[left_out]
    guesses = {"medgs": _as_acquired(result.image, rows, result.prepared)}
    for name in ALTERNATIVES:
        guesses[name] = image_baselines.INTERPOLATORS[name](slices[kept], part.coordinates[kept], part.coordinates[left_out])
    table = {name: {"psnr_db": mean_psnr(guess, truth), "ssim": _ssim(guess, truth)} for name, guess in guesses.items()}
    best = max(ALTERNATIVES, key=lambda name: table[name]["psnr_db"])
    share = 1.0
    if table[best]["psnr_db"] > table["medgs"]["psnr_db"]:
        share = float(np.clip(best_share(guesses["medgs"], guesses[best], truth, undecided=1.0), 0.0, 1.0))
    bins = _error_bins(result.doubt[rows], np.abs(guesses["medgs"] - truth))
    return replace(check, image=table, alternative=best, share=share, doubt_bins=bins[0], error_bins=bins[1])


def _as_acquired(image: NDArray[np.float32], rows: NDArray[np.int64], prepared: Preparation) -> NDArray[np.float32]:
    """What slices of the acquired thickness would show at ``rows`` of the dense image (T, H, W)."""
    offsets, weights = prepared.profile.weights(prepared.factor)
    seen = np.clip(rows[:, None] + offsets, 0, len(image) - 1)
    return np.tensordot(image[seen], weights, axes=(1, 0)).astype(np.float32)


def _ssim(guess: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Mean SSIM of the slices; NaN for slices that are smaller than its window."""
    return mean_ssim(guess, truth) if min(truth.shape[1:]) >= SSIM_WINDOW_PX else float("nan")


def _error_bins(doubt: NDArray[np.float32], error: NDArray[np.float32], count: int = 12) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The 90 % quantile of the error in ``count`` equally filled bins of the doubt, made non-decreasing."""
    order = np.argsort(doubt, axis=None)
    parts = np.array_split(order, count)
    flat_doubt, flat_error = doubt.ravel(), error.ravel()
    ends = tuple(float(np.median(flat_doubt[part])) for part in parts)
    quantiles = np.maximum.accumulate([float(np.quantile(flat_error[part], 0.9)) for part in parts])
    return ends, tuple(float(value) for value in quantiles)


def _check_masks(
    part: SliceStack, occupancy: NDArray[np.float32], kept: NDArray[np.int64], left_out: NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    """:param occupancy: (L, left-out slices, H, W)."""
    assert part.occupancy is not None
    figures = {}
    for number, label in enumerate(part.labels):
        truth = part.occupancy[number, left_out] >= 0.5
        distance = sdf_linear(part.occupancy[number, kept] >= 0.5, part.coordinates[kept], part.coordinates[left_out], part.pixel_mm)
        figures[label.name] = {
            "dice_medgs": dice(occupancy[number] > 0.5, truth),
            "dice_sdf_linear": dice(distance > 0, truth),
            "share_of_medgs": _best_mask_share(occupancy[number], soft_occupancy(distance), truth),
            "contour_error_q90_mm": _contour_error(occupancy[number], truth, part.pixel_mm),
        }
    return figures


def _best_mask_share(own: NDArray[np.float32], other: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """The share of ``own`` in the blend of occupancies of highest Dice, of equal ones the largest; 1 unless ``other`` alone is better."""
    if dice(other > 0.5, truth) <= dice(own > 0.5, truth):
        return 1.0
    return max(MASK_SHARES, key=lambda share: dice(share * own + (1.0 - share) * other > 0.5, truth))


def _contour_error(occupancy: NDArray[np.float32], truth: NDArray[np.bool_], pixel_mm: tuple[float, float]) -> float:
    """The 90 % quantile of the distance in mm between found and true contours, slice by slice, where both exist."""
    distances = []
    for found, true in zip(occupancy, truth, strict=True):
        if true.any() and (found > 0.5).any():
            found_px = signed_distance_2d(found, pixel_mm)
            true_px = signed_distance_2d(true, pixel_mm)
            distances.append(np.abs(true_px[np.abs(found_px) < CONTOUR_BAND_PX] - found_px[np.abs(found_px) < CONTOUR_BAND_PX]))
            distances.append(np.abs(true_px[np.abs(true_px) < CONTOUR_BAND_PX] - found_px[np.abs(true_px) < CONTOUR_BAND_PX]))
    return float(np.quantile(np.concatenate(distances), 0.9)) * pixel_mm[1] if distances else float("nan")


def _check_annotations(stack: SliceStack, config: ReconstructionConfig, reconstruct: Reconstruct, reporter: Reporter) -> SelfCheck | None:
    """Every other annotation is set aside; the image stays as it is."""
    annotated = np.flatnonzero(stack.annotated)
    if len(annotated) < FEWEST_SLICES or stack.occupancy is None:
        return None
    left_out = annotated[1:-1:2]
    kept = np.setdiff1d(annotated, left_out)
    mode: Mode = "mask" if stack.image is None else "joint"
    believed = np.zeros_like(stack.annotated)
    believed[kept] = True
    result = reconstruct(replace(stack, annotated=believed), _quick(replace(config, mode=mode), scale=1), reporter)
    assert result.occupancy is not None
    rows = _rows(result.prepared, stack.positions_mm[left_out])
    return SelfCheck(len(left_out), masks=_check_masks(stack, result.occupancy[:, rows], kept, left_out))
