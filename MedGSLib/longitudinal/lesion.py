"""Measures of a compact segment such as a tumour or a kidney."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.longitudinal.sections import max_diameter, width_across
from MedGSLib.longitudinal.vessel import max_diameter_in_planes
from MedGSLib.metrics_surface import surface_area_mm2, triangles_of, volume_mm3


@dataclass(frozen=True)
class LesionMeasures:
    """Figures of one compact segment; places are RAS mm in the frame of the surface.

    :ivar max_diameter_mm: largest distance between two points of the surface, with its ends.
    :ivar in_plane_diameter_mm: longest diameter in one image plane (as RECIST 1.1 measures), with its ends.
    :ivar in_plane_short_mm: extent perpendicular to it in the same plane (short axis).
    :ivar sphericity: surface area of the sphere of equal volume over that of the segment (Wadell 1935); 1 for a sphere.
    """

    volume_cm3: float
    area_cm2: float
    max_diameter_mm: float
    max_diameter_ends: tuple[tuple[float, ...], ...]
    in_plane_diameter_mm: float
    in_plane_ends: tuple[tuple[float, ...], ...]
    in_plane_short_mm: float
    sphericity: float

    def as_dict(self) -> dict[str, Any]:
        """:return: the figures, ready for JSON."""
        return asdict(self)


def measure_lesion(surface: vtkPolyData, plane_normal: NDArray[np.float64] | None = None) -> LesionMeasures:
    """Measure a closed surface in RAS mm.

    :param plane_normal: unit normal (3,) of the image planes; None means axial.
    """
    normal = np.array([0.0, 0.0, 1.0]) if plane_normal is None else np.asarray(plane_normal, dtype=np.float64)
    volume, area = volume_mm3(surface), surface_area_mm2(surface)
    diameter, ends = max_diameter(triangles_of(surface)[0])
    in_plane, in_plane_ends, contour = max_diameter_in_planes(surface, normal)
    across = np.cross(normal, in_plane_ends[1] - in_plane_ends[0])
    return LesionMeasures(
        volume_cm3=volume / 1000.0,
        area_cm2=area / 100.0,
        max_diameter_mm=diameter,
        max_diameter_ends=tuple(tuple(end) for end in ends.tolist()),
        in_plane_diameter_mm=in_plane,
        in_plane_ends=tuple(tuple(end) for end in in_plane_ends.tolist()),
        in_plane_short_mm=width_across(contour, across / np.linalg.norm(across)),
        sphericity=float(np.pi ** (1.0 / 3.0) * (6.0 * volume) ** (2.0 / 3.0) / area),
    )
