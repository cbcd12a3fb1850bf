"""Signed distances between mask slices from the learnt shape networks, for any gap, pixel aspect and slice spacing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from torch import Tensor
from torch.nn import functional

from MedGSLib.prior.shape_network import SLICE_PADDING, RowNetwork, SliceNetwork, between, load_networks, row_signed_distance
from MedGSLib.prior.shape_synthesis import GAP_RANGE_PX
from MedGSLib.progress import Reporter

Distances = NDArray[np.float32]

FIELD_LIMIT_PX = 8.0
MARGIN_PX = 12
ISOTROPY_TOLERANCE = 0.02
_PLANES_AT_ONCE = 16


@dataclass(frozen=True)
class Gap:
    """The wanted slices of one gap: between annotated slices ``before`` and ``before + 1`` at ``fractions`` of the way."""

    before: int
    rows: NDArray[np.int64]
    fractions: NDArray[np.float32]


@lru_cache(maxsize=1)
def shipped_networks() -> tuple[SliceNetwork, RowNetwork]:
    """The networks that come with MedGS, read once."""
    return load_networks()


def gaps_of(coordinates: NDArray[np.float64], wanted: NDArray[np.float64]) -> list[Gap]:
    """Which wanted positions (T,) lie strictly inside which gap of the annotated ``coordinates`` (A,)."""
    index = np.searchsorted(coordinates, wanted, side="right") - 1
    gaps = []
    for before in range(len(coordinates) - 1):
        rows = np.flatnonzero(index == before)
        fractions = (wanted[rows] - coordinates[before]) / (coordinates[before + 1] - coordinates[before])
        inside = (fractions > 1e-6) & (fractions < 1 - 1e-6)
        if inside.any():
            gaps.append(Gap(before, rows[inside], fractions[inside].astype(np.float32)))
    return gaps


def interpolate_shape(
    distances: Distances,
    coordinates: NDArray[np.float64],
    wanted: NDArray[np.float64],
    gap_over_pixel: tuple[float, float],
    networks: tuple[SliceNetwork, RowNetwork] | None = None,
    reporter: Reporter | None = None,
) -> Distances:
    """The mean of both networks between the annotated slices; these keep their own distances, also beyond the first and last.

    :param distances: (A, H, W), positive inside, in px of the column direction, empty slices capped.
    :param coordinates: (A,), increasing, in units of the slice gap that ``gap_over_pixel`` (row, column) refers to.
    :param wanted: (T,) in the same units.
    :param networks: for tests; the shipped ones by default.
    :return: float32 (T, H, W) in px of the column direction, within +-8 working pixels between the slices.
    """
    nearest = np.abs(coordinates[None, :] - wanted[:, None]).argmin(axis=1)
    out = distances[nearest].astype(np.float32)
    gaps = gaps_of(coordinates, wanted)
    if not gaps:
        return out
    row_step = gap_over_pixel[1] / gap_over_pixel[0]
    spans = np.diff(coordinates) * gap_over_pixel[1]
    pixel = _working_pixel(row_step, float(np.median(spans)))
    limit = FIELD_LIMIT_PX * pixel
    box = _filled_box(distances, margin=math.ceil(MARGIN_PX * max(pixel, pixel / row_step)))
    steps = (pixel / row_step, pixel)
    work = _resample(distances[:, box[0], box[1]], steps) / np.float32(pixel)
    spans_px = np.clip(spans / pixel, *GAP_RANGE_PX)
    field = _network_field(work, spans_px, gaps, networks or shipped_networks(), reporter)
    sides = (box[0].stop - box[0].start, box[1].stop - box[1].start)
    inside = np.concatenate([gap.rows for gap in gaps])
    out[inside] = -limit
    out[np.ix_(inside, np.arange(box[0].start, box[0].stop), np.arange(box[1].start, box[1].stop))] = _restore(field, steps, sides) * pixel
    return out


def _working_pixel(row_step: float, gap: float) -> float:
    """Side of the square pixel the networks see, in column steps: near the given pixels, and the gap within what they were taught."""
    pixel = 1.0 if abs(row_step - 1) < ISOTROPY_TOLERANCE else math.sqrt(row_step)
    return float(np.clip(pixel, gap / GAP_RANGE_PX[1], gap / GAP_RANGE_PX[0]))


def _filled_box(distances: Distances, margin: int) -> tuple[slice, slice]:
    """Rows and columns that hold a mask in any slice, with a margin; the whole plane where there is none."""
    filled = (distances > 0).any(axis=0)
    if not filled.any():
        return slice(0, filled.shape[0]), slice(0, filled.shape[1])
    sides = []
    for axis in (0, 1):
        found = np.unique(np.nonzero(filled)[axis])
        sides.append(slice(max(0, int(found[0]) - margin), min(filled.shape[axis], int(found[-1]) + 1 + margin)))
    return sides[0], sides[1]


def _resample(planes: Distances, steps: tuple[float, float]) -> Distances:
    """Planes (A, H, W) on square working pixels, ``steps`` (row, column) source pixels apart."""
    if all(abs(step - 1) < 1e-6 for step in steps):
        return planes.astype(np.float32)
    shape = tuple(int(math.ceil((side - 1) / step)) + 1 for side, step in zip(planes.shape[1:], steps))
    return np.stack([affine_transform(plane, steps, output_shape=shape, order=1, mode="nearest") for plane in planes])


def _restore(planes: Distances, steps: tuple[float, float], shape: tuple[int, int]) -> Distances:
    """The inverse of :func:`_resample`, on ``shape`` (H, W) source pixels."""
    if all(abs(step - 1) < 1e-6 for step in steps):
        return planes
    back = tuple(1 / step for step in steps)
    return np.stack([affine_transform(plane, back, output_shape=shape, order=3, mode="nearest") for plane in planes])


@torch.inference_mode()
def _network_field(
    distances: Distances,
    spans_px: NDArray[np.float64],
    gaps: list[Gap],
    networks: tuple[SliceNetwork, RowNetwork],
    reporter: Reporter | None,
) -> Distances:
    """Mean of both networks, each within +-8 px, for the wanted slices in the order of the gaps: (T, h, w)."""
    stack = torch.from_numpy(np.ascontiguousarray(distances))
    span_px = torch.from_numpy(spans_px.astype(np.float32))
    rows = row_fields(networks[1], stack, span_px, gaps)
    fields = []
    for number, (gap, row_field) in enumerate(zip(gaps, rows)):
        slice_field = slice_field_of_gap(networks[0], stack, span_px[gap.before], gap)
        fields.append((slice_field.clamp(-FIELD_LIMIT_PX, FIELD_LIMIT_PX) + row_field.clamp(-FIELD_LIMIT_PX, FIELD_LIMIT_PX)) / 2)
        if reporter is not None:
            reporter.step(number + 1)
    return torch.cat(fields).numpy()


def slice_field_of_gap(network: SliceNetwork, stack: Tensor, span_px: Tensor, gap: Gap) -> Tensor:
    """Distances (T, h, w) of one gap by the slice network, averaged over its eight symmetric views.

    A view upside down changes the sign of the odd coefficients, so that the coefficients can be averaged.
    """
    last = len(stack) - 1
    around = stack[[max(gap.before - 1, 0), gap.before, gap.before + 1, min(gap.before + 2, last)]]
    height, width = around.shape[1:]
    even = (height % 2, width % 2)
    view = functional.pad(around[None], (SLICE_PADDING, SLICE_PADDING + even[1], SLICE_PADDING, SLICE_PADDING + even[0]), mode="replicate")
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1, 1)
    total = torch.zeros(())
    for upside_down in (False, True):
        ordered = view.flip(1) if upside_down else view
        for mirrored in (False, True):
            for transposed in (False, True):
                seen = ordered.flip(2) if mirrored else ordered
                seen = seen.transpose(2, 3) if transposed else seen
                found = network(seen, span_px.view(1))
                found = found.transpose(2, 3) if transposed else found
                found = found.flip(2) if mirrored else found
                total = total + (found * signs if upside_down else found)
    inner = total[:, :, SLICE_PADDING : SLICE_PADDING + height, SLICE_PADDING : SLICE_PADDING + width] / 8
    return between(around[1][None], around[2][None], inner, torch.from_numpy(gap.fractions))[0]


def row_fields(network: RowNetwork, stack: Tensor, span_px: Tensor, gaps: list[Gap]) -> list[Tensor]:
    """Distances (T, h, w) of each gap by the row network: the mean of the planes along rows and along columns of the slices."""
    along_columns = _row_planes(network, stack.transpose(0, 1), span_px, gaps)
    along_rows = _row_planes(network, stack.permute(2, 0, 1), span_px, gaps)
    return [(first.transpose(0, 1) + second.permute(1, 2, 0)) / 2 for first, second in zip(along_columns, along_rows)]


def _row_planes(network: RowNetwork, planes: Tensor, span_px: Tensor, gaps: list[Gap]) -> list[Tensor]:
    """Distances (P, T, X) of each gap in planes (P, A, X) across the stack."""
    rows = torch.from_numpy(row_signed_distance(planes.numpy()))
    filled = torch.nonzero((planes >= 0).flatten(1).any(1))[:, 0]
    results = [torch.full((len(rows), len(gap.rows), rows.shape[2]), -FIELD_LIMIT_PX) for gap in gaps]
    for block in filled.split(_PLANES_AT_ONCE):
        seen = rows[block]
        coefficients = _row_coefficients(network, seen, span_px.median().expand(len(block)))
        for gap, result in zip(gaps, results):
            k = gap.before
            fractions = torch.from_numpy(gap.fractions)
            result[block] = between(seen[:, k], seen[:, k + 1], coefficients[:, :, k], fractions)
    return results


def _row_coefficients(network: RowNetwork, rows: Tensor, gap_px: Tensor) -> Tensor:
    """Coefficients (P, J, A - 1, X) averaged over the four symmetric views of the planes."""
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1, 1)
    total = torch.zeros(())
    for mirrored in (False, True):
        seen = rows.flip(2) if mirrored else rows
        upright, turned = network(seen, gap_px), network(seen.flip(1), gap_px).flip(2) * signs
        found = upright + turned
        total = total + (found.flip(3) if mirrored else found)
    return total / 4
