"""Whether the assumed slice profile fits the slices: thick slices differ as blurred rows do, and overlapping ones share their noise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGSLib.geometry import is_evenly_spaced
from MedGSLib.prior.profile import SliceProfile

ABRUPTNESS_LIMIT = 0.22
"""Boxes of the true width showed an excess of up to 0.15 on the development cases and 0.19 on the phantom, boxes told 1.5 times as wide as
they were 0.22 to 0.45. With six slices a true width can exceed the limit."""
USUAL_ABRUPTNESS = 0.12
"""Excess of boxes of the true width, about the mean of the development cases and the phantom."""
LEAST_CORRELATION_SHARE = 0.5
"""Details of neighbouring slices that correlate less than this part of what the overlap of the assumed profile would cause speak against
it: averages of 1.5 gaps had 0.75 of it or more on the development and validation cases, averages of one gap 0.45 or less at n = 3 and 4
(but for lung_ct, whose thin slices overlap themselves)."""
LEAST_OVERLAP = 0.1
"""Overlaps that would cause less correlation than this are not looked for."""
CORRELATION_ERROR = 0.02
DETAIL_LIMIT = 4.0
"""In standard deviations of the noise; larger details are anatomy."""
FEWEST_DETAILS = 1000
FINE_STEPS = 21
"""Parts of a gap, to tell how much two profiles overlap; odd, so that a box as wide as a gap ends between two of them."""
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
    :return: ``doubtful`` (None where it cannot be tested), ``reason`` (a sentence), ``abruptness_excess`` and ``detail_correlation``, for
        the report.
    """
    excess, correlation = abruptness_excess(slices, coordinates, gap_over_pixel, profile), detail_correlation(slices)
    figures = {"abruptness_excess": excess, "detail_correlation": correlation}
    if excess is None:
        reason = "The slices are too few, too close or too uneven to test whether the assumed slice thickness is right."
        return {"doubtful": None, "reason": reason} | figures
    promised = overlap_correlation(profile)
    lacks_overlap = correlation is not None and promised >= LEAST_OVERLAP and correlation < LEAST_CORRELATION_SHARE * promised
    doubtful = excess > ABRUPTNESS_LIMIT or (lacks_overlap and excess > USUAL_ABRUPTNESS)
    if doubtful:
        reason = "The slices change more abruptly than slices of the assumed thickness would, so the true thickness is probably less."
    else:
        reason = "The change from slice to slice is what slices of the assumed thickness would show."
    return {"doubtful": doubtful, "reason": reason} | figures


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
    correlation = detail_correlation(slices)
    most_shared = math.inf if correlation is None else max(correlation, 0.0) + CORRELATION_ERROR
    for candidate in narrower:
        if overlap_correlation(candidate) > most_shared:
            continue
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
    if len(slices) < FEWEST_SLICES or not is_evenly_spaced(coordinates):
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


def overlap_correlation(profile: SliceProfile) -> float:
    """Correlation of independent noise along the stack in two neighbouring slices that average it over the profile; 0 without overlap."""
    offsets, weights = profile.weights(FINE_STEPS)
    if offsets[-1] - offsets[0] < FINE_STEPS:
        return 0.0
    return float(np.dot(weights[FINE_STEPS:], weights[:-FINE_STEPS]) / np.dot(weights, weights))


def detail_correlation(slices: NDArray[np.float32]) -> float | None:
    """Correlation of the finest details, mostly noise, of neighbouring slices (S, H, W); None where there are too few of them."""
    detail = _diagonal_detail(np.clip(slices, 0.0, 1.0))
    lower, upper, limit = detail[:-1], detail[1:], DETAIL_LIMIT * _deviation(detail)
    told = (lower != 0) & (upper != 0) & (np.abs(lower) < limit) & (np.abs(upper) < limit)
    return float(np.corrcoef(lower[told], upper[told])[0, 1]) if np.count_nonzero(told) >= FEWEST_DETAILS else None


def noise_variance(slices: NDArray[np.float32]) -> float:
    """Variance of white noise in slices (S, H, W) from the median absolute diagonal detail of the Haar wavelet (Donoho and Johnstone 1994).

    Constant areas are left out.
    """
    return _deviation(_diagonal_detail(slices)) ** 2


def _diagonal_detail(slices: NDArray[np.float32]) -> NDArray[np.float32]:
    """(S, H // 2, W // 2)."""
    even = slices[:, : slices.shape[1] // 2 * 2, : slices.shape[2] // 2 * 2]
    upper, lower = even[:, ::2], even[:, 1::2]
    return 0.5 * (upper[:, :, ::2] - upper[:, :, 1::2] - lower[:, :, ::2] + lower[:, :, 1::2])


def _deviation(detail: NDArray[np.float32]) -> float:
    told = np.abs(detail[detail != 0])
    return float(np.median(told) / 0.6745) if told.size else 0.0
