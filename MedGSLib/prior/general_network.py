"""The general networks: what rows between rows look like in synthetic anatomy, for any slice gap, as a start for each patient's network.

There is one family of :class:`~MedGSLib.prior.network.RowNetwork` for slices that are points and one for slices that are averages. Its
weights are taken to be linear in the logarithm of the slice gap in pixels, those of averages, the hidden convolutions apart, also in the
width of their profile. The output is a sum of smooth functions of the position: within the gap sines, which vanish on the slices, or
within the slice Legendre polynomials. One set of weights thus gives a plain row network for each gap and each number of sub-slices.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.polynomial.legendre import legvander
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from MedGSLib.errors import InputError
from MedGSLib.prior.network import RowNetwork
from MedGSLib.prior.profile import SliceProfile

POINTS_PATH = Path(__file__).with_name("general_weights.safetensors")
AVERAGES_PATH = Path(__file__).with_name("general_weights_thick.safetensors")
CHANNELS, DEPTH, CONTEXT = 64, 8, 2
"""Size of the shipped networks."""
FUNCTIONS = 6
"""Sines, or polynomials, of the position."""
MIDDLE_GAP_PX, GAP_SPREAD = 4.0, 2.5
"""Gaps from the middle one divided by the spread to the middle one times the spread are interpolated; others count as the nearest."""
MIDDLE_DEVIATION, DEVIATION_SPREAD = 0.3, 0.2
"""The same for standard deviations of the slice profile in gaps: 0.29 is a box as wide as the gap."""


class RowNetworkFamily(nn.Module):
    """Row networks of one size for all slice gaps.

    :param channels: of each network; :param depth: its convolutions.
    :param averaged: for slices that are averages, of all profiles.
    """

    def __init__(self, channels: int = CHANNELS, depth: int = DEPTH, averaged: bool = False) -> None:
        super().__init__()
        self.averaged = averaged
        outputs = FUNCTIONS if averaged else FUNCTIONS + 1
        self.middle, self.slope = (RowNetwork(outputs, channels, depth, CONTEXT, averaged) for _ in range(2))
        for parameter in self.slope.parameters():
            nn.init.zeros_(parameter)
        hidden = {id(weight) for weight in self.middle.hidden_and_other_parameters()[0]}
        self._widened = [name for name, value in self.middle.named_parameters() if averaged and id(value) not in hidden]
        others = dict(self.middle.named_parameters())
        self.widening = nn.ParameterList([torch.zeros_like(others[name]) for name in self._widened])

    def weights(self, gap_px: float, factor: int, profile: SliceProfile | None = None) -> dict[str, Tensor]:
        """State of ``RowNetwork(factor, channels, depth, CONTEXT, averaged)`` for slices ``gap_px`` in-plane pixels apart.

        :param profile: of averages; a box as wide as the gap by default.
        """
        place = _clipped(math.log(gap_px / MIDDLE_GAP_PX) / math.log(GAP_SPREAD))
        slopes = dict(self.slope.named_parameters())
        state = {name: value + place * slopes[name] for name, value in self.middle.named_parameters()}
        if self.averaged:
            profile = profile or SliceProfile("box", 1.0)
            width = _clipped((profile.deviation - MIDDLE_DEVIATION) / DEVIATION_SPREAD)
            for name, change in zip(self._widened, self.widening, strict=True):
                state[name] = state[name] + width * change
        functions = _polynomials(factor) if self.averaged else _sines(factor)
        for name in ("head.weight", "head.bias"):
            state[name] = torch.tensordot(functions, state[name], 1)
        return state


def _clipped(place: float) -> float:
    return min(max(place, -1.0), 1.0)


def _sines(factor: int) -> Tensor:
    """(factor - 1, FUNCTIONS) at the sub-slices between two slices."""
    return torch.sin(math.pi * torch.outer(torch.arange(1, factor) / factor, torch.arange(1, FUNCTIONS + 1)))


def _polynomials(factor: int) -> Tensor:
    """(factor, FUNCTIONS) at the sub-slices round a slice, half a gap to either side."""
    offsets = np.arange(factor) - factor // 2
    return torch.from_numpy(legvander(2.0 * offsets / factor, FUNCTIONS - 1)).float()


def general_weights(gap_px: float, factor: int, profile: SliceProfile | None = None) -> dict[str, Tensor]:
    """What ``RowNetwork(factor, CHANNELS, DEPTH, CONTEXT)`` has learnt from synthetic anatomy, float32.

    :param gap_px: slice gap over in-plane pixel size.
    :param profile: of slices that are averages; None for points.
    :raises InputError: if the shipped file is absent or damaged.
    """
    averaged = profile is not None and profile.kind != "point"
    with torch.no_grad():
        return load_family(averaged).weights(gap_px, factor, profile)


def save_family(family: RowNetworkFamily, path: Path, provenance: dict[str, object]) -> None:
    """Write the networks as float16 safetensors; ``provenance`` (how they were trained) goes into the header as JSON."""
    tensors = {name: value.half().contiguous() for name, value in family.state_dict().items()}
    save_file(tensors, path, {"provenance": json.dumps(provenance, sort_keys=True)})


@lru_cache(maxsize=2)
def load_family(averaged: bool = False, path: Path | None = None) -> RowNetworkFamily:
    """The trained networks, those that are shipped by default.

    :raises InputError: if the file is absent or not what :func:`save_family` wrote.
    """
    family = RowNetworkFamily(averaged=averaged)
    path = path or (AVERAGES_PATH if averaged else POINTS_PATH)
    try:
        with safe_open(path, framework="pt") as file:
            family.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"The general network of this installation cannot be read from {path}; please reinstall MedGS.") from error
    return family
