"""How much two dates differ, per year, and whether that is more than measuring twice would show.

The repeatability band is the 95 % interval of the difference of two measurements of an unchanged patient, 1.96 times the root of the
summed variances (Bland and Altman 1986). It covers slice thickness, pixel size, reconstruction and registration; how differently two
readers draw the same contour is only in it when the caller states it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.mesh import POSITION_ARRAY, vertex_normals
from MedGSLib.metrics_surface import triangles_of

Values = NDArray[np.float64]

Q90 = 1.645
Q95 = 1.96
PIXEL_SD = 0.15
"""Standard deviation of a contour on an acquired slice, in pixels."""
GAP_SD = 0.35
"""Standard deviation of a wall that lies parallel to the slices, in slice gaps; both from the phantom of known shape."""
DIAMETER_SHARE = 1.0
"""Standard deviation of a largest diameter relative to that of the wall: two ends, each averaged over its neighbourhood."""
VOLUME_SHARE = 0.25
"""Share of the wall's standard deviation that is common to the whole surface and does not average out of the volume."""
DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class Sampling:
    """How a surface was sampled: pixel size, slice gap, and the unit normal (3,) of the slices, in the frame of the surface."""

    pixel_mm: float
    gap_mm: float
    normal: tuple[float, float, float]


@dataclass(frozen=True)
class Change:
    """One measure at two dates; rates are None without dates. ``significant`` is whether the difference exceeds ``band``."""

    measure: str
    unit: str
    before: float
    after: float
    band: float
    years: float | None

    @property
    def difference(self) -> float:
        """After minus before."""
        return self.after - self.before

    @property
    def significant(self) -> bool:
        """Whether the difference is more than measuring twice would show."""
        return bool(abs(self.difference) > self.band)

    @property
    def per_year(self) -> float | None:
        """Difference per year."""
        return None if not self.years else self.difference / self.years

    @property
    def percent_per_year(self) -> float | None:
        """Difference per year in percent of the first value."""
        return None if self.per_year is None or self.before == 0 else 100.0 * self.per_year / self.before

    def as_dict(self) -> dict[str, Any]:
        """:return: all figures, ready for JSON."""
        return asdict(self) | {
            "difference": self.difference,
            "per_year": self.per_year,
            "percent_per_year": self.percent_per_year,
            "significant": self.significant,
            "verdict": "changed" if self.significant else "within measurement error",
        }


@dataclass(frozen=True)
class Trend:
    """Straight line through a measure at three or more dates."""

    measure: str
    unit: str
    per_year: float
    standard_error: float
    r_squared: float
    dates: int

    def as_dict(self) -> dict[str, Any]:
        """:return: the figures, ready for JSON."""
        return asdict(self)


def years_between(before: datetime.date | None, after: datetime.date | None) -> float | None:
    """Time between two dates in years, or None when one is unknown."""
    return None if before is None or after is None else (after - before).days / DAYS_A_YEAR


def wall_sd_mm(surface: vtkPolyData, sampling: Sampling | None, observer_sd_mm: float = 0.0) -> Values:
    """Standard deviation (N,) of the position of each point of a surface along its normal, in mm.

    In-plane it is a reconstruction's own uncertainty where the surface carries one, else a share of the pixel, or of the edges of a bare
    mesh. To that the slice gap adds by the squared cosine between wall and slice normals: where a segment ends, the wall lies along the
    slices, and where in the gap it ends is not in the data.

    :param observer_sd_mm: how differently the same contour is drawn, to be stated by the caller.
    """
    own = in_plane_sd_mm(surface, sampling)
    if sampling is not None:
        points, triangles = triangles_of(surface)
        own = np.hypot(own, GAP_SD * sampling.gap_mm * (vertex_normals(points, triangles) @ np.array(sampling.normal)) ** 2)
    return np.hypot(own, observer_sd_mm)


def in_plane_sd_mm(surface: vtkPolyData, sampling: Sampling | None) -> Values:
    """The part (N,) of :func:`wall_sd_mm` that does not come from the slice gap."""
    array = surface.GetPointData().GetArray(POSITION_ARRAY)
    if array is not None:
        return vtk_to_numpy(array).astype(np.float64) / Q90
    pixel = _edge_mm(surface) if sampling is None else sampling.pixel_mm
    return np.full(surface.GetNumberOfPoints(), PIXEL_SD * pixel)


def _edge_mm(surface: vtkPolyData) -> float:
    points, triangles = triangles_of(surface)
    return float(np.median(np.linalg.norm(points[triangles[:, 0]] - points[triangles[:, 1]], axis=1)))


def distance_band_mm(later_sd: Values, baseline_sd: Values, registration_mm: float) -> Values:
    """Half-width (N,) of the repeatability band of a surface distance, from the two walls and the registration (all sd, mm)."""
    return Q95 * np.sqrt(later_sd**2 + baseline_sd**2 + registration_mm**2 / 3.0)


def diameter_band_mm(first_sd: float, second_sd: float) -> float:
    """Half-width of the repeatability band of the difference of two diameters, from the typical sd of the two walls."""
    return Q95 * DIAMETER_SHARE * float(np.hypot(first_sd, second_sd))


def length_band_mm(*samplings: Sampling | None) -> float:
    """Half-width of the repeatability band of the difference of two lengths: each end lies somewhere in a slice gap."""
    gaps = [sampling.gap_mm for sampling in samplings if sampling is not None]
    return Q95 * GAP_SD * float(np.sqrt(2.0 * np.sum(np.square(gaps))))


def volume_band_cm3(first_sd: float, first_area_cm2: float, second_sd: float, second_area_cm2: float) -> float:
    """Half-width of the repeatability band of the difference of two volumes, from wall sd in mm and areas."""
    return Q95 * VOLUME_SHARE * float(np.hypot(first_sd * first_area_cm2, second_sd * second_area_cm2)) / 10.0


def area_band_cm2(first_sd: float, second_sd: float, area_cm2: float) -> float:
    """Half-width of the repeatability band of the difference of two areas: a wall moved by d changes A = c r^2 by 2 d A / r."""
    radius_mm = float(np.sqrt(area_cm2 * 100.0 / (4.0 * np.pi)))
    return Q95 * VOLUME_SHARE * float(np.hypot(first_sd, second_sd)) * 2.0 * area_cm2 / radius_mm


def trend(measure: str, unit: str, dates: Sequence[datetime.date | None], values: Sequence[float]) -> Trend | None:
    """Least-squares line through a measure, or None with fewer than three different dates."""
    known = [(years_between(dates[0], date), value) for date, value in zip(dates, values, strict=True)]
    if any(year is None for year, _ in known) or len({year for year, _ in known}) < 3:
        return None
    years, levels = (np.array(column, dtype=np.float64) for column in zip(*known, strict=True))
    line = stats.linregress(years, levels)
    return Trend(measure, unit, float(line.slope), float(line.stderr), float(line.rvalue**2), len(values))
