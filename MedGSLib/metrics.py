"""How close a reconstructed image or mask is to the true one. Surfaces are compared in :mod:`MedGSLib.metrics_surface`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

SSIM_SIGMA = 1.5
_LEAST_ERROR = 1e-10


def psnr(reconstructed: NDArray, reference: NDArray, data_range: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB, at most 100 dB at a range of 1.

    :param reconstructed: array of the shape of ``reference``; :param data_range: width of the intensity window.
    """
    difference = np.asarray(reconstructed, np.float64) - np.asarray(reference, np.float64)
    return -10.0 * math.log10(max(float(np.mean(difference**2)) / data_range**2, _LEAST_ERROR))


def ssim(reconstructed: NDArray, reference: NDArray, data_range: float = 1.0) -> float:
    """Structural similarity of two slices with a Gaussian window of sigma 1.5 (Wang et al. 2004, doi:10.1109/TIP.2003.819861).

    :param reconstructed: (H, W), at least 11 pixels a side, as ``reference``.
    """
    value = structural_similarity(
        np.asarray(reconstructed, np.float64),
        np.asarray(reference, np.float64),
        data_range=data_range,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
    )
    return float(value)


def mean_psnr(reconstructed: NDArray, reference: NDArray, data_range: float = 1.0) -> float:
    """Mean over the slices of (S, H, W) of :func:`psnr`."""
    return float(np.mean([psnr(*pair, data_range) for pair in zip(reconstructed, reference)]))


def mean_ssim(reconstructed: NDArray, reference: NDArray, data_range: float = 1.0) -> float:
    """Mean over the slices of (S, H, W) of :func:`ssim`."""
    return float(np.mean([ssim(*pair, data_range) for pair in zip(reconstructed, reference)]))


def sharpness(reconstructed: NDArray, reference: NDArray) -> float:
    """Gradient energy of the reconstruction relative to that of the reference: 1 is as sharp, less is blurred.

    :param reconstructed: array of any dimension and the shape of ``reference``.
    """
    energy, wanted = (_gradient_energy(np.asarray(array, np.float64)) for array in (reconstructed, reference))
    return energy / wanted if wanted > 0 else float("nan")


def _gradient_energy(array: NDArray[np.float64]) -> float:
    return sum(float(np.square(np.gradient(array, axis=axis)).sum()) for axis in range(array.ndim))


def best_share(own: NDArray[np.floating], other: NDArray[np.floating], truth: NDArray[Any], undecided: float) -> float:
    """The share of ``own`` in the blend with ``other`` that has the least squared error; not limited to 0..1.

    :param undecided: returned where both are the same.
    """
    apart = (own - other).astype(np.float64)
    power = float((apart**2).sum())
    return float((apart * (truth - other)).sum()) / power if power > 0 else undecided


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Overlap of two masks, 0..1; two empty masks overlap wholly."""
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2.0 * int(np.count_nonzero(np.logical_and(first, second))) / total if total else 1.0


def mean_slice_dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Mean of :func:`dice` over the slices of (S, H, W) that are filled in either mask; 1 where none is."""
    filled = [pair for pair in zip(first, second) if pair[0].any() or pair[1].any()]
    return float(np.mean([dice(*pair) for pair in filled])) if filled else 1.0
