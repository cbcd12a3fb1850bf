"""What a fit becomes on the output grid: the image true to the acquired slices, the label map, and the fields of the surfaces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from MedGSLib.preparation import Preparation
from MedGSLib.prior.mask_distance import SOFT_WIDTH_PX, soft_occupancy
from MedGSLib.prior.thick import back_project

LARGEST_GAUSSIAN_SHARE = 0.5
"""Of the image between acquired slices; the mean of Gaussians and prior beats either where the prior is uncertain (method study, 1)."""
DEVIATION_PENALTY = 5.0
"""How fast that share falls where Gaussians stray further from the prior than its own views do; chosen on the development set."""
MASK_PRIOR_SHARE = 2 / 3
"""Share of the in-between masks in the occupancy. Above a half, nothing can appear where these say there is nothing for certain; a third of
Gaussians still makes surfaces smoother than those of signed distances (chosen on the development set)."""
CERTAIN = float(0.5 + 0.5 * np.tanh(3.0 / SOFT_WIDTH_PX))
"""Occupancy of the in-between masks three pixels inside; a piece that reaches it nowhere is thin."""
THIN_MARGIN_PX = 2
BACK_PROJECTIONS = 10
SHARED_VOXELS = 0.05
"""Segments that share more than this part of the smaller one's voxels lie over each other on purpose."""


def dense_image(rendered: NDArray[np.float32], prepared: Preparation) -> NDArray[np.float32]:
    """The normalised image (T, H, W) on the output grid: Gaussians and prior mixed, true to the acquired slices.

    :param rendered: (T, H, W), the image head on the output grid.
    """
    assert prepared.prior is not None and prepared.slices is not None
    if prepared.prior.report["method"] == "none":
        return true_to_slices(rendered, prepared)
    prior = on_grid(prepared.prior.image, prepared)
    deviation = rendered - prior
    share = gaussian_share(deviation, on_grid(prepared.prior.disagreement, prepared))
    return true_to_slices(prior + share * deviation, prepared)


def gaussian_share(deviation: NDArray[np.float32], disagreement: NDArray[np.float32]) -> float:
    """Part of the Gaussians in the image: half where they stay within the prior's uncertainty, none where they only blur a certain prior.

    :param deviation: of the Gaussians from the prior; :param disagreement: of the prior's views among each other, 0 on acquired points.
    """
    between = disagreement > 0
    if not between.any():
        return LARGEST_GAUSSIAN_SHARE
    strayed = float(np.mean(np.square(deviation[between]))) / float(np.mean(np.square(disagreement[between])))
    return LARGEST_GAUSSIAN_SHARE / (1.0 + DEVIATION_PENALTY * strayed)


def dense_occupancy(rendered: NDArray[np.float32], prepared: Preparation) -> NDArray[np.float32]:
    """The occupancies (L, T, H, W), 0..1, on the output grid: Gaussians and in-between masks mixed, nowhere against an annotation.

    :param rendered: (T, L, H, W), the mask heads on the output grid.
    """
    assert prepared.distances is not None
    share = MASK_PRIOR_SHARE if prepared.training.pseudo_mask_weight > 0 else 0.0
    occupancy = np.clip(rendered.transpose(1, 0, 2, 3), 0.0, 1.0)
    if share == 0.0:
        return np.ascontiguousarray(occupancy)
    prior = np.stack([on_grid(soft_occupancy(distance), prepared) for distance in prepared.distances])
    return true_to_annotations(with_all_pieces((1.0 - share) * occupancy + share * prior, prior), prior, prepared)


def with_all_pieces(occupancy: NDArray[np.float32], prior: NDArray[np.float32]) -> NDArray[np.float32]:
    """Occupancies (L, T, H, W) with those pieces of the slices of ``prior`` put back of which nothing is left, as in thin vessels."""
    for mixed, known in zip(occupancy.reshape(-1, *occupancy.shape[2:]), prior.reshape(-1, *prior.shape[2:]), strict=True):
        pieces, count = ndimage.label(known > 0.5)
        if count:
            lost = np.ones(count + 1, bool)
            lost[pieces[mixed > 0.5]] = False
            lost[0] = False
            mixed[lost[pieces]] = known[lost[pieces]]
    return occupancy


def true_to_annotations(occupancy: NDArray[np.float32], prior: NDArray[np.float32], prepared: Preparation) -> NDArray[np.float32]:
    """Occupancies (L, T, H, W) that contradict no annotated slice, and are those of ``prior`` round its thin pieces.

    Gaussians erode these; elsewhere the annotated slices stay as smooth as their neighbours.
    """
    rows = prepared.grid.acquired[prepared.stack.annotated]
    for row in rows[rows >= 0]:
        for mixed, known in zip(occupancy[:, row], prior[:, row], strict=True):
            kept = ((mixed > 0.5) != (known > 0.5)) | _round_thin_pieces(known)
            mixed[kept] = known[kept]
    return occupancy


def _round_thin_pieces(occupancy: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The pieces of a slice (H, W) that are nowhere certain, and the pixels round them."""
    pieces, count = ndimage.label(occupancy > 0.5)
    if count == 0:
        return pieces > 0
    thin = ndimage.maximum(occupancy, pieces, np.arange(count + 1)) < CERTAIN
    thin[0] = False
    return ndimage.binary_dilation(thin[pieces], iterations=THIN_MARGIN_PX) if thin.any() else thin[pieces]


def true_to_slices(image: NDArray[np.float32], prepared: Preparation) -> NDArray[np.float32]:
    """The image (T, H, W) with the acquired slices in their places, or made consistent with them where they are thick.

    Thick slices that lie between the output slices, as in irregular stacks, are left as they are fitted.
    """
    assert prepared.slices is not None
    acquired = prepared.grid.acquired
    known = acquired >= 0
    if prepared.profile.kind == "point":
        image = image.copy()
        image[acquired[known]] = prepared.slices[known]
        return image
    if known.all():
        return back_project(image, prepared.slices, prepared.profile, prepared.factor, BACK_PROJECTIONS, acquired)
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


def exclusive_labels(occupancy: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which pairs of segments compete for a voxel, and which lie over each other, as a lumen in its aneurysm.

    :param occupancy: (L, S, H, W) of the input.
    :return: bool (L, L), symmetric, False on the diagonal and for pairs that share voxels of the smaller one.
    """
    filled = (occupancy >= 0.5).reshape(len(occupancy), -1)
    voxels = filled.sum(axis=1)
    overlapping = filled[:, np.add.reduce(filled, axis=0, dtype=np.uint16) > 1]
    shared = np.array([[np.count_nonzero(first & second) for second in overlapping] for first in overlapping])
    apart = shared <= SHARED_VOXELS * np.minimum(voxels[:, None], voxels[None, :])
    return apart & ~np.eye(len(occupancy), dtype=bool)


def label_map(occupancy: NDArray[np.float32], values: tuple[int, ...], exclusive: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The most likely label of each voxel; what no label claims is background, so that labels neither overlap nor leave gaps.

    Of segments that lie over each other the smaller one shows.

    :param occupancy: (L, T, H, W).
    :param values: the L label values.
    :param exclusive: bool (L, L), see :func:`exclusive_labels`.
    :return: (T, H, W).
    """
    if exclusive.sum() == len(values) * (len(values) - 1):
        background = 1.0 - occupancy.sum(axis=0, keepdims=True)
        winner = np.concatenate([background, occupancy]).argmax(axis=0)
        return np.array([0, *values], dtype=np.int32)[winner]
    claimed = [boundary_field(occupancy, label, exclusive) > 0.5 for label in range(len(values))]
    labels = np.zeros(occupancy.shape[1:], dtype=np.int32)
    for label in sorted(range(len(values)), key=lambda label: -int(claimed[label].sum())):
        labels[claimed[label]] = values[label]
    return labels


def boundary_field(occupancy: NDArray[np.float32], label: int, exclusive: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A field (T, H, W) that is 0.5 where ``label`` ties with its strongest rival, so that surfaces of neighbours coincide.

    :param exclusive: bool (L, L), see :func:`exclusive_labels`.
    """
    free, bound = boundary_fields(occupancy, label, exclusive)
    return free if bound is None else np.minimum(free, bound)


def boundary_fields(
    occupancy: NDArray[np.float32], label: int, exclusive: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The fields (T, H, W) whose minimum is :func:`boundary_field`: against the background, and against other labels if any compete."""
    own, rivals = occupancy[label], occupancy[exclusive[label]]
    if len(rivals) == 0:
        return own, None
    background = 1.0 - own - rivals.sum(axis=0)
    return 0.5 + 0.5 * (own - background), 0.5 + 0.5 * (own - rivals.max(axis=0))


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
