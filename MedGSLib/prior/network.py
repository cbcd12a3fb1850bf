"""The small convolutional network that fills in the rows between the rows it sees, and how it is run on each machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAK = 0.1


class RowNetwork(nn.Module):
    """Rows of a plane, one per acquired slice, to the rows of all sub-slices: linear interpolation plus a learnt residual.

    :param factor: sub-slices per gap.
    :param context: neighbouring planes that are seen on each side of the plane.
    :param channels: feature channels.
    :param depth: convolutions, the output layer included.
    :param averaged: False for point-like slices, where the rows between two neighbours are wanted; True for thick slices, where
        all ``factor`` sub-rows of each slice are wanted.
    :param exact: only with ``averaged``: shift the sub-rows of each slice so that their mean is the acquired row.
    """

    def __init__(self, factor: int, channels: int, depth: int, context: int = 0, averaged: bool = False, exact: bool = False) -> None:
        super().__init__()
        self.factor, self.context, self.averaged, self.exact = factor, context, averaged, exact
        first = nn.Conv2d(2 * context + 1, channels, (3, 5), padding=(1, 2), padding_mode="replicate" if averaged else "zeros")
        layers: list[nn.Module] = [first, nn.LeakyReLU(LEAK)]
        for index in range(1, depth - 1):
            kernel, padding = ((3, 5), (1, 2)) if index % 2 else ((3, 3), (1, 1))
            layers += [nn.Conv2d(channels, channels, kernel, padding=padding), nn.LeakyReLU(LEAK)]
        self.features = nn.Sequential(*layers)
        if averaged:
            self.head = nn.Conv2d(channels, factor, 3, padding=1)
        else:
            self.head = nn.Conv2d(channels, factor - 1, (2, 3), padding=(0, 1))
        nn.init.zeros_(self.head.weight)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def hidden_and_other_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The weights of the convolutions between the first and the last, and all the rest."""
        hidden = [value for name, value in self.features.named_parameters() if value.ndim == 4 and name != "0.weight"]
        known = {id(parameter) for parameter in hidden}
        return hidden, [parameter for parameter in self.parameters() if id(parameter) not in known]

    def start_from(self, draft: RowNetwork) -> None:
        """Take over the weights of a network without context; the neighbouring planes count for nothing yet."""
        weights = draft.state_dict()
        first = torch.zeros_like(self.features[0].weight)  # type: ignore[arg-type]
        first[:, self.context] = weights["features.0.weight"][:, 0]
        self.load_state_dict({**weights, "features.0.weight": first})

    def forward(self, planes: Tensor) -> Tensor:
        """The sub-rows of the middle plane.

        :param planes: (B, 2 * context + 1, R, X), neighbouring planes in order.
        :return: float32 (B, factor - 1, R - 1, X), or (B, factor, R, X) with ``averaged``.
        """
        residual = self.head(self.features(planes)).float()
        rows = planes[:, self.context : self.context + 1]
        if not self.averaged:
            fraction = torch.arange(1, self.factor, device=rows.device).view(1, -1, 1, 1) / self.factor
            return torch.lerp(rows[:, :, :-1], rows[:, :, 1:], fraction) + residual
        out = self._linear_sub_rows(rows) + residual
        return out + rows - out.mean(1, keepdim=True) if self.exact else out

    def _linear_sub_rows(self, rows: Tensor) -> Tensor:
        offset = torch.arange(self.factor, device=rows.device) - self.factor // 2
        fraction = (offset / self.factor).view(1, -1, 1, 1)
        padded = functional.pad(rows, (0, 0, 1, 1), mode="replicate")
        before, after = padded[:, :, :-2], padded[:, :, 2:]
        return rows + torch.where(fraction < 0, -fraction * (before - rows), fraction * (after - rows))


class Precision:
    """How the network is run: bfloat16 where the processor multiplies in it natively, channels-last with it, else plain float32.

    :param device: torch device of the network.
    :param reduced: whether bfloat16 is wanted at all.
    """

    def __init__(self, device: torch.device, reduced: bool) -> None:
        self.device = device
        self.reduced = reduced and multiplies_bfloat16(device)
        self.layout = torch.channels_last if self.reduced or device.type == "cuda" else torch.contiguous_format

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Within it, the network's arithmetic is the chosen one."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.reduced):
            yield


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are native, and hence faster, on ``device``."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in checks)
