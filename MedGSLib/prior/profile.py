"""The slice profile: over which extent, and with which weights, an acquired slice averages the patient along the stack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from MedGSLib.errors import InputError

ProfileKind = Literal["point", "box", "gaussian"]

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
GAUSSIAN_REACH = 2.5
"""A Gaussian profile is cut at this many standard deviations."""
NEGLIGIBLE_WEIGHT = 1e-6
MOST_GAPS = 8
"""Thickness, in slice gaps, up to which a profile is supported."""


@dataclass(frozen=True)
class SliceProfile:
    """Sensitivity of an acquired slice along the stack.

    :ivar kind: ``point`` (a thin sample), ``box`` (a plain average) or ``gaussian``.
    :ivar width: thickness of the box, or full width at half maximum of the Gaussian, in units of the slice gap; below 1 there are
        gaps between the slices, above 1 the slices overlap.
    """

    kind: ProfileKind = "point"
    width: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("point", "box", "gaussian"):
            raise InputError(f"The slice profile must be point, box or gaussian, not '{self.kind}'.")
        if self.kind != "point" and not (math.isfinite(self.width) and 0 < self.width <= MOST_GAPS):
            range_text = f"A slice thickness of {self.width:g} slice gaps is outside the supported range of 0 to {MOST_GAPS}"
            raise InputError(f"{range_text}; give a smaller --slice-thickness, or --slice-profile point to take the slices as thin.")

    def weights(self, factor: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The profile on the grid that divides each gap into ``factor`` sub-slices.

        A sub-slice stands for the cell of width 1/factor around it and is weighted by the profile's integral over that cell, so a
        box that ends in the middle of a cell (an even factor, a gap, an overlap) gives its outermost sub-slices a partial weight.

        :return: offsets (J,) in sub-slices from the slice centre, symmetric and increasing, and their weights (J,) with sum 1.
        """
        if self.kind == "point" or (self.kind == "box" and self.width * factor <= 1):
            return np.zeros(1, np.int64), np.ones(1)
        reach = self._half_extent(factor)
        last = max(math.ceil(reach - 0.5), 0)
        offsets = np.arange(-last, last + 1, dtype=np.int64)
        lower, upper = np.clip(offsets - 0.5, -reach, reach), np.clip(offsets + 0.5, -reach, reach)
        weights = np.array([self._integral(b, factor) - self._integral(a, factor) for a, b in zip(lower, upper, strict=True)])
        kept = weights > NEGLIGIBLE_WEIGHT * weights.max()
        return offsets[kept], weights[kept] / weights[kept].sum()

    def tiles_exactly(self, factor: int) -> bool:
        """Whether each sub-slice lies in exactly one acquired slice with equal weight, so consistency is a plain shift per slice."""
        offsets, weights = self.weights(factor)
        return len(offsets) == factor and bool(np.allclose(weights, 1.0 / factor, rtol=1e-3))

    @property
    def deviation(self) -> float:
        """Standard deviation in slice gaps, of a Gaussian that is not cut."""
        return {"point": 0.0, "box": self.width / math.sqrt(12.0), "gaussian": self.width / FWHM_PER_SIGMA}[self.kind]

    def _half_extent(self, factor: int) -> float:
        if self.kind == "box":
            return 0.5 * self.width * factor
        return GAUSSIAN_REACH * self.width * factor / FWHM_PER_SIGMA

    def _integral(self, position: float, factor: int) -> float:
        """Integral of the unnormalised profile from 0 to ``position`` sub-slices."""
        if self.kind == "box":
            return position
        return math.erf(position * FWHM_PER_SIGMA / (self.width * factor * math.sqrt(2.0)))
