"""Two or more dates of one patient side by side: aligned surfaces, growth maps, measures, and what of it exceeds the measurement error."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix
from MedGSLib.io.atomic import make_result_folder
from MedGSLib.longitudinal import distance, growth
from MedGSLib.longitudinal.growth import Change, Sampling, Trend
from MedGSLib.longitudinal.measures import FIGURES, Measures, measure_segment
from MedGSLib.longitudinal.propagation import propagated
from MedGSLib.longitudinal.registration import Registration, given_registration, no_registration, read_transform
from MedGSLib.longitudinal.registration_image import register_images, stable_anatomy
from MedGSLib.longitudinal.registration_surface import register_surfaces
from MedGSLib.longitudinal.timepoints import TimePoint, distinct_names, load_time_point
from MedGSLib.metrics_surface import triangles_of
from MedGSLib.progress import ProgressCallback, Reporter

logger = logging.getLogger(__name__)

METHODS = ("auto", "image", "surface", "none")
GROWTH, BAND, SIGNIFICANT, SHOWN = "GrowthMm", "GrowthBandMm", "GrowthSignificant", "GrowthShownMm"
"""Point arrays of an aligned surface: signed distance to the baseline, its band, whether it exceeds it, and it where it does (else NaN)."""
LEAST_STABLE_SHARE = 0.15
"""Smallest share of a volume that must be stable anatomy for it to be registered by its image."""


@dataclass(frozen=True)
class CompareConfig:
    """How time points are compared.

    :ivar registration: ``auto`` (image where there are volumes with enough anatomy, else surface), ``image``, ``surface``, ``none``, or
        a 4x4 matrix (follow-up to baseline, RAS) or a finished registration for each follow-up.
    :ivar margin_mm: distance around the segments that the registration leaves out as well.
    :ivar smoothing_mm: radius over which distances are averaged along the surface.
    :ivar observer_sd_mm: how differently a contour is drawn twice, as standard deviation; 0 leaves readers out of the band.
    :ivar kinds: ``vessel`` or ``compact`` by segment name; others are told by name and shape.
    :ivar keep_order: take the first time point as the baseline whatever the dates say.
    """

    registration: str | Sequence[Matrix | Registration] = "auto"
    margin_mm: float = 6.0
    smoothing_mm: float = 2.0
    observer_sd_mm: float = 0.0
    kinds: Mapping[str, str] = field(default_factory=dict)
    keep_order: bool = False


@dataclass(frozen=True)
class SegmentGrowth:
    """What one segment did between the baseline and one follow-up.

    :ivar surface: the follow-up's surface in the baseline's frame, with the point arrays named above; None where it could not be aligned.
    :ivar outward: summary of the signed distances to the baseline; ``reverse`` the same seen from the baseline's surface; ``symmetric``
        mean and 95th percentile of the sizes of both.
    :ivar significant_area_share: share of the surface where the distance exceeds the band.
    """

    segment: str
    followup: int
    changes: tuple[Change, ...]
    surface: vtkPolyData | None = None
    outward: distance.DistanceSummary | None = None
    reverse: distance.DistanceSummary | None = None
    symmetric: dict[str, float] | None = None
    band_median_mm: float | None = None
    significant_area_share: float = 0.0
    largest_significant_mm: float | None = None
    largest_significant_place: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Comparison:
    """The outcome; index 0 is the baseline everywhere, and ``measures[i][name]`` is in the time point's own frame."""

    time_points: tuple[TimePoint, ...]
    registrations: tuple[Registration, ...]
    measures: tuple[dict[str, Measures], ...]
    growth: tuple[SegmentGrowth, ...]
    trends: dict[str, tuple[Trend, ...]]

    @property
    def segments(self) -> tuple[str, ...]:
        """Segments that every time point has."""
        return tuple(self.measures[0])


def compare(time_points: Sequence[TimePoint], config: CompareConfig | None = None, progress: ProgressCallback | None = None) -> Comparison:
    """Compare follow-ups with a baseline.

    Time points are taken in the order of their dates where all have one, else as given. Of a follow-up whose registration was not
    captured there are measures but no growth map. To a follow-up without a segment the baseline's are carried over.

    :raises InputError: with fewer than two time points, or no segment that all of them have.
    :raises Cancelled: on request.
    """
    config = config or CompareConfig()
    ordered = _with_common_segments(_in_order(time_points, config.keep_order))
    names = list(ordered[0].surfaces)
    if unknown := sorted(set(config.kinds) - set(names)):
        raise InputError(f"There is no segment called {', '.join(unknown)} to measure; there is {', '.join(names)}.")
    reporter = Reporter(progress)
    registrations = [no_registration()]
    for index in range(1, len(ordered)):
        registrations.append(_register(ordered[0], ordered[index], names, config, index, reporter))
        if not ordered[index].surfaces:
            ordered[index] = propagated(ordered[0], ordered[index], registrations[index])
    reporter.start("measuring", len(ordered) * len(names))
    measures: list[dict[str, Measures]] = []
    for point in ordered:
        normal = None if point.sampling is None else np.array(point.sampling.normal)
        measures.append({name: measure_segment(point.surfaces[name], name, config.kinds.get(name), normal) for name in names})
        reporter.step(len(measures) * len(names))
    reporter.start("growth", (len(ordered) - 1) * len(names))
    found = []
    for index in range(1, len(ordered)):
        for name in names:
            pair = (measures[0][name], measures[index][name])
            found.append(_segment_growth(name, index, ordered, registrations[index], pair, config))
            reporter.step(len(found))
    dates = [point.date for point in ordered]
    trends = {name: _trends(dates, [measured[name] for measured in measures]) for name in names}
    return Comparison(tuple(ordered), tuple(registrations), tuple(measures), tuple(found), trends)


def compare_files(
    paths: Sequence[Sequence[Path]],
    output: Path,
    dates: Sequence[datetime.date] | None = None,
    labels: Sequence[str | int] = (),
    registration: str = "auto",
    progress: ProgressCallback | None = None,
    config: CompareConfig | None = None,
) -> dict[str, Any]:
    """Load time points, compare them, and write the folder ``output`` (see :mod:`MedGSLib.longitudinal.outputs`).

    :param paths: one entry a time point, see :func:`MedGSLib.longitudinal.timepoints.load_time_point`.
    :param registration: a method, or the path of a transform file for the only follow-up.
    :return: the content of ``comparison.json``.
    :raises InputError: if something cannot be used.
    """
    from MedGSLib.longitudinal.outputs import write_comparison

    chosen: str | Sequence[Matrix | Registration] = registration
    if registration not in METHODS:
        if len(paths) != 2:
            raise InputError("A transform file can only be given for a single follow-up.")
        chosen = [read_transform(Path(registration))]
    Reporter(progress).start("loading", len(paths))
    names = distinct_names([Path(entry[0]) for entry in paths])
    points = [load_time_point(entry, None if dates is None else dates[index], labels, names[index]) for index, entry in enumerate(paths)]
    base = config or CompareConfig()
    if registration not in METHODS and _in_order(points, base.keep_order)[0] is not points[0]:
        raise InputError(
            "The time points are not in the order of their dates, so the given transform would be applied the wrong way round; "
            "give the earlier one first, or use --keep-order."
        )
    make_result_folder(output)
    return write_comparison(compare(points, replace(base, registration=chosen), progress), output)


def _in_order(time_points: Sequence[TimePoint], keep_order: bool) -> list[TimePoint]:
    if len(time_points) < 2:
        raise InputError("A comparison needs at least two time points.")
    if keep_order or any(point.date is None for point in time_points):
        return list(time_points)
    return sorted(time_points, key=lambda point: point.date or datetime.date.min)


def _with_common_segments(time_points: Sequence[TimePoint]) -> list[TimePoint]:
    """The time points with the segments that all have that have any; single segments are compared whatever they are called."""
    if not time_points[0].surfaces:
        raise InputError(f"The baseline {time_points[0].name} has no segment, so there is nothing to compare with.")
    common = [name for name in time_points[0].surfaces if all(name in point.surfaces for point in time_points if point.surfaces)]
    if common:
        return [replace(point, surfaces={name: point.surfaces[name] for name in common if point.surfaces}) for point in time_points]
    if all(len(point.surfaces) <= 1 for point in time_points):
        wanted = next(iter(time_points[0].surfaces))
        return [replace(point, surfaces=dict(zip([wanted], point.surfaces.values(), strict=False))) for point in time_points]
    listed = "; ".join(f"{point.name}: {', '.join(point.surfaces)}" for point in time_points)
    raise InputError(f"The time points have no segment in common ({listed}).")


def _register(
    baseline: TimePoint, followup: TimePoint, names: Sequence[str], config: CompareConfig, index: int, reporter: Reporter
) -> Registration:
    choice = config.registration
    if not isinstance(choice, str):
        given = choice[index - 1]
        return given if isinstance(given, Registration) else given_registration(given)
    if choice not in METHODS:
        raise InputError(f"The registration '{choice}' is none of {', '.join(METHODS)}.")
    if choice == "none":
        return no_registration()
    by_image = choice == "image" or (choice == "auto" and _has_stable_anatomy(baseline, config) and _has_stable_anatomy(followup, config))
    if by_image or not followup.surfaces:
        result = _register_by_image(baseline, followup, names, config, reporter)
        if result.captured or choice == "image" or not followup.surfaces:
            return result
        logger.warning("%s The surfaces are registered instead.", result.message)
    reporter.start("registering", message="Registering the surfaces.")
    return register_surfaces(baseline.surfaces[names[0]], followup.surfaces[names[0]])


def _has_stable_anatomy(point: TimePoint, config: CompareConfig) -> bool:
    if point.volume is None:
        return False
    return float(stable_anatomy(point.volume, point.segment_mask, config.margin_mm).mean()) >= LEAST_STABLE_SHARE


def _register_by_image(
    baseline: TimePoint, followup: TimePoint, names: Sequence[str], config: CompareConfig, reporter: Reporter
) -> Registration:
    if baseline.volume is None or followup.volume is None:
        raise InputError("A registration by images needs the volume of every time point; give IMAGE,MASK or register by surfaces.")
    wall = triangles_of(baseline.surfaces[names[0]])[0]
    shift = np.eye(4)
    if followup.surfaces:
        shift[:3, 3] = wall.mean(axis=0) - triangles_of(followup.surfaces[names[0]])[0].mean(axis=0)
    return register_images(
        baseline.volume,
        followup.volume,
        baseline_stable=stable_anatomy(baseline.volume, baseline.segment_mask, config.margin_mm),
        followup_stable=stable_anatomy(followup.volume, followup.segment_mask, config.margin_mm),
        points_ras=wall[:: max(1, len(wall) // 500)],
        starts=[shift],
        reporter=reporter,
    )


def _segment_growth(
    name: str, index: int, points: Sequence[TimePoint], registration: Registration, pair: tuple[Measures, Measures], config: CompareConfig
) -> SegmentGrowth:
    baseline, followup = points[0], points[index]
    reference, own = baseline.surfaces[name], followup.surfaces[name]
    sds = [growth.wall_sd_mm(surface, point.sampling, config.observer_sd_mm) for surface, point in ((reference, baseline), (own, followup))]
    typical = (float(np.median(sds[0])), float(np.median(sds[1])))
    changes = _changes(pair, typical, (baseline, followup))
    if not registration.captured:
        return SegmentGrowth(name, index, changes)
    aligned = distance.moved_surface(own, registration.matrix)
    outward = distance.smoothed_values(aligned, distance.signed_distances(aligned, reference), config.smoothing_mm)
    reverse = -distance.smoothed_values(reference, distance.signed_distances(reference, aligned), config.smoothing_mm)
    band = growth.distance_band_mm(sds[1], distance.values_nearby(reference, sds[0], aligned), registration.residual_mm)
    significant = distance.significant_points(
        aligned, outward, band, _least_area_mm2(config.smoothing_mm, baseline.sampling, followup.sampling)
    )
    for array, values in ((GROWTH, outward), (BAND, band), (SIGNIFICANT, significant), (SHOWN, np.where(significant, outward, np.nan))):
        distance.add_point_values(aligned, array, values)
    areas = distance.point_areas(aligned)
    largest, place = _largest(aligned, outward, significant)
    return SegmentGrowth(
        segment=name,
        followup=index,
        changes=changes,
        surface=aligned,
        outward=distance.summarize(aligned, outward),
        reverse=distance.summarize(reference, reverse),
        symmetric=distance.symmetric_summary(aligned, outward, reference, reverse),
        band_median_mm=float(np.median(band)),
        significant_area_share=float(areas[significant].sum() / areas.sum()),
        largest_significant_mm=largest,
        largest_significant_place=place,
    )


def _largest(
    surface: vtkPolyData, values: NDArray[np.float64], significant: NDArray[np.bool_]
) -> tuple[float | None, tuple[float, ...] | None]:
    """The significant value of largest size and its place, or None."""
    if not significant.any():
        return None, None
    at = int(np.argmax(np.where(significant, np.abs(values), -1.0)))
    return float(values[at]), tuple(triangles_of(surface)[0][at].tolist())


def _least_area_mm2(smoothing_mm: float, *samplings: Sampling | None) -> float:
    """A disc of the coarsest slice gap as radius: what is smaller cannot be told from the pattern of the slices."""
    gaps = [sampling.gap_mm for sampling in samplings if sampling is not None]
    return float(np.pi * max([smoothing_mm, *gaps]) ** 2)


def _changes(pair: tuple[Measures, Measures], sds: tuple[float, float], points: tuple[TimePoint, TimePoint]) -> tuple[Change, ...]:
    before, after = (measured.figures() for measured in pair)
    years = growth.years_between(points[0].date, points[1].date)
    diameter = growth.diameter_band_mm(*sds)
    bands = {
        "volume": growth.volume_band_cm3(sds[0], before["area"], sds[1], after["area"]),
        "area": growth.area_band_cm2(*sds, before["area"]),
        "length": float(np.hypot(diameter, growth.length_band_mm(points[0].sampling, points[1].sampling))),
    }
    return tuple(
        Change(name, unit, before[name], after[name], bands.get(name, diameter), years)
        for name, unit in FIGURES
        if name in before and name in after
    )


def _trends(dates: Sequence[datetime.date | None], measured: Sequence[Measures]) -> tuple[Trend, ...]:
    figures = [each.figures() for each in measured]
    lines = [
        growth.trend(name, unit, dates, [each[name] for each in figures]) for name, unit in FIGURES if all(name in each for each in figures)
    ]
    return tuple(line for line in lines if line is not None)
