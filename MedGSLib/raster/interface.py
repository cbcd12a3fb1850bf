"""What every rasterizer backend does and the constants that make the backends agree."""

from __future__ import annotations

import math
from typing import Protocol, get_args

from torch import Tensor

from MedGSLib.errors import InputError
from MedGSLib.gaussians import Blending, SlicedGaussians

ALPHA_MAX = 0.999
"""Highest alpha of one Gaussian in one pixel (gsplat's)."""

ALPHA_MIN = 1.0 / 255.0
"""A Gaussian is skipped in the pixels where its alpha is below this (gsplat's)."""

TRUNCATION = -2.0 * math.log(ALPHA_MIN)
"""A Gaussian ends where ``q = A dx^2 + 2 B dx dy + C dy^2`` reaches this (11.08, 3.3 standard deviations): there even an opacity of 1 has
fallen to :data:`ALPHA_MIN`, so that the cut of the normalised blending is also the farthest reach of the alpha blendings."""

TRANSMITTANCE_MIN = 1e-4
"""Compositing stops before the Gaussian that would let no more than this through (gsplat's)."""


BLENDINGS: frozenset[str] = frozenset(get_args(Blending))
"""Every blending there is."""


class Rasterizer(Protocol):
    """Renders the Gaussians of several slices, all heads in one pass."""

    name: str
    device: str
    blendings: frozenset[str]

    def rasterize(
        self, sliced: SlicedGaussians, height: int, width: int, *, blending: str, epsilon: float, background: float
    ) -> tuple[Tensor, Tensor]:
        """Features and weight of every pixel, differentiable in ``center``, ``conic``, ``weight`` and ``values``.

        With g = exp(-q / 2) inside the truncation and a the weight of a pair:

        - "normalized": ``(sum a g v + epsilon background) / (sum a g + epsilon)``, weight ``sum a g``;
        - "alpha": ``sum_i alpha_i T_i v_i + (1 - A) background`` in index order, with ``alpha = min(a g, 0.999)``, T the light let through
          so far and weight ``A = 1 - T``;
        - "alpha_normalized": ``(sum_i alpha_i T_i v_i + epsilon background) / (A + epsilon)``, weight A.

        :returns: features (S, height, width, C) and weight (S, height, width).
        :raises BackendError: when the backend cannot do the blending.
        """
        ...


def check_request(sliced: SlicedGaussians, height: int, width: int, blending: str) -> None:
    """Refuse what no backend can render.

    :raises InputError: on an empty image size or an unknown blending.
    """
    if height < 1 or width < 1 or sliced.channels < 1:
        raise InputError(f"An image of {height} by {width} pixels with {sliced.channels} channels cannot be rendered.")
    if blending not in BLENDINGS:
        raise InputError(f"The blending must be 'normalized', 'alpha' or 'alpha_normalized', not {blending!r}.")


def blended(composite: Tensor, alpha: Tensor, *, blending: str, epsilon: float, background: float) -> Tensor:
    """Features of the two alpha blendings.

    :param composite: (..., C) front-to-back composite over nothing.
    :param alpha: (...) accumulated alpha.
    """
    if blending == "alpha":
        return composite if background == 0 else composite + background * (1.0 - alpha[..., None])
    return (composite + epsilon * background) / (alpha[..., None] + epsilon)
