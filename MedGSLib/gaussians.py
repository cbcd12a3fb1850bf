"""Folded Gaussians: 2-D Gaussians that drift, fade and blend along a stack of slices, and their cut through given slices.

A Gaussian has an in-plane centre, two in-plane scales, an angle, a position m and a spread sigma along the stack, a drift polynomial,
a weight and C head values. In the slice at t, with d = m - t, its centre is ``center + sum_k drift_k d^k`` (MedGS, arXiv 2509.16806) and
its stack factor is ``exp(-d^2 / (2 sigma^2))``. With degree 1 and the amplitude fold that is exactly a slice through a full 3-D Gaussian.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from MedGSLib.errors import InputError

Fold = Literal["amplitude", "shrink"]
Blending = Literal["normalized", "alpha", "alpha_normalized"]

PARAMETER_NAMES = ("center", "log_scale", "angle", "position", "log_spread", "drift", "log_weight", "values")
"""Names of the learned tensors of :class:`FoldedGaussians`, in the order of its constructor."""

MAX_DEGREE = 7
"""Highest degree of the drift polynomial (the degree of the paper's joint runs)."""

SHRINK_LIMIT = 0.1
"""With the shrink fold a Gaussian is left out of the slices where its stack factor is not above this."""

_SHRINK_REACH = math.sqrt(-2.0 * math.log(SHRINK_LIMIT))
_CULL_ELEMENTS = 1 << 22

HAS_NUMBA = importlib.util.find_spec("numba") is not None
"""Whether there are kernels for the CPU."""


@dataclass(frozen=True)
class FoldSettings:
    """How Gaussians are folded through the stack and blended in a slice.

    :param degree: degree of the drift polynomial, 0 to 7.
    :param fold: "amplitude" multiplies the weight by the stack factor; "shrink" (the paper's) multiplies both in-plane scales by it.
    :param blending: "normalized" is the weighted mean; "alpha" is front-to-back compositing over the background; "alpha_normalized" is
        the composite divided by its accumulated alpha.
    :param cutoff: a Gaussian takes part in the slices with ``|t - m| < cutoff * sigma``.
    :param epsilon: weight of the background in the two normalised blendings.
    :param background: value of every head where there is no Gaussian.
    :raises InputError: when a setting is out of range.
    """

    degree: int = 1
    fold: Fold = "amplitude"
    blending: Blending = "normalized"
    cutoff: float = 3.0
    epsilon: float = 1e-3
    background: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.degree <= MAX_DEGREE:
            raise InputError(f"The degree of the drift polynomial must be between 0 and {MAX_DEGREE}, not {self.degree}.")
        if self.fold not in ("amplitude", "shrink"):
            raise InputError(f"The fold must be 'amplitude' or 'shrink', not {self.fold!r}.")
        if self.blending not in ("normalized", "alpha", "alpha_normalized"):
            raise InputError(f"The blending must be 'normalized', 'alpha' or 'alpha_normalized', not {self.blending!r}.")
        if self.cutoff <= 0 or self.epsilon <= 0:
            raise InputError("The cutoff and the epsilon of the blending must be above zero.")

    @property
    def reach(self) -> float:
        """Distance along the stack, in spreads, up to which a Gaussian takes part in a slice."""
        return min(self.cutoff, _SHRINK_REACH) if self.fold == "shrink" else self.cutoff


@dataclass
class SlicedGaussians:
    """The M (slice, Gaussian) pairs of S slices, sorted by slice and, in a slice, by Gaussian.

    :param slice_start: (S + 1,) int64, the pairs of slice s are ``slice_start[s]:slice_start[s + 1]``.
    :param slice_index: (M,) int64.
    :param gaussian_index: (M,) int64.
    :param center: (M, 2) px (x, y).
    :param conic: (M, 3) entries A, B, C of ``q = A dx^2 + 2 B dx dy + C dy^2`` in px^-2; the Gaussian is ``exp(-q / 2)``.
    :param weight: (M,) weight (normalised blending) or opacity (alpha blendings) at the centre.
    :param values: (M, C) head values.
    """

    slice_start: Tensor
    slice_index: Tensor
    gaussian_index: Tensor
    center: Tensor
    conic: Tensor
    weight: Tensor
    values: Tensor

    @property
    def slices(self) -> int:
        """Number of slices S."""
        return self.slice_start.numel() - 1

    @property
    def channels(self) -> int:
        """Number of heads C."""
        return self.values.shape[1]


class FoldedGaussians(nn.Module):
    """N folded Gaussians with C head values each; every tensor is a parameter.

    :param center: (N, 2) px (x, y), pixel centres at integers.
    :param log_scale: (N, 2) ln px, standard deviations along the rotated axes.
    :param angle: (N,) rad, from x towards y.
    :param position: (N,) stack coordinate t (units of the slice gap).
    :param log_spread: (N,) ln of the spread in units of t.
    :param drift: (N, degree, 2) px / t^k for k = 1 .. degree.
    :param log_weight: (N,) log weight (normalised blending) or logit of the opacity (alpha blendings).
    :param values: (N, C) head values, image first if there is one, then the labels.
    :param settings: fold and blending.
    :raises InputError: when the shapes do not fit each other or the degree.
    """

    center: Tensor
    log_scale: Tensor
    angle: Tensor
    position: Tensor
    log_spread: Tensor
    drift: Tensor
    log_weight: Tensor
    values: Tensor

    def __init__(
        self,
        center: Tensor,
        log_scale: Tensor,
        angle: Tensor,
        position: Tensor,
        log_spread: Tensor,
        drift: Tensor,
        log_weight: Tensor,
        values: Tensor,
        settings: FoldSettings | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings or FoldSettings()
        tensors = (center, log_scale, angle, position, log_spread, drift, log_weight, values)
        _check_shapes(dict(zip(PARAMETER_NAMES, tensors)), self.settings.degree)
        for name, tensor in zip(PARAMETER_NAMES, tensors):
            self.register_parameter(name, nn.Parameter(tensor.detach().clone()))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], settings: FoldSettings) -> FoldedGaussians:
        """Gaussians with the tensors of ``state_dict()``.

        :raises InputError: when a tensor is missing or misshapen.
        """
        missing = [name for name in PARAMETER_NAMES if name not in state]
        if missing:
            raise InputError(f"The Gaussians cannot be restored because {', '.join(missing)} is missing.")
        return cls(**{name: state[name] for name in PARAMETER_NAMES}, settings=settings)

    def __len__(self) -> int:
        return self.position.shape[0]

    @property
    def channels(self) -> int:
        """Number of heads C."""
        return self.values.shape[1]

    def subset(self, keep: Tensor) -> FoldedGaussians:
        """New Gaussians with the rows of ``keep`` (bool mask (N,) or int64 indices)."""
        return FoldedGaussians(**{name: getattr(self, name)[keep] for name in PARAMETER_NAMES}, settings=self.settings)

    @staticmethod
    def cat(parts: Iterable[FoldedGaussians]) -> FoldedGaussians:
        """New Gaussians with the rows of all parts, in order; the settings are those of the first."""
        models = list(parts)
        tensors = {name: torch.cat([getattr(model, name).detach() for model in models]) for name in PARAMETER_NAMES}
        return FoldedGaussians(**tensors, settings=models[0].settings)

    def at(self, t: Tensor) -> SlicedGaussians:
        """Cut through the slices at t, differentiable in every parameter.

        :param t: (S,) stack coordinates in any order.
        :returns: the pairs with ``|t - m| < settings.reach * sigma``.
        """
        t = t.to(dtype=self.position.dtype, device=self.position.device)
        slice_index, gaussian_index = _near_pairs(t, self.position.detach(), self.log_spread.detach().exp() * self.settings.reach)
        starts = torch.searchsorted(slice_index, torch.arange(t.numel() + 1, device=t.device))
        cut = self._cut_by_kernel if t.device.type == "cpu" and HAS_NUMBA else self._cut
        center, conic, weight, values = cut(t, starts, slice_index, gaussian_index)
        return SlicedGaussians(
            slice_start=starts,
            slice_index=slice_index,
            gaussian_index=gaussian_index,
            center=center,
            conic=conic,
            weight=weight,
            values=values,
        )

    def _cut_by_kernel(self, t: Tensor, starts: Tensor, slice_index: Tensor, gaussian_index: Tensor) -> tuple[Tensor, ...]:
        """What :meth:`_cut` does, in one pass."""
        from MedGSLib.raster.cut_cpu import Cut

        tensors = (getattr(self, name) for name in PARAMETER_NAMES)
        kinds = self.settings.fold == "shrink", self.settings.blending != "normalized"
        return Cut.apply(*tensors, t, starts, slice_index, gaussian_index, *kinds)

    def _cut(self, t: Tensor, _starts: Tensor, slice_index: Tensor, gaussian_index: Tensor) -> tuple[Tensor, ...]:
        """Centre, conic, weight and values of the pairs."""
        pair = _PairParameters.gather(self, gaussian_index)
        distance = pair.position - t.index_select(0, slice_index)
        exponent = -0.5 * (distance * torch.exp(-pair.log_spread)) ** 2
        shrinks = self.settings.fold == "shrink"
        log_scale = pair.log_scale + exponent[:, None] if shrinks else pair.log_scale
        weight = _pair_weight(pair.log_weight, None if shrinks else exponent, self.settings.blending)
        return _drifted(pair.center, pair.drift, distance), _conic(log_scale, pair.angle), weight, pair.values


@dataclass
class _PairParameters:
    """The parameters of the Gaussian of each pair, (M, ...) each."""

    center: Tensor
    log_scale: Tensor
    angle: Tensor
    position: Tensor
    log_spread: Tensor
    drift: Tensor
    log_weight: Tensor
    values: Tensor

    @classmethod
    def gather(cls, gaussians: FoldedGaussians, index: Tensor) -> _PairParameters:
        """One gather of all parameters side by side: its gradient is one scatter instead of eight."""
        tensors = [getattr(gaussians, name) for name in PARAMETER_NAMES]
        columns = [tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None] for tensor in tensors]
        rows = torch.cat(columns, dim=1).index_select(0, index)
        parts = rows.split([column.shape[1] for column in columns], dim=1)
        return cls(*(part.reshape(index.numel(), *tensor.shape[1:]) for part, tensor in zip(parts, tensors)))


def _check_shapes(tensors: dict[str, Tensor], degree: int) -> None:
    count = tensors["position"].shape[0]
    heads = tensors["values"].shape[-1]
    expected = {
        "center": (count, 2),
        "log_scale": (count, 2),
        "angle": (count,),
        "position": (count,),
        "log_spread": (count,),
        "drift": (count, degree, 2),
        "log_weight": (count,),
        "values": (count, heads),
    }
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise InputError(f"The Gaussians' {name} has the shape {tuple(tensors[name].shape)} where {shape} is needed.")


def _near_pairs(t: Tensor, position: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """(slice, Gaussian) indices with ``|t - position| < reach``, by slice, a bounded number of comparisons at a time."""
    rows = max(1, _CULL_ELEMENTS // max(1, position.numel()))
    found = [((block[:, None] - position[None, :]).abs() < reach).nonzero() for block in t.split(rows)]
    slices = [pairs[:, 0] + number * rows for number, pairs in enumerate(found)]
    return torch.cat(slices), torch.cat([pairs[:, 1] for pairs in found])


def _drifted(center: Tensor, drift: Tensor, distance: Tensor) -> Tensor:
    """``center + sum_k drift_k distance^k`` by Horner's rule; (M, 2)."""
    degree = drift.shape[1]
    if degree == 0:
        return center
    offset = drift[:, degree - 1]
    for power in range(degree - 2, -1, -1):
        offset = drift[:, power] + distance[:, None] * offset
    return center + distance[:, None] * offset


def _conic(log_scale: Tensor, angle: Tensor) -> Tensor:
    """Inverse covariance (A, B, C) of scales and angle; (M, 3) px^-2."""
    inverse = torch.exp(-2.0 * log_scale)
    first, second = inverse.unbind(1)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    along, across, product = cosine * cosine, sine * sine, cosine * sine
    return torch.stack((along * first + across * second, product * (first - second), across * first + along * second), dim=1)


def _pair_weight(log_weight: Tensor, exponent: Tensor | None, blending: Blending) -> Tensor:
    if blending == "normalized":
        return torch.exp(log_weight if exponent is None else log_weight + exponent)
    opacity = torch.sigmoid(log_weight)
    return opacity if exponent is None else opacity * torch.exp(exponent)
