"""What a fit becomes on the output grid: the image true to the acquired slices, the label map, and the fields of the surfaces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from MedGSLib.preparation import Preparation
from MedGSLib.prior.thick import back_project

PRIOR_SHARE = 0.5
"""Share of the prior in the image between acquired slices; the mean of both beats either almost everywhere (method study, section 1)."""
BACK_PROJECTIONS = 10


def dense_image(rendered: NDArray[np.float32], prepared: Preparation) -> NDArray[np.float32]:
    """The normalised image (T, H, W) on the output grid: mean of Gaussians and prior, true to the acquired slices.

    :param rendered: (T, H, W), the image head on the output grid.
    """
    assert prepared.prior is not None and prepared.slices is not None
    share = 0.0 if prepared.prior.report["method"] == "none" else PRIOR_SHARE
    image = (1.0 - share) * rendered + share * on_grid(prepared.prior.image, prepared)
    return true_to_slices(image, prepared)


def true_to_slices(image: NDArray[np.float32], prepared: Preparation) -> NDArray[np.float32]:
    """The image (T, H, W) with the acquired slices in their places, or made consistent with them where they are thick."""
    assert prepared.slices is not None
    acquired = prepared.grid.acquired
    known = acquired >= 0
    if prepared.profile.kind == "point":
        image = image.copy()
        image[acquired[known]] = prepared.slices[known]
        return image
    if known.all() and len(image) == len(prepared.targets.coordinates):
        return back_project(image, prepared.slices, prepared.profile, prepared.factor, BACK_PROJECTIONS)
    return image


def on_grid(dense: NDArray[np.float32], prepared: Preparation) -> NDArray[np.float32]:
    """Slices of ``dense`` (T', H, W), which lie at the coordinates of the targets, linearly interpolated on the output grid."""
    coordinates, wanted = prepared.targets.coordinates, prepared.grid.positions_mm / prepared.step_mm
    if len(coordinates) == len(wanted) and np.allclose(coordinates, wanted, atol=1e-6):
        return dense
    place = np.interp(wanted, coordinates, np.arange(len(coordinates)))
    below = np.minimum(place.astype(int), len(coordinates) - 2)
    share = (place - below)[:, None, None].astype(np.float32)
    return (1.0 - share) * dense[below] + share * dense[below + 1]


def label_map(occupancy: NDArray[np.float32], values: tuple[int, ...]) -> NDArray[np.int32]:
    """The most likely label of each voxel; what no label claims is background, so that labels neither overlap nor leave gaps.

    :param occupancy: (L, T, H, W).
    :param values: the L label values.
    :return: (T, H, W).
    """
    background = 1.0 - occupancy.sum(axis=0, keepdims=True)
    winner = np.concatenate([background, occupancy]).argmax(axis=0)
    return np.array([0, *values], dtype=np.int32)[winner]


def boundary_field(occupancy: NDArray[np.float32], label: int) -> NDArray[np.float32]:
    """A field (T, H, W) that is 0.5 where ``label`` ties with its strongest rival, so that surfaces of neighbours coincide."""
    if len(occupancy) == 1:
        return occupancy[0]
    rivals = np.concatenate([1.0 - occupancy.sum(axis=0, keepdims=True), np.delete(occupancy, label, axis=0)]).max(axis=0)
    return 0.5 + 0.5 * (occupancy[label] - rivals)


def way_to_slices(positions_mm: NDArray[np.float64], known_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far positions lie between known slices: 0 on one, 1 half-way between two, 1 beyond the first and last.

    :param positions_mm: (...,) along the stack.
    :param known_mm: (S,), increasing.
    """
    after = np.clip(np.searchsorted(known_mm, positions_mm), 1, max(len(known_mm) - 1, 1))
    if len(known_mm) < 2:
        return np.minimum(np.abs(positions_mm - known_mm[0]), 1.0)
    left, right = known_mm[after - 1], known_mm[after]
    share = (positions_mm - left) / (right - left)
    return np.where((share < 0) | (share > 1), 1.0, np.sqrt(np.clip(4.0 * share * (1.0 - share), 0.0, 1.0)))
