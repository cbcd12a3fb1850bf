"""How smooth the stack is along its axis, and the in-plane blur that makes rows as smooth: the network then learns no detail it lacks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import brentq

SHARP_EDGES = 2.0
"""Ratio of an image of sharp edges; above it, neighbouring slices overlap or were blurred together."""
CERTAIN = 2.2
"""Ratio from which the stack is taken to be blurred whatever the anatomy."""
ANATOMY_TOLERANCE = 0.1
"""The ratios of two directions of the same sharp anatomy differ by this much, and more."""
WIDEST_BLUR = 1.2
SIGMA_TOLERANCE = 0.01


def structure_ratio(values: NDArray[np.float32], lag: int = 1) -> float:
    """Mean squared difference over twice the lag divided by that over the lag, along the first axis.

    It is 1 for noise, 2 for sharp edges and 4 for what is linear over the lag: the structure function of geostatistics
    (Matheron 1963), whose growth tells how smooth a signal is at that distance whatever its contrast.

    :param values: (N, ...), normalised; intensities outside the window count as its ends.
    :param lag: in samples.
    :return: 1 where there are too few samples or nothing changes.
    """
    if len(values) <= 2 * lag:
        return 1.0
    clipped = np.clip(values, 0, 1)
    near = float(np.mean(np.square(clipped[lag:] - clipped[:-lag])))
    far = float(np.mean(np.square(clipped[2 * lag :] - clipped[: -2 * lag])))
    return far / near if near > 0 else 1.0


def matching_blur(rows: NDArray[np.float32], lag: int, wanted_ratio: float) -> float:
    """Standard deviation of the Gaussian that brings rows to the smoothness of the stack, 0 where they are as smooth already.

    :param rows: (R, ...) in-plane rows at the distance of sub-slices.
    :param lag: rows per slice gap.
    :param wanted_ratio: :func:`structure_ratio` of the stack; below ``CERTAIN`` less is asked for, since directions of the anatomy differ.
    :return: in rows.
    """
    certainty = np.clip((wanted_ratio - SHARP_EDGES) / (CERTAIN - SHARP_EDGES), 0, 1)
    wanted = wanted_ratio - ANATOMY_TOLERANCE * (1 - certainty)

    def excess(sigma: float) -> float:
        return structure_ratio(gaussian_filter1d(rows, sigma, axis=0), lag) - wanted

    if structure_ratio(rows, lag) >= wanted:
        return 0.0
    widest = WIDEST_BLUR * lag
    if excess(widest) <= 0:
        return widest
    return float(brentq(excess, 1e-3, widest, xtol=SIGMA_TOLERANCE * lag))


def sharpness(stack_ratio: float | None) -> float:
    """How far a stack is as sharp along its axis as within its slices.

    Where it is not, the warping errors of motion compensation outweigh what it finds, and blurred rows are not quite like the stack.

    :param stack_ratio: :func:`structure_ratio` of the stack, or None where it does not matter.
    :return: 1 for sharp stacks, falling to 0 at ``CERTAIN``.
    """
    return 1.0 if stack_ratio is None else float(np.clip((CERTAIN - stack_ratio) / (CERTAIN - SHARP_EDGES), 0, 1))
