"""Signed distances between mask slices from the learnt shape networks, for any gap, pixel aspect and slice spacing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from torch import Tensor
from torch.nn import functional

from MedGSLib.baselines.masks import interpolate_linear
from MedGSLib.prior.mask_areas import voxels_of_areas, with_promised_volume
from MedGSLib.prior.mask_distance import signed_distance_2d
from MedGSLib.prior.pixel_steps import Steps, resampled, stepped_shape
from MedGSLib.prior.shape_network import COEFFICIENTS, SLICE_PADDING, RowNetwork, SliceNetwork, between, load_networks, row_signed_distance
from MedGSLib.prior.shape_synthesis import GAP_RANGE_PX
from MedGSLib.progress import Reporter

Distances = NDArray[np.float32]

FIELD_LIMIT_PX = 8.0
LARGEST_LEVEL_SHIFT = 0.125
"""How far from the middle of its range the networks' field may be cut, so that its volume is what the annotated areas promise."""
VOLUME_ERRORS = 0.5
"""Standard errors that the volume may be from that promise; on the development set best for volumes, and no worse than 0 or 1 for Dice."""
MARGIN_PX = 12
ISOTROPY_TOLERANCE = 0.02
_PLANES_AT_ONCE = 16
_ODD_SIGNS = (-1.0) ** torch.arange(COEFFICIENTS).view(1, -1, 1, 1)


Advance = Callable[[int], None]
"""Called with the number of units of work just done."""


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
    quick: bool = False,
) -> Distances:
    """The row network's shape between the annotated slices; these keep their own distances, also beyond the first and last.

    Between them the volume is within half a standard error of what the areas of the annotated slices promise.

    :param distances: (A, H, W), positive inside, in px of the column direction, empty slices capped.
    :param coordinates: (A,), increasing, in units of the slice gap that ``gap_over_pixel`` (row, column) refers to.
    :param wanted: (T,) in the same units.
    :param networks: for tests; the shipped ones by default.
    :param quick: the slice network instead, which is several times faster and somewhat less exact.
    :return: float32 (T, H, W) in px of the column direction, between the slices within +-8 working pixels.
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
    slice_network, row_network = networks or shipped_networks()
    height, width = work.shape[1:]
    units = len(gaps) if quick else height + width + 2 * _turned_side(height, width)
    advance = _counter(reporter or Reporter(), units)
    field = _network_field(work, spans_px, gaps, slice_network if quick else row_network, advance)
    sides = (box[0].stop - box[0].start, box[1].stop - box[1].start)
    inside = np.concatenate([gap.rows for gap in gaps])
    linear = interpolate_linear(distances[:, box[0], box[1]], coordinates, wanted[inside])
    sure = 0.5 + _restore(field, steps, sides) / np.float32(2 * FIELD_LIMIT_PX)
    promised = voxels_of_areas(np.count_nonzero(distances > 0, axis=(1, 2)), coordinates, wanted[inside])
    sure = with_promised_volume(sure, LARGEST_LEVEL_SHIFT, promised, VOLUME_ERRORS)
    found = [_in_pixels(plane, guess, row_step) for plane, guess in zip(sure, linear)]
    out[inside] = -limit
    target = np.ix_(inside, np.arange(box[0].start, box[0].stop), np.arange(box[1].start, box[1].stop))
    out[target] = np.clip(np.stack(found), -limit, limit)
    return out


def _in_pixels(sure: Distances, linear: Distances, row_step: float) -> Distances:
    """The distance in column steps to where a field of the networks, 0..1, is a half; their own scale grows with their certainty.

    In a slice that the networks find empty there is nothing to be distant from: the linear guess, kept below 0 as the networks are.
    """
    if not (sure >= 0.5).any():
        return np.minimum(linear, 2 * sure - 1)
    return signed_distance_2d(sure, (row_step, 1.0))


def _counter(reporter: Reporter, total: int) -> Advance:
    """Open the stage "shape", and return what counts its units of work: planes across the stack, or gaps.

    :raises Cancelled: there and from the counter, if the caller asks to stop.
    """
    reporter.start("shape", total, "Interpolating the shape of the segment")
    done = 0

    def advance(units: int) -> None:
        nonlocal done
        done += units
        reporter.step(min(done, total))

    return advance


def _turned_side(height: int, width: int) -> int:
    """Side of the square that holds a plane turned by 45 degrees."""
    return math.ceil(math.hypot(height, width)) + 1


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


def _resample(planes: Distances, steps: Steps) -> Distances:
    """Planes (A, H, W) on square working pixels, ``steps`` (row, column) source pixels apart."""
    if all(abs(step - 1) < 1e-6 for step in steps):
        return planes.astype(np.float32)
    return resampled(planes, steps, stepped_shape(planes.shape[1:], steps), order=1)


def _restore(planes: Distances, steps: Steps, shape: tuple[int, int]) -> Distances:
    """The inverse of :func:`_resample`, on ``shape`` (H, W) source pixels."""
    if all(abs(step - 1) < 1e-6 for step in steps):
        return planes
    return resampled(planes, (1.0 / steps[0], 1.0 / steps[1]), shape, order=3)


@torch.inference_mode()
def _network_field(
    distances: Distances, spans_px: NDArray[np.float64], gaps: list[Gap], network: SliceNetwork | RowNetwork, advance: Advance
) -> Distances:
    """What a network finds, within +-8 px, for the wanted slices in the order of the gaps: (T, h, w)."""
    stack = torch.from_numpy(np.ascontiguousarray(distances))
    span_px = torch.from_numpy(spans_px.astype(np.float32))
    if isinstance(network, RowNetwork):
        fields = row_fields(network, stack, span_px, gaps, advance)
    else:
        fields = []
        for gap in gaps:
            fields.append(slice_field_of_gap(network, stack, span_px[gap.before], gap))
            advance(1)
    return torch.cat(fields).clamp(-FIELD_LIMIT_PX, FIELD_LIMIT_PX).numpy()


def slice_field_of_gap(network: SliceNetwork, stack: Tensor, span_px: Tensor, gap: Gap) -> Tensor:
    """Distances (T, h, w) of one gap by the slice network, averaged over its eight symmetric views.

    A view upside down changes the sign of the odd coefficients, so that the coefficients can be averaged.
    """
    last = len(stack) - 1
    around = stack[[max(gap.before - 1, 0), gap.before, gap.before + 1, min(gap.before + 2, last)]]
    height, width = around.shape[1:]
    even = (height % 2, width % 2)
    view = functional.pad(around[None], (SLICE_PADDING, SLICE_PADDING + even[1], SLICE_PADDING, SLICE_PADDING + even[0]), mode="replicate")
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
                total = total + (found * _ODD_SIGNS if upside_down else found)
    inner = total[:, :, SLICE_PADDING : SLICE_PADDING + height, SLICE_PADDING : SLICE_PADDING + width] / 8
    return between(around[1][None], around[2][None], inner, torch.from_numpy(gap.fractions))[0]


def row_fields(network: RowNetwork, stack: Tensor, span_px: Tensor, gaps: list[Gap], advance: Advance) -> list[Tensor]:
    """Distances (T, h, w) of each gap by the row network: the mean over planes across the stack in four directions."""
    height, width = stack.shape[1:]
    straight = _two_directions(network, stack, span_px, gaps, advance)
    turned = _two_directions(network, _turned(stack, (height, width), forward=True), span_px, gaps, advance)
    return [(first + _turned(second, (height, width), forward=False)) / 2 for first, second in zip(straight, turned)]


def _turned(planes: Tensor, shape: tuple[int, int], forward: bool) -> Tensor:
    """Planes (A, H, W) of ``shape`` (H, W) turned by 45 degrees about their middle onto a square that holds them, or back from it."""
    side = _turned_side(*shape)
    cosine = math.sqrt(0.5) if forward else -math.sqrt(0.5)
    matrix = np.array([[abs(cosine), -cosine], [cosine, abs(cosine)]])
    source, target = (shape, (side, side)) if forward else ((side, side), shape)
    middles = (np.array(source) - 1) / 2, (np.array(target) - 1) / 2
    offset = middles[0] - matrix @ middles[1]
    turned = [affine_transform(plane, matrix, offset, output_shape=target, order=1, mode="nearest") for plane in planes.numpy()]
    return torch.from_numpy(np.stack(turned))


def _two_directions(network: RowNetwork, stack: Tensor, span_px: Tensor, gaps: list[Gap], advance: Advance) -> list[Tensor]:
    """Distances (T, h, w) of each gap: the mean over the planes along the rows and along the columns of the slices."""
    box = _filled_box(stack.numpy(), MARGIN_PX)
    inner = stack[:, box[0], box[1]]
    along_columns = _row_planes(network, inner.transpose(0, 1), span_px, gaps, advance)
    advance(sum(stack.shape[1:]) - sum(inner.shape[1:]))
    along_rows = _row_planes(network, inner.permute(2, 0, 1), span_px, gaps, advance)
    fields = []
    for gap, first, second in zip(gaps, along_columns, along_rows):
        found = torch.full((len(gap.rows), *stack.shape[1:]), -FIELD_LIMIT_PX)
        found[:, box[0], box[1]] = (first.transpose(0, 1) + second.permute(1, 2, 0)) / 2
        fields.append(found)
    return fields


def _row_planes(network: RowNetwork, planes: Tensor, span_px: Tensor, gaps: list[Gap], advance: Advance) -> list[Tensor]:
    """Distances (P, T, X) of each gap in planes (P, A, X) across the stack."""
    filled = torch.nonzero((planes >= 0).flatten(1).any(1))[:, 0]
    advance(len(planes) - len(filled))
    results = [torch.full((len(planes), len(gap.rows), planes.shape[2]), -FIELD_LIMIT_PX) for gap in gaps]
    around = torch.arange(-network.context, network.context + 1)
    for block in filled.split(_PLANES_AT_ONCE):
        needed, places = (block[:, None] + around).clamp(0, len(planes) - 1).unique(return_inverse=True)
        seen = torch.from_numpy(row_signed_distance(planes[needed].numpy()))[places]
        coefficients = _row_coefficients(network, seen, span_px.median().expand(len(block)))
        middle = seen[:, network.context]
        for gap, result in zip(gaps, results):
            k = gap.before
            result[block] = between(middle[:, k], middle[:, k + 1], coefficients[:, :, k], torch.from_numpy(gap.fractions))
        advance(len(block))
    return results


def _row_coefficients(network: RowNetwork, rows: Tensor, gap_px: Tensor) -> Tensor:
    """Coefficients (P, J, A - 1, X) of planes with their neighbours (P, C, A, X), the mean of both senses of all three axes."""
    turned = network(rows.flip(1, 2, 3), gap_px).flip(2, 3)
    return (network(rows, gap_px) + turned * _ODD_SIGNS) / 2
