"""Whether the assumed slice profile fits the slices: thick slices differ from each other as blurred rows within a slice do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGSLib.geometry import UNIFORM_TOLERANCE
from MedGSLib.prior.profile import SliceProfile

ABRUPTNESS_LIMIT = 0.22
"""Boxes of the true width showed an excess of up to 0.15 on the development cases and 0.19 on the phantom, boxes told 1.5 times as wide as
they were 0.22 to 0.45. With six slices a true width can exceed the limit."""
USUAL_ABRUPTNESS = 0.12
"""Excess of boxes of the true width, about the mean of the development cases and the phantom."""
WIDTH_SHARES = np.arange(19, 9, -1) / 20
"""Widths that are tried instead of a doubtful one; half of it does little harm where it was right after all."""
FIRST_NOISE, SECOND_NOISE = 2.0, 6.0
"""By how much differences multiply the variance of white noise."""
LEAST_SIGNAL = 0.1
"""Part of the change along the stack that is taken for signal at least."""
FEWEST_SLICES = 5
FEWEST_PIXELS_PER_GAP = 2
FEWEST_ROWS = 16


def thickness_doubt(
    slices: NDArray[np.float32],
    coordinates: NDArray[np.float64],
    gap_over_pixel: tuple[float, float],
    profile: SliceProfile,
) -> dict[str, Any]:
    """Test for a thickness that is assumed much too large; one that is too small is not noticed, and does little harm.

    :param slices: float32 (S, H, W), normalised acquired slices.
    :param coordinates: (S,) of the slices in gaps.
    :param gap_over_pixel: slice gap over pixel size along (row, column).
    :param profile: the assumed one, not ``point``.
    :return: ``doubtful`` (None where it cannot be tested), ``reason`` (a sentence) and ``abruptness_excess``, for the report.
    """
    excess = abruptness_excess(slices, coordinates, gap_over_pixel, profile)
    if excess is None:
        reason = "The slices are too few, too close or too uneven to test whether the assumed slice thickness is right."
        return {"doubtful": None, "reason": reason, "abruptness_excess": None}
    doubtful = excess > ABRUPTNESS_LIMIT
    if doubtful:
        reason = "The slices change more abruptly than slices of the assumed thickness would, so the true thickness is probably less."
    else:
        reason = "The change from slice to slice is what slices of the assumed thickness would show."
    return {"doubtful": doubtful, "reason": reason, "abruptness_excess": excess}


def supported_profile(
    slices: NDArray[np.float32],
    coordinates: NDArray[np.float64],
    gap_over_pixel: tuple[float, float],
    profile: SliceProfile,
) -> SliceProfile:
    """The widest narrower profile of the same kind that the slices agree with, half the width where they agree with none.

    Parameters as for :func:`thickness_doubt`, which found ``profile`` doubtful.
    """
    narrower = [replace(profile, width=float(share) * profile.width) for share in WIDTH_SHARES]
    for candidate in narrower:
        excess = abruptness_excess(slices, coordinates, gap_over_pixel, candidate)
        if excess is not None and excess <= USUAL_ABRUPTNESS:
            return candidate
    return narrower[-1]


def abruptness_excess(
    slices: NDArray[np.float32],
    coordinates: NDArray[np.float64],
    gap_over_pixel: tuple[float, float],
    profile: SliceProfile,
) -> float | None:
    """How much more abruptly the slices change along the stack than rows averaged over the profile do within the slices.

    Abruptness is the logarithm of the mean squared second difference over the mean squared first difference at the distance of a gap. It
    ignores, largely, how coarse the anatomy is along an axis. Rows are brought to the contrast of the stack and given its noise.

    :return: the excess, or None where it cannot be told.
    """
    gaps = np.diff(coordinates)
    if len(slices) < FEWEST_SLICES or np.abs(gaps - gaps.mean()).max() > UNIFORM_TOLERANCE * gaps.mean():
        return None
    slices = np.clip(slices, 0.0, 1.0)
    noise = noise_variance(slices)
    along = _differences(slices, 1)
    if min(along) <= 0:
        return None
    contrast = max(along[0] - FIRST_NOISE * noise, LEAST_SIGNAL * along[0])
    expected = []
    for axis in (1, 2):
        rows = _averaged_differences(np.moveaxis(slices, axis, 0), gap_over_pixel[axis - 1], profile, noise)
        if rows is not None:
            scale = contrast / rows[0]
            expected.append(np.log((scale * rows[1] + SECOND_NOISE * noise) / (contrast + FIRST_NOISE * noise)))
    return float(np.log(along[1] / along[0]) - np.mean(expected)) if expected else None


def _averaged_differences(
    rows: NDArray[np.float32], pixels_per_gap: float, profile: SliceProfile, noise: float
) -> tuple[float, float] | None:
    """Differences of rows (N, ...) averaged over the profile, a gap apart, less what noise contributes; None where rows are too few."""
    step = round(pixels_per_gap)
    if step < FEWEST_PIXELS_PER_GAP:
        return None
    offsets, weights = profile.weights(step)
    count = len(rows) - (len(offsets) - 1)
    if count < 2 * step + FEWEST_ROWS:
        return None
    averaged = sum(weight * rows[start : start + count] for start, weight in enumerate(weights.astype(np.float32)))
    first, second = _differences(np.asarray(averaged), step)
    left = noise * float((weights**2).sum())
    first, second = first - FIRST_NOISE * left, second - SECOND_NOISE * left
    return (first, second) if min(first, second) > 0 else None


def _differences(rows: NDArray[np.float32], step: int) -> tuple[float, float]:
    """Mean squared first and second difference."""
    first = np.mean((rows[step:] - rows[:-step]) ** 2)
    second = np.mean((rows[2 * step :] - 2.0 * rows[step:-step] + rows[: -2 * step]) ** 2)
    return float(first), float(second)


def noise_variance(slices: NDArray[np.float32]) -> float:
    """Variance of white noise in slices (S, H, W) from the median absolute diagonal detail of the Haar wavelet (Donoho and Johnstone 1994).

    Constant areas are left out.
    """
    even = slices[:, : slices.shape[1] // 2 * 2, : slices.shape[2] // 2 * 2]
    upper, lower = even[:, ::2], even[:, 1::2]
    detail = 0.5 * np.abs(upper[:, :, ::2] - upper[:, :, 1::2] - lower[:, :, ::2] + lower[:, :, 1::2])
    detail = detail[detail > 0]
    return float(np.median(detail) / 0.6745) ** 2 if detail.size else 0.0
