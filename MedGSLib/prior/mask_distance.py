"""Signed distances of the masks of single slices, positive inside, in pixels of the column direction."""

from __future__ import annotations

from typing import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

FAR_FRACTION = 0.25
"""A slice that is wholly empty or wholly full lies this fraction of its longer side away from any border."""
SOFT_WIDTH_PX = 2.0


def signed_distance_2d(occupancy: NDArray, pixel_mm: Sequence[float] = (1.0, 1.0)) -> NDArray[np.float32]:
    """Signed distance to the 0.5 contour of one slice, exact below a pixel along the way to the nearest pixel of the other side.

    The border lies between a pixel and its neighbour on the other side: half-way for a binary mask, and where the occupancies
    cross 0.5 for a partial-volume mask.

    :param occupancy: (H, W), bool or 0..1.
    :param pixel_mm: pixel size (row step, column step); the unit of the result is the column step.
    :return: float32 (H, W), positive inside.
    """
    values = np.asarray(occupancy, dtype=np.float32)
    inside = values >= 0.5
    if inside.all() or not inside.any():
        far = FAR_FRACTION * max(values.shape)
        return np.full(values.shape, far if inside.all() else -far, np.float32)
    step = np.array([pixel_mm[0] / pixel_mm[1], 1.0])
    depth = _distance_to(values, ~inside, step)
    height = _distance_to(values, inside, step)
    return np.where(inside, depth, -height).astype(np.float32)


def _distance_to(values: NDArray[np.float32], other: NDArray[np.bool_], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance from each pixel to the 0.5 crossing just before the nearest pixel of ``other``; 0 inside ``other``.

    Half the smallest pixel step taken is on average the share of the last pixel, on discs of any pixel aspect.
    """
    distance, nearest = distance_transform_edt(~other, sampling=step, return_indices=True)
    offset = np.indices(values.shape) - nearest
    reach = np.maximum(np.abs(offset).max(axis=0), 1)
    before = nearest + np.rint(offset / reach).astype(np.int64)
    near, across = values[tuple(nearest)], values[tuple(before)]
    rise = across - near
    crossing = np.where(rise != 0.0, (0.5 - near) / np.where(rise == 0.0, 1.0, rise), 0.5)
    moved = np.where(offset != 0, step[:, None, None], np.inf).min(axis=0)
    return np.where(other, 0.0, distance - crossing * np.where(other, 0.0, moved))


def slice_signed_distances(
    occupancy: NDArray, annotated: NDArray[np.bool_] | None = None, pixel_mm: Sequence[float] = (1.0, 1.0)
) -> NDArray[np.float32]:
    """Signed distances of the annotated slices, with an end cap at each empty slice beside a filled one.

    An empty slice gets minus the largest depth of its filled neighbours, so that a shape interpolated linearly ends half-way.

    :param occupancy: (S, H, W), bool or 0..1.
    :param annotated: bool (S,), which slices to believe; None for all of them.
    :param pixel_mm: pixel size (row step, column step); the unit of the result is the column step.
    :return: float32 (A, H, W) of the A annotated slices, in their order.
    """
    chosen = np.asarray(occupancy) if annotated is None else np.asarray(occupancy)[np.asarray(annotated, dtype=bool)]
    distances = [signed_distance_2d(values, pixel_mm) for values in chosen]
    return cap_empty_slices(np.stack(distances), np.array([bool((values >= 0.5).any()) for values in chosen]))


def cap_empty_slices(distances: NDArray[np.float32], filled: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Replace the distances of empty slices beside filled ones by minus the depth of those neighbours (at least one pixel).

    :param distances: (A, H, W); :param filled: bool (A,).
    :return: float32 (A, H, W), a copy.
    """
    capped = distances.astype(np.float32)
    for index in np.flatnonzero(~filled):
        depths = [float(distances[j].max()) for j in (index - 1, index + 1) if 0 <= j < len(filled) and filled[j]]
        if depths:
            capped[index] = -max(1.0, *depths)
    return capped


def soft_occupancy(signed_distance: NDArray[np.float32], width_px: float = SOFT_WIDTH_PX) -> NDArray[np.float32]:
    """The occupancy target ``0.5 + 0.5 tanh(distance / width)`` in 0..1 of a signed distance in pixels."""
    return (0.5 + 0.5 * np.tanh(np.asarray(signed_distance, dtype=np.float32) / width_px)).astype(np.float32)
