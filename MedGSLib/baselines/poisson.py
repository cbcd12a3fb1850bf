"""Poisson surface reconstruction from the contours of mask slices (Kazhdan, Bolitho and Hoppe, SGP 2006), solved by Fourier transform.

The gradient of the indicator function is the field of inward normals, spread over the distance of the samples. Here the samples lie on the
contours, a slice gap apart along the stack; their normals are tilted as the signed distances of neighbouring slices change.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from skimage.measure import find_contours

from MedGSLib.prior.mask_distance import slice_signed_distances

Field = NDArray[np.float32]

MARGIN_PX = 8
CONTINUED_GAPS = 2
"""A stack ends where nobody drew on, not where the segment ends, so its outer slices are continued by this many gaps."""
SPREAD_ALONG, SPREAD_ACROSS_PX = 0.35, 0.75
"""Width of the kernel that spreads a normal: in slice gaps along the stack, in px within the slices (the best on the development set)."""
MOST_STEPS = 16


def poisson(
    occupancy: NDArray[np.bool_],
    coordinates: NDArray[np.float64],
    wanted: NDArray[np.float64],
    gap_over_pixel: tuple[float, float] = (1.0, 1.0),
) -> Field:
    """The indicator function whose gradient agrees best with the normals of the contours, its surface at 0.5.

    :param occupancy: (S, H, W); :param coordinates: (S,), increasing; :param wanted: (T,); positions beyond the slices get the outermost.
    :param gap_over_pixel: the unit of the coordinates over the pixel size, (row, column).
    :return: float32 (T, H, W) in 0..1.
    """
    masks = np.asarray(occupancy) >= 0.5
    heights = np.asarray(coordinates, np.float64) * gap_over_pixel[1]
    inside = np.clip(np.asarray(wanted) * gap_over_pixel[1], heights[0], heights[-1])
    if len(heights) < 2 or not masks.any():
        return np.repeat(masks[:1].astype(np.float32), len(inside), axis=0)
    gap = float(np.median(np.diff(heights)))
    beyond = gap * np.arange(1, CONTINUED_GAPS + 1)
    places = np.concatenate([heights[0] - beyond[::-1], heights, heights[-1] + beyond])
    stack = np.pad(masks, ((CONTINUED_GAPS, CONTINUED_GAPS), (MARGIN_PX, MARGIN_PX), (MARGIN_PX, MARGIN_PX)), mode="constant")
    stack[:CONTINUED_GAPS], stack[-CONTINUED_GAPS:] = stack[CONTINUED_GAPS], stack[-CONTINUED_GAPS - 1]
    pixel = (gap_over_pixel[1] / gap_over_pixel[0], 1.0)
    points, normals = _oriented_samples(stack, places, pixel)
    step = gap / min(MOST_STEPS, max(2, math.ceil(gap)))
    first = places[0] - CONTINUED_GAPS * gap
    depth = math.ceil((places[-1] + CONTINUED_GAPS * gap - first) / step) + 1
    spacing = np.array([step, *pixel])
    index = (points - [first, 0.0, 0.0]) / spacing
    shape = (depth, *stack.shape[1:])
    spread = np.array([SPREAD_ALONG * gap, SPREAD_ACROSS_PX, SPREAD_ACROSS_PX])
    indicator = _solved(_splatted(index, normals, shape) / spacing.prod(), spacing, spread)
    level = float(np.average(ndimage.map_coordinates(indicator, index.T, order=1), weights=np.linalg.norm(normals, axis=1)))
    rows = (inside - first) / step
    grid = np.meshgrid(rows, *(np.arange(side) + MARGIN_PX for side in masks.shape[1:]), indexing="ij")
    return np.clip(ndimage.map_coordinates(indicator, grid, order=1) - level + 0.5, 0.0, 1.0).astype(np.float32)


def _oriented_samples(
    masks: NDArray[np.bool_], heights: NDArray[np.float64], pixel: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middles (P, 3) of the pieces of all contours, (slice, row, column) in px, and their inward normals times their share of surface."""
    distances = slice_signed_distances(masks, pixel_mm=pixel)
    slopes = np.gradient(distances, heights, axis=0)
    shares = np.gradient(heights)
    points, normals = [], []
    for mask, slope, height, share in zip(masks, slopes, heights, shares, strict=True):
        for contour in find_contours(mask.astype(np.float32), 0.5):
            middle = (contour[1:] + contour[:-1]) / 2
            along = np.diff(contour, axis=0) * pixel
            tilt = ndimage.map_coordinates(slope, middle.T, order=1) * np.linalg.norm(along, axis=1)
            # the contours have the inside on one and the same side, so the inward normal is their direction turned by 90 degrees
            normals.append(share * np.stack([tilt, along[:, 1], -along[:, 0]], axis=1))
            points.append(np.column_stack([np.full(len(middle), height), middle * pixel]))
    return np.concatenate(points), np.concatenate(normals)


def _splatted(index: NDArray[np.float64], normals: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Vectors (P, 3) at ``index`` (P, 3) shared out linearly among the eight grid points around: (3, *shape)."""
    field = np.zeros((3, *shape))
    low = np.floor(index).astype(int)
    part = index - low
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, part, 1 - part).prod(axis=1)
        place = tuple((low + corner).T)
        for component, values in zip(field, normals.T, strict=True):
            np.add.at(component, place, weight * values)
    return field


def _solved(normals: NDArray[np.float64], spacing: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """The function (T, H, W) whose Laplacian is the divergence of the field (3, T, H, W) spread by a Gaussian."""
    shape = normals.shape[1:]
    waves = [2 * np.pi * fft.fftfreq(side, step) for side, step in zip(shape[:-1], spacing[:-1])]
    waves.append(2 * np.pi * fft.rfftfreq(shape[-1], spacing[-1]))
    grid = np.meshgrid(*waves, indexing="ij", sparse=True)
    power = sum(wave**2 for wave in grid)
    blur = np.exp(-0.5 * sum((wave * width) ** 2 for wave, width in zip(grid, spread)))
    divergence = sum(1j * wave * fft.rfftn(component) for wave, component in zip(grid, normals))
    with np.errstate(divide="ignore", invalid="ignore"):
        spectrum = np.where(power > 0, -divergence * blur / power, 0.0)
    return fft.irfftn(spectrum, shape)
