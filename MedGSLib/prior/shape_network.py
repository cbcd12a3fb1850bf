"""Two small networks that know from synthetic shapes how a surface runs between slices.

Both predict, for every pixel of a gap between neighbouring slices, how surely it is inside (log odds, positive inside) as a function of
the position t in the gap, starting from the signed distances of the slices:

    d(t) = (1 - t) d0 + t d1 + 4 t (1 - t) sum_j c_j (2 t - 1)^j

so that they reproduce the slices themselves and start from linear interpolation. :class:`SliceNetwork` sees four whole neighbouring
slices; :class:`RowNetwork` sees a plane across the stack, in which each slice is one row, and the planes beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from MedGSLib.errors import InputError

WEIGHTS_PATH = Path(__file__).with_name("shape_weights.safetensors")
SLICE_LIMIT_PX = 16.0
ROW_LIMIT_PX = 8.0
COEFFICIENTS = 4
SLICE_PADDING = 8
_SLOPE = 0.1


def between(before: Tensor, after: Tensor, coefficients: Tensor, t: Tensor) -> Tensor:
    """The distances at positions ``t`` of a gap.

    :param before: (B, ...) distances of the slice at t = 0; :param after: those at t = 1.
    :param coefficients: (B, J, ...) of the polynomial correction.
    :param t: (T,), or (B, T) where each gap has its own.
    :return: (B, T, ...).
    """
    t = t.expand(len(before), -1)
    powers = (2 * t - 1)[..., None] ** torch.arange(coefficients.shape[1], device=t.device)
    correction = torch.einsum("btj,bj...->bt...", powers * (4 * t * (1 - t))[..., None], coefficients)
    return torch.lerp(before[:, None], after[:, None], t.reshape(*t.shape, *(1,) * (before.ndim - 1))) + correction


def _gap_plane(gap_px: Tensor, like: Tensor) -> Tensor:
    """The gap (B,) in pixels as one more input channel, about 0 to 1."""
    return (torch.log2(gap_px) / 4).view(-1, 1, 1, 1).expand(-1, 1, *like.shape[-2:]).to(like)


def _zero(layer: nn.Conv2d) -> None:
    """Start from linear interpolation."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class SliceNetwork(nn.Module):
    """Coefficients of a gap from the distances of the two slices on either side of it.

    :param channels: width of the hidden layers.
    """

    DILATIONS = (1, 2, 4, 8, 4, 2, 1)

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.head = nn.Conv2d(17, channels, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in self.DILATIONS)
        self.tail = nn.Conv2d(channels, 4 * COEFFICIENTS, 3, padding=1)
        _zero(self.tail)

    def forward(self, slices: Tensor, gap_px: Tensor) -> Tensor:
        """:param slices: (B, 4, H, W) distances in px, H and W even; :param gap_px: (B,). :return: (B, J, H, W) coefficients in px."""
        packed = functional.pixel_unshuffle(slices.clamp(-SLICE_LIMIT_PX, SLICE_LIMIT_PX) / 6, 2)
        hidden = functional.leaky_relu(self.head(torch.cat([packed, _gap_plane(gap_px, packed)], 1)), _SLOPE)
        for block in self.blocks:
            hidden = hidden + functional.leaky_relu(block(hidden), _SLOPE)
        return 6 * functional.pixel_shuffle(self.tail(hidden), 2).float()


class RowNetwork(nn.Module):
    """Coefficients of all gaps of a plane across the stack from the distances along the rows of it and of its neighbours.

    :param channels: width of the hidden layers; :param depth: number of convolutions with the last.
    :param context: neighbouring planes that are seen on each side of the plane.
    """

    def __init__(self, channels: int = 64, depth: int = 8, context: int = 2) -> None:
        super().__init__()
        self.context = context
        self.head = nn.Conv2d(2 * context + 2, channels, (3, 5), padding=(1, 2))
        sizes = [(3, 5) if index % 2 == 0 else (3, 3) for index in range(depth - 2)]
        self.blocks = nn.ModuleList(nn.Conv2d(channels, channels, size, padding=(1, size[1] // 2)) for size in sizes)
        self.tail = nn.Conv2d(channels, COEFFICIENTS, (2, 3), padding=(0, 1))
        _zero(self.tail)

    def forward(self, rows: Tensor, gap_px: Tensor) -> Tensor:
        """Coefficients of the middle plane.

        :param rows: (B, 2 * context + 1, R, W), neighbouring planes in order, distances along rows in px. :param gap_px: (B,).
        :return: (B, J, R - 1, W) in px.
        """
        scaled = rows.clamp(-ROW_LIMIT_PX, ROW_LIMIT_PX) / 4
        hidden = functional.leaky_relu(self.head(torch.cat([scaled, _gap_plane(gap_px, scaled)], 1)), _SLOPE)
        for block in self.blocks:
            hidden = hidden + functional.leaky_relu(block(hidden), _SLOPE)
        return 4 * self.tail(hidden).float()


def save_networks(slices: SliceNetwork, rows: RowNetwork, path: Path, provenance: dict[str, object]) -> None:
    """Write both networks as float16 safetensors; ``provenance`` (how they were trained) goes into the header as JSON."""
    tensors = {f"slices.{name}": value.half().contiguous() for name, value in slices.state_dict().items()}
    tensors |= {f"rows.{name}": value.half().contiguous() for name, value in rows.state_dict().items()}
    save_file(tensors, path, {"provenance": json.dumps(provenance, sort_keys=True)})


def load_networks(path: Path = WEIGHTS_PATH) -> tuple[SliceNetwork, RowNetwork]:
    """The trained networks, float32, ready for inference.

    :raises InputError: if the file is absent or not what :func:`save_networks` wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a mapping)
        row_depth = 2 + sum(name.startswith("rows.blocks.") and name.endswith(".weight") for name in weights)
        slices = SliceNetwork(weights["slices.head.weight"].shape[0])
        channels, planes = weights["rows.head.weight"].shape[:2]
        rows = RowNetwork(channels, row_depth, (planes - 2) // 2)
        for prefix, network in (("slices.", slices), ("rows.", rows)):
            network.load_state_dict({name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)})
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(f"The shape network of this installation cannot be read from {path}; please reinstall MedGS.") from error
    return slices.eval(), rows.eval()


def row_signed_distance(distances: np.ndarray) -> np.ndarray:
    """Signed distance along the last axis only, in px, clipped at 8, from the zero crossings of a 2-D signed distance.

    A plane across the stack may know nothing of what lies beside it, hence one dimension.

    :param distances: (..., W), positive inside. :return: float32 (..., W).
    """
    inside = distances >= 0
    left, right = distances[..., :-1], distances[..., 1:]
    changes = inside[..., :-1] != inside[..., 1:]
    width = distances.shape[-1]
    index = np.arange(width, dtype=np.float64)
    fraction = np.divide(left, left - right, out=np.zeros(left.shape), where=changes)
    crossing = index[:-1] + fraction
    edge = np.full((*distances.shape[:-1], 1), np.inf)
    before = np.concatenate([-edge, np.maximum.accumulate(np.where(changes, crossing, -np.inf), axis=-1)], axis=-1)
    after_reversed = np.minimum.accumulate(np.where(changes, crossing, np.inf)[..., ::-1], axis=-1)
    after = np.concatenate([after_reversed[..., ::-1], edge], axis=-1)
    reach = np.minimum(np.minimum(index - before, after - index), ROW_LIMIT_PX)
    return np.where(inside, reach, -reach).astype(np.float32)
