"""The volume that the areas of a segment's annotated slices promise (Cavalieri's principle), and levels that keep the promise.

A field that is cut where the segment is as likely as not loses what it is unsure of, such as thin pieces that move from slice to slice;
the areas of the annotated slices tell how much there must be in between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid

FEWEST_FILLED_SLICES = 4
"""Annotated slices that show a segment, below which the standard error of its volume is itself a guess."""


@dataclass(frozen=True)
class AreaVolume:
    """A volume and its standard error."""

    volume: float
    standard_error: float

    def nearest(self, volume: float, errors: float) -> float:
        """The volume next to ``volume`` that is within so many standard ``errors``."""
        return min(max(volume, self.volume - errors * self.standard_error), self.volume + errors * self.standard_error)


def volume_of_areas(areas: NDArray, known: NDArray[np.float64]) -> AreaVolume | None:
    """The volume from the first to the last annotated slice by the trapezoidal rule, and how precise that is.

    The standard error follows from how the areas bend from slice to slice: the variance (3 A - 4 B + C) / 240 of Gundersen, Jensen, Kieu
    and Nielsen (Journal of Microscopy 193, 1999) is the sum of the squared second differences over 480.

    :param areas: (A,) of the annotated slices. :param known: (A,) where these lie along the stack, increasing.
    :return: in the unit of the areas times that of ``known``; None where too few slices show the segment.
    """
    if np.count_nonzero(areas) < FEWEST_FILLED_SLICES:
        return None
    gap = float(np.median(np.diff(known)))
    ends = (int(areas[0] == 0), int(areas[-1] == 0))
    closed = np.pad(areas, ends)
    places = np.concatenate([known[:1] - gap, known, known[-1:] + gap])[1 - ends[0] : len(known) + 1 + ends[1]]
    reach = places[2:] - places[:-2]
    share = (places[1:-1] - places[:-2]) / reach
    bend = 2.0 * (closed[1:-1] - (1.0 - share) * closed[:-2] - share * closed[2:])
    variance = float(np.sum(np.square(bend * reach / 2.0))) / 480.0
    return AreaVolume(float(trapezoid(areas, known)), math.sqrt(variance))


def voxels_of_areas(areas: NDArray, known: NDArray[np.float64], wanted: NDArray[np.float64]) -> AreaVolume | None:
    """What the areas promise in voxels of the ``wanted`` slices (T,), which lie between the annotated ones; see :func:`volume_of_areas`."""
    promised = volume_of_areas(areas, known)
    if promised is None:
        return None
    step = (known[-1] - known[0]) / (len(wanted) + len(known) - 1)
    return AreaVolume(float(np.interp(wanted, known, areas).sum()), promised.standard_error / float(step))


def with_promised_volume(occupancy: NDArray[np.float32], allowed: float, promised: AreaVolume | None, errors: float) -> NDArray[np.float32]:
    """The occupancy (T, H, W) with the level that leaves the promised number of voxels made 0.5.

    Values below and above it are stretched separately, so that 0 and 1 stay where they are: a sharp edge between them does not move.

    :param allowed: how far the level may be from 0.5. :param errors: see :meth:`AreaVolume.nearest`.
    """
    level = np.float32(level_of_areas(occupancy, 0.5, allowed, promised, errors))
    if level == 0.5:
        return occupancy
    return np.where(occupancy < level, 0.5 * occupancy / level, 0.5 + 0.5 * (occupancy - level) / (1 - level)).astype(np.float32)


def level_of_areas(planes: NDArray[np.float32], level: float, allowed: float, promised: AreaVolume | None, errors: float) -> float:
    """The value next to ``level``, at most ``allowed`` from it, above which ``planes`` (T, H, W) fill the promised number of voxels.

    :param planes: larger where the segment is likelier. :param errors: see :meth:`AreaVolume.nearest`.
    :return: ``level`` itself where nothing is promised or found.
    """
    found = int(np.count_nonzero(planes > level))
    wanted = found if promised is None or found == 0 else round(promised.nearest(found, errors))
    if wanted == found:
        return level
    open_values = planes[np.abs(planes - level) < allowed]
    below = len(open_values) + int(np.count_nonzero(planes >= level + allowed)) - wanted
    if below <= 0:
        return level - allowed
    if below > len(open_values):
        return level + allowed
    return float(np.partition(open_values, below - 1)[below - 1])
