"""A trained row network applied along the stack, on both families of planes that contain the stack direction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from MedGSLib.prior.image_training import TrainedPrior
from MedGSLib.progress import Reporter

CHUNK_BYTES = 192 * 2**20
"""Memory that the feature maps of one chunk of planes may take."""
LIVE_FEATURE_MAPS = 3
VIEWS = 4
"""Row planes and column planes, each also upside down; twice as many where the slices are also turned."""


@dataclass(frozen=True)
class DensePrediction:
    """What the network says, averaged over its views of each voxel (row planes and column planes, each also upside down).

    :ivar image: float32 (T, H, W) from ``margin`` sub-slices before the first slice centre to ``margin`` behind the last.
    :ivar spread: float32 (T, H, W), standard deviation of the views.
    """

    image: NDArray[np.float32]
    spread: NDArray[np.float32]
    margin: int


@torch.no_grad()
def predict(trained: TrainedPrior, slices: NDArray[np.float32], reporter: Reporter, turned: bool = False) -> DensePrediction:
    """Apply the network to all planes, in chunks of bounded memory.

    :param slices: (S, H, W) normalised.
    :param turned: predict the slices turned by half a turn as well: twice the time, and up to 0.1 dB where there is little to learn from.
    """
    network = trained.network
    count, height, width = slices.shape
    margin = view_margin(trained)
    total = torch.zeros(((count - 1) * network.factor + 1 + 2 * margin, height, width))
    squares = torch.zeros_like(total)
    source = torch.from_numpy(np.ascontiguousarray(slices))
    turns = (False, True) if turned else (False,)
    reporter.start("prior", len(turns) * (height + width), "predicting the slices in between")
    done = 0
    for turn in turns:
        for axis, size in ((1, height), (2, width)):
            for here, rows in views(trained, source.flip(1, 2) if turn else source, axis):
                start = size - here.stop if turn else here.start
                rows = rows.flip(0, 2) if turn else rows
                total.narrow(axis, start, len(rows)).movedim(axis, 0).add_(rows)
                squares.narrow(axis, start, len(rows)).movedim(axis, 0).addcmul_(rows, rows)
                reporter.step(done + here.stop)
            done += size
    count_of_views = VIEWS * len(turns)
    total /= count_of_views
    squares = squares.div_(count_of_views).addcmul_(total, total, value=-1).clamp_(min=0).sqrt_()
    if not network.averaged:
        total[:: network.factor] = source
        squares[:: network.factor] = 0
    return DensePrediction(total.numpy(), squares.numpy(), margin)


@torch.no_grad()
def neighbouring_planes(
    trained: TrainedPrior, slices: NDArray[np.float32], axis: int, chosen: NDArray[np.int64], offsets: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The planes beside chosen acquired slices along the stack, as predicted from one family of planes alone.

    The rows of a slice along the other in-plane axis take no part in it, so they can be removed and learnt.

    :param slices: (S, H, W).
    :param axis: 1 for the planes of constant row, 2 for those of constant column.
    :param chosen: (N,), slice numbers.
    :param offsets: (C,), distances of the wanted planes in slice gaps, mirrored at the ends of the stack.
    :return: float32 (N, C, H, W).
    """
    network = trained.network
    last = (len(slices) - 1) * network.factor
    places = np.abs((chosen[:, None] + offsets[None, :]) * network.factor)
    places = np.clip(np.where(places > last, 2 * last - places, places), 0, last) + view_margin(trained)
    lower = torch.from_numpy(np.minimum(places.astype(np.int64), last + 2 * view_margin(trained) - 1).ravel())
    fraction = torch.from_numpy(places.ravel()).float().sub_(lower).view(1, -1, 1)
    source = torch.from_numpy(np.ascontiguousarray(slices))
    out = torch.zeros((len(chosen), len(offsets), *slices.shape[1:]))
    for here, rows in views(trained, source, axis):
        beside = torch.lerp(rows[:, lower], rows[:, lower + 1], fraction).unflatten(1, out.shape[:2])
        window = out.narrow(axis + 1, here.start, here.stop - here.start).movedim(axis + 1, 0)
        window += beside / 2
    return out.numpy()


def view_margin(trained: TrainedPrior) -> int:
    """Sub-slices that a view reaches beyond the outermost slice centres."""
    return (trained.network.factor - 1) // 2 if trained.network.averaged else 0


def views(trained: TrainedPrior, source: Tensor, axis: int) -> Iterator[tuple[slice, Tensor]]:
    """The dense planes of one family in chunks, first as they are and then predicted upside down.

    :param source: (S, H, W).
    :param axis: 1 for planes of constant row, 2 for planes of constant column.
    :return: the range along ``axis`` and the planes there (B, T, X), X being the other in-plane axis.
    """
    planes = source.movedim(axis, 0)
    count = len(planes)
    context = trained.network.context
    beside = torch.arange(-context, context + 1)
    at_once = _planes_at_once(trained, planes)
    for start in range(0, count, at_once):
        here = slice(start, min(start + at_once, count))
        chosen = (torch.arange(here.start, here.stop)[:, None] + beside).clamp_(0, count - 1)
        inputs = planes[chosen]
        for upside_down in (False, True):
            rows = _dense_rows(trained, inputs.flip(2) if upside_down else inputs)
            yield here, rows.flip(1) if upside_down else rows


def _dense_rows(trained: TrainedPrior, planes: Tensor) -> Tensor:
    """Planes (B, C, S, X) to float32 (B, T, X) of the middle plane on the CPU."""
    network, precision = trained.network, trained.precision
    inputs = planes.to(precision.device).contiguous(memory_format=precision.layout)
    with precision():
        predicted = network(inputs)
    rows = predicted.transpose(1, 2)
    if network.averaged:
        margin = view_margin(trained)
        first = network.factor // 2 - margin
        depth = (planes.shape[2] - 1) * network.factor + 1 + 2 * margin
        return rows.flatten(1, 2)[:, first : first + depth].cpu()
    acquired = inputs[:, network.context]
    return torch.cat((torch.cat((acquired[:, :-1, None], rows), 2).flatten(1, 2), acquired[:, -1:]), 1).cpu()


def _planes_at_once(trained: TrainedPrior, planes: Tensor) -> int:
    channels = max(trained.network.head.in_channels, trained.network.factor)
    per_plane = planes[0].numel() * channels * LIVE_FEATURE_MAPS * torch.float32.itemsize
    return max(1, CHUNK_BYTES // per_plane)
