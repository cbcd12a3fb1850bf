"""The row network for any slice distance, learnt from synthetic anatomy: where the patient's own network starts, and its second opinion.

The weights of a :class:`~MedGSLib.prior.network.RowNetwork` are taken to be linear in the logarithm of the slice gap in pixels, and its
output to be a sine series in the position within the gap, which vanishes on the slices. One set of weights thus gives a plain row network
for each gap and each number of sub-slices.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from MedGSLib.errors import InputError
from MedGSLib.prior.network import RowNetwork

WEIGHTS_PATH = Path(__file__).with_name("general_weights.safetensors")
CHANNELS, DEPTH, CONTEXT = 64, 8, 2
"""Size of the shipped network."""
SINES = 6
MIDDLE_GAP_PX, GAP_SPREAD = 4.0, 2.5
"""Gaps from the middle one divided by the spread to the middle one times the spread are interpolated; others count as the nearest."""


class RowNetworkFamily(nn.Module):
    """Row networks of one size for all slice gaps.

    :param channels: of each network; :param depth: its convolutions.
    """

    def __init__(self, channels: int = CHANNELS, depth: int = DEPTH) -> None:
        super().__init__()
        self.middle = RowNetwork(SINES + 1, channels, depth, CONTEXT)
        self.slope = RowNetwork(SINES + 1, channels, depth, CONTEXT)
        for parameter in self.slope.parameters():
            nn.init.zeros_(parameter)

    def weights(self, gap_px: float, factor: int) -> dict[str, Tensor]:
        """State of ``RowNetwork(factor, channels, depth, CONTEXT)`` for slices ``gap_px`` in-plane pixels apart."""
        place = min(max(math.log(gap_px / MIDDLE_GAP_PX) / math.log(GAP_SPREAD), -1.0), 1.0)
        slopes = dict(self.slope.named_parameters())
        state = {name: value + place * slopes[name] for name, value in self.middle.named_parameters()}
        sines = torch.sin(math.pi * torch.outer(torch.arange(1, factor) / factor, torch.arange(1, SINES + 1)))
        for name in ("head.weight", "head.bias"):
            state[name] = torch.tensordot(sines, state[name], 1)
        return state


def general_weights(gap_px: float, factor: int) -> dict[str, Tensor]:
    """What ``RowNetwork(factor, CHANNELS, DEPTH, CONTEXT)`` has learnt from synthetic anatomy, float32.

    :param gap_px: slice gap over in-plane pixel size.
    :raises InputError: if the shipped file is absent or damaged.
    """
    with torch.no_grad():
        return load_family().weights(gap_px, factor)


def save_family(family: RowNetworkFamily, path: Path, provenance: dict[str, object]) -> None:
    """Write the networks as float16 safetensors; ``provenance`` (how they were trained) goes into the header as JSON."""
    tensors = {name: value.half().contiguous() for name, value in family.state_dict().items()}
    save_file(tensors, path, {"provenance": json.dumps(provenance, sort_keys=True)})


@lru_cache(maxsize=1)
def load_family(path: Path = WEIGHTS_PATH) -> RowNetworkFamily:
    """The trained networks.

    :raises InputError: if the file is absent or not what :func:`save_family` wrote.
    """
    family = RowNetworkFamily()
    try:
        with safe_open(path, framework="pt") as file:
            family.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"The general network of this installation cannot be read from {path}; please reinstall MedGS.") from error
    return family
