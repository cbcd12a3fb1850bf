"""The trained row network applied along the stack, on both families of planes that contain the stack direction."""

from __future__ import annotations

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
def predict(trained: TrainedPrior, slices: NDArray[np.float32], reporter: Reporter) -> DensePrediction:
    """Apply the network to all planes, in chunks of bounded memory.

    :param slices: (S, H, W) normalised.
    """
    network = trained.network
    count, height, width = slices.shape
    margin = (network.factor - 1) // 2 if network.averaged else 0
    depth = (count - 1) * network.factor + 1 + 2 * margin
    total = torch.zeros((depth, height, width))
    squares = torch.zeros_like(total)
    source = torch.from_numpy(np.ascontiguousarray(slices))
    reporter.start("prior", height + width, "predicting the slices in between")
    done = 0
    for axis, length in ((1, height), (2, width)):
        planes_at_once = _planes_at_once(network.head.in_channels, count, (height, width)[2 - axis], network.factor)
        for start in range(0, length, planes_at_once):
            here = slice(start, min(start + planes_at_once, length))
            planes = source[:, here].transpose(0, 1) if axis == 1 else source[:, :, here].permute(2, 0, 1)
            for upside_down in (False, True):
                rows = _dense_rows(trained, planes.flip(1) if upside_down else planes, margin)
                rows = rows.flip(1) if upside_down else rows
                window = (slice(None), here) if axis == 1 else (slice(None), slice(None), here)
                view = rows.transpose(0, 1) if axis == 1 else rows.permute(1, 2, 0)
                total[window] += view
                squares[window] += view * view
            done += here.stop - here.start
            reporter.step(done)
    total /= 4
    squares = squares.div_(4).addcmul_(total, total, value=-1).clamp_(min=0).sqrt_()
    if not network.averaged:
        squares[:: network.factor] = 0
    return DensePrediction(total.numpy(), squares.numpy(), margin)


def _dense_rows(trained: TrainedPrior, planes: Tensor, margin: int) -> Tensor:
    """Planes (B, S, X) to float32 (B, T, X) on the CPU."""
    network, precision = trained.network, trained.precision
    inputs = planes[:, None].to(precision.device).contiguous(memory_format=precision.layout)
    with precision():
        predicted = network(inputs)
    rows = predicted.transpose(1, 2)
    if network.averaged:
        first = network.factor // 2 - margin
        depth = (planes.shape[1] - 1) * network.factor + 1 + 2 * margin
        return rows.flatten(1, 2)[:, first : first + depth].cpu()
    before = inputs[:, 0, :-1, None]
    return torch.cat((torch.cat((before, rows), 2).flatten(1, 2), inputs[:, 0, -1:]), 1).cpu()


def _planes_at_once(channels: int, rows: int, columns: int, factor: int) -> int:
    per_plane = rows * columns * max(channels, factor) * LIVE_FEATURE_MAPS * torch.float32.itemsize
    return max(1, CHUNK_BYTES // per_plane)
