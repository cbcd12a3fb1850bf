"""All measures of one segment at one date, as a vessel, as a compact lesion, or both."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.errors import InputError
from MedGSLib.longitudinal.lesion import LesionMeasures, measure_lesion
from MedGSLib.longitudinal.vessel import VesselMeasures, measure_vessel
from MedGSLib.mesh import smoothed_surface
from MedGSLib.metrics_surface import volume_mm3

logger = logging.getLogger(__name__)

VESSEL_NAMES = re.compile(r"aort|aneurysm|arter|vein|vena|vessel|iliac|carotid|lumen|outer wall|trunk", re.IGNORECASE)
COMPACT_NAMES = re.compile(r"thromb", re.IGNORECASE)
"""A mural thrombus is a shell: a course through it is not that of the vessel."""
TUBULAR = 1.5
"""Length over largest diameter from which an unnamed segment is measured as a vessel."""

SMOOTHING_ITERATIONS = 20
"""Passes of the windowed sinc filter before measuring: the voxel pattern of a surface is not anatomy and lengthens every diameter."""
LARGEST_VOLUME_CHANGE = 0.05
"""By smoothing, of a surface that is fine enough for it; the smallest lesions of a few voxels change by 0.02."""

FIGURES = (
    ("volume", "cm3"),
    ("area", "cm2"),
    ("max_diameter", "mm"),
    ("max_axial_diameter", "mm"),
    ("length", "mm"),
    ("max_3d_diameter", "mm"),
    ("in_plane_diameter", "mm"),
    ("in_plane_short", "mm"),
)
"""Measures that are followed over time, with their units, in the order of tables."""


@dataclass(frozen=True)
class Measures:
    """Of one segment at one date; ``vessel`` is None where it is not a vessel."""

    lesion: LesionMeasures
    vessel: VesselMeasures | None = None

    def figures(self) -> dict[str, float]:
        """The measures of :data:`FIGURES` that apply: those of a vessel or those of a compact segment."""
        common = {"volume": self.lesion.volume_cm3, "area": self.lesion.area_cm2}
        if self.vessel is not None:
            return common | {
                "max_diameter": self.vessel.max_diameter_mm,
                "max_axial_diameter": self.vessel.max_axial_diameter_mm,
                "length": self.vessel.length_mm,
            }
        return common | {
            "max_3d_diameter": self.lesion.max_diameter_mm,
            "in_plane_diameter": self.lesion.in_plane_diameter_mm,
            "in_plane_short": self.lesion.in_plane_short_mm,
        }

    def as_dict(self) -> dict[str, Any]:
        """:return: everything, ready for JSON."""
        return {"compact": self.lesion.as_dict(), "vessel": None if self.vessel is None else self.vessel.as_dict()}


def measure_segment(surface: vtkPolyData, name: str, kind: str | None = None, plane_normal: NDArray[np.float64] | None = None) -> Measures:
    """Measure a closed surface in RAS mm, after a light smoothing that keeps its volume.

    :param kind: ``vessel``, ``compact``, or None to tell by name, else by shape.
    :param plane_normal: unit normal (3,) of the image planes.
    :raises InputError: if ``kind`` is neither.
    """
    if kind not in (None, "vessel", "compact"):
        raise InputError(f"A segment is a vessel or compact, not '{kind}'.")
    surface = _smoothed(surface)
    lesion = measure_lesion(surface, plane_normal)
    if kind == "compact" or (kind is None and COMPACT_NAMES.search(name)):
        return Measures(lesion)
    if (
        kind is None
        and not VESSEL_NAMES.search(name)
        and lesion.max_diameter_mm < TUBULAR * np.cbrt(6.0 * lesion.volume_cm3 * 1000.0 / np.pi)
    ):
        return Measures(lesion)
    try:
        return Measures(lesion, measure_vessel(surface))
    except InputError as error:
        logger.warning("The segment %s is measured as a compact one: %s", name, error)
        return Measures(lesion)


def _smoothed(surface: vtkPolyData) -> vtkPolyData:
    """The surface without the voxel pattern; a surface of few large faces has none, collapses in the filter, and stays as it is."""
    smoothed = smoothed_surface(surface, SMOOTHING_ITERATIONS)
    volume = volume_mm3(surface)
    return smoothed if abs(volume_mm3(smoothed) - volume) <= LARGEST_VOLUME_CHANGE * abs(volume) else surface
