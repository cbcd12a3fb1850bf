"""Carries mask slices along the motion of the image: optical flow between neighbouring image slices, chained over many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from MedGSLib.prior.flow import optical_flow
from MedGSLib.progress import Reporter

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Carried:
    """What one annotated slice looks like when carried to another: its distances, its intensities and the displacement used."""

    distances: Plane
    image: Plane
    flow: Plane


class MotionChain:
    """Displacements from every image slice to the annotated ones around it.

    :param image: (S, H, W), normalised; slices between the annotated ones are real.
    :param annotated: (A,) indices of annotated slices, increasing.
    :param distances: (A, H, W) of those slices.
    """

    def __init__(self, image: Plane, annotated: NDArray[np.int64], distances: Plane, reporter: Reporter | None = None) -> None:
        self._image = image
        self._annotated = annotated
        self._distances = distances
        self._grid = np.mgrid[: image.shape[1], : image.shape[2]].astype(np.float32)
        self._flows = {-1: self._chain(-1, reporter), 1: self._chain(1, reporter)}

    def _chain(self, direction: int, reporter: Reporter | None) -> list[Plane | None]:
        """For each slice the displacement to the nearest annotated slice before (-1) or after (+1) it; at an annotated slice to the next.

        ``f_s(x) = u(x) + f_n(x + u(x))`` with u the flow to the neighbour n, whose own chain is already known.
        """
        count = len(self._image)
        flows: list[Plane | None] = [None] * count
        order = range(count) if direction < 0 else range(count - 1, -1, -1)
        known = set(self._annotated.tolist())
        for done, index in enumerate(order):
            neighbour = index + direction
            reachable = 0 <= neighbour < count and (neighbour in known or flows[neighbour] is not None)
            if reachable:
                step = optical_flow(self._image[index], self._image[neighbour], "dis")
                onward = None if neighbour in known else flows[neighbour]
                flows[index] = step if onward is None else step + np.stack([self._warp(part, step) for part in onward])
            if reporter is not None:
                reporter.step((count if direction > 0 else 0) + done + 1)
        return flows

    def _warp(self, plane: Plane, flow: Plane) -> Plane:
        return map_coordinates(plane, self._grid + flow, order=1, mode="nearest")

    def carry(self, target: int, direction: int) -> Carried | None:
        """The nearest annotated slice before (-1) or after (+1) slice ``target`` carried there; None if there is none."""
        flow = self._flows[direction][target]
        if flow is None:
            return None
        side = (
            np.searchsorted(self._annotated, target, side="left") - 1
            if direction < 0
            else np.searchsorted(self._annotated, target, "right")
        )
        source = int(side)
        return Carried(self._warp(self._distances[source], flow), self._warp(self._image[self._annotated[source]], flow), flow)
