"""Measures of a vessel segment: diameters perpendicular to its centreline, axial diameter, length, volume and area."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_filter
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.longitudinal.centerline import Centerline, compute_centerline
from MedGSLib.longitudinal.sections import SurfaceCutter, max_diameter, smoothed_contour
from MedGSLib.metrics_surface import surface_area_mm2, volume_mm3

Points = NDArray[np.float64]

PROFILE_STEP_MM = 1.0
PROFILE_WINDOW = 9
"""Sections over which diameters are fitted by a parabola (Savitzky and Golay 1964), so that one rough section does not decide."""
CANDIDATE_SHARE = 0.93
"""Contours whose diameter before smoothing falls below this share of the largest cannot become the largest by it."""
SUPERIOR = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class VesselMeasures:
    """Figures of one vessel; places are RAS mm in the frame of the surface.

    :ivar max_diameter_mm: largest outer-to-outer diameter of the sections perpendicular to the centreline.
    :ivar max_diameter_at_mm: where along the centreline, from its inferior end.
    :ivar max_diameter_ends: the two wall points of it (2, 3); ``max_diameter_center`` the centreline point.
    :ivar max_axial_diameter_mm: largest diameter in a plane perpendicular to the patient's long axis, which obliquity exaggerates.
    :ivar profile_at_mm: positions (N,) along the centreline of ``profile_diameter_mm``, ``profile_area_mm2`` and ``profile_points``.
    """

    volume_cm3: float
    area_cm2: float
    length_mm: float
    max_diameter_mm: float
    max_diameter_at_mm: float
    max_diameter_center: tuple[float, ...]
    max_diameter_ends: tuple[tuple[float, ...], ...]
    max_axial_diameter_mm: float
    profile_at_mm: tuple[float, ...]
    profile_diameter_mm: tuple[float, ...]
    profile_area_mm2: tuple[float, ...]
    profile_points: tuple[tuple[float, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """:return: the figures, ready for JSON."""
        return asdict(self)


def measure_vessel(surface: vtkPolyData, centerline: Centerline | None = None) -> VesselMeasures:
    """Measure a closed tubular surface in RAS mm.

    :param centerline: a curve to measure along; None computes it.
    :raises InputError: if the surface is not tubular enough for a centreline.
    """
    line = centerline or compute_centerline(surface, PROFILE_STEP_MM)
    cutter = SurfaceCutter(surface)
    positions, diameters, areas, ends, centers = [], [], [], [], []
    for position, point, tangent in zip(line.positions_mm, line.points, line.tangents, strict=True):
        loop = cutter.loop_around(point, tangent)
        if loop is None:
            continue
        diameter, tips = max_diameter(smoothed_contour(loop, tangent))
        positions.append(float(position))
        diameters.append(diameter)
        areas.append(loop.area_mm2)
        ends.append(tips)
        centers.append(point)
    smooth = _fitted(np.array(diameters))
    top = int(smooth.argmax())
    return VesselMeasures(
        volume_cm3=volume_mm3(surface) / 1000.0,
        area_cm2=surface_area_mm2(surface) / 100.0,
        length_mm=line.length_mm,
        max_diameter_mm=float(smooth[top]),
        max_diameter_at_mm=positions[top],
        max_diameter_center=tuple(centers[top].tolist()),
        max_diameter_ends=tuple(tuple(tip) for tip in ends[top].tolist()),
        max_axial_diameter_mm=max_diameter_in_planes(surface, SUPERIOR)[0],
        profile_at_mm=tuple(positions),
        profile_diameter_mm=tuple(smooth.tolist()),
        profile_area_mm2=tuple(areas),
        profile_points=tuple(tuple(center.tolist()) for center in centers),
    )


def _fitted(values: Points) -> Points:
    """Values (N,) of a profile after a running parabola fit; short profiles are returned as they are."""
    return savgol_filter(values, PROFILE_WINDOW, 2, mode="interp") if len(values) > PROFILE_WINDOW else values


def max_diameter_in_planes(surface: vtkPolyData, normal: Points, step_mm: float = 1.0) -> tuple[float, Points, Points]:
    """The largest diameter of any contour in the planes perpendicular to a unit ``normal`` (3,).

    :return: the diameter, its ends (2, 3), and all points (K, 3) of the contour it was found in.
    """
    cutter = SurfaceCutter(surface)
    heights = cutter.heights(normal)
    count = max(3, int(np.ptp(heights) / step_mm))
    planes = np.linspace(heights.min(), heights.max(), count + 2)[1:-1]
    contours = [(max_diameter(loop.points)[0], loop) for height in planes for loop in cutter.loops(normal * height, normal)]
    widest = max((rough for rough, _ in contours), default=0.0)
    best: tuple[float, Points, Points] = (0.0, np.zeros((2, 3)), np.zeros((0, 3)))
    for rough, loop in contours:
        if rough < CANDIDATE_SHARE * widest:
            continue
        contour = smoothed_contour(loop, normal)
        diameter, ends = max_diameter(contour)
        if diameter > best[0]:
            best = diameter, ends, contour
    return best
