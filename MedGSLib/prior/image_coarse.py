"""Slices far apart in pixels: their large structures are predicted on coarser pixels, where the gap is as narrow as networks know it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from MedGSLib.prior.pixel_steps import Steps, resampled, stepped_shape

Slices = NDArray[np.float32]

COARSE_GAP_PX = 8.0
"""Gap in coarse pixels."""
WIDE_GAP_PX = 10.0
"""Gaps up to this many pixels are left to the network alone."""
FULL_SHARE_GAP_PX = 24.0
"""From here on the large structures are those of the coarse pixels alone; between 8 px and this their share rises (development set)."""
BLUR = 0.42
"""Standard deviation of the Gaussian before sampling, in coarse pixels."""
FEWEST_COARSE_PIXELS = 24


def coarse_steps(gap_over_pixel: tuple[float, float], shape: tuple[int, ...]) -> Steps | None:
    """Side of a coarse pixel along (row, column) in pixels of the slices, None where these do as they are.

    :param gap_over_pixel: slice gap over pixel size, (row, column).
    :param shape: (S, H, W).
    """
    if math.sqrt(gap_over_pixel[0] * gap_over_pixel[1]) <= WIDE_GAP_PX:
        return None
    row, column = (max(1.0, ratio / COARSE_GAP_PX) for ratio in gap_over_pixel)
    if min(shape[1] / row, shape[2] / column) < FEWEST_COARSE_PIXELS:
        return None
    return row, column


def coarse_share(gap_over_pixel: tuple[float, float]) -> float:
    """Part of the prediction on coarse pixels in the large structures."""
    gap_px = math.sqrt(gap_over_pixel[0] * gap_over_pixel[1])
    return float(np.clip((gap_px - COARSE_GAP_PX) / (FULL_SHARE_GAP_PX - COARSE_GAP_PX), 0.0, 1.0))


def coarsened(slices: Slices, steps: Steps) -> Slices:
    """Slices (S, H, W) on pixels of ``steps``, without what these cannot show; the first pixel keeps its place.

    :return: float32 (S, h, w); the last pixels lie on or behind the last ones given.
    """
    smooth = gaussian_filter(slices, [BLUR * step if step > 1 else 0.0 for step in steps], axes=(1, 2), mode="nearest")
    return resampled(smooth, steps, stepped_shape(slices.shape[1:], steps), order=1)


def refined(slices: Slices, steps: Steps, shape: tuple[int, int]) -> Slices:
    """The reverse of :func:`coarsened` for what coarse pixels show, by cubic splines onto ``shape`` (H, W) pixels."""
    return resampled(slices, (1.0 / steps[0], 1.0 / steps[1]), shape, order=3)


def mix_in_coarse(image: Slices, spread: Slices, coarse: Slices, steps: Steps, share: float) -> None:
    """Move the large structures of an image towards those predicted on coarse pixels, in place.

    Where both predictions are true to the acquired slices, so is the mixture: what is added there is nothing.

    :param image: (T, H, W); :param spread: (T, H, W), becomes the disagreement of both as well.
    :param coarse: (T, h, w), the prediction from the slices :func:`coarsened` by ``steps``.
    """
    difference = refined(coarse - coarsened(image, steps), steps, (image.shape[1], image.shape[2]))
    image += np.float32(share) * difference
    np.hypot(spread, difference, out=spread)
