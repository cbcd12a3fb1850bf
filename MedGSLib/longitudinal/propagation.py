"""Carrying the baseline's segment over to a date at which nobody drew it.

Every point of the baseline's surface moves along its normal to where the follow-up's image shows the profile that the baseline's image
has there. The cost of each shift is averaged over the neighbourhood on the surface before the best one is taken, which keeps the result
smooth and decides where one profile alone does not (local search of active shape models, Cootes et al. 1994, with the image of the same
patient as its model; cost averaging as in semi-global stereo matching).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix, transform_points
from MedGSLib.longitudinal.distance import add_point_values, point_areas, smoothed_values
from MedGSLib.longitudinal.growth import PIXEL_SD, Q90, Sampling, in_plane_sd_mm
from MedGSLib.longitudinal.registration import Registration, inverse
from MedGSLib.longitudinal.timepoints import PROPAGATED, TimePoint
from MedGSLib.mesh import POSITION_ARRAY, polydata_from_arrays, vertex_normals, with_point_normals
from MedGSLib.metrics_surface import triangles_of, volume_mm3
from MedGSLib.volume import Volume

Values = NDArray[np.float64]

WINDOW_PIXELS, WINDOW_MM = 5.0, (2.5, 6.0)
"""Half length of a compared profile, in pixels, and its limits."""
SMOOTHING_PIXELS, SMOOTHING_MM = 2.5, (1.0, 3.0)
"""Radius of the neighbourhood over which costs are averaged."""
REACH_SHARE, REACH_MM = 0.5, (2.0, 8.0)
"""Largest shift, as a share of the radius of the sphere of equal volume."""
STEP_PIXELS = 0.25
MATCHINGS = 4
SHIFT_SD_SHARE = 0.1
"""Large shifts come out too small by about this share on the phantom of known growth."""
LEAST_EXPLAINED = 0.4
"""A follow-up that explains less of the profiles does not show the same edge; noise explains up to 0.25, a true follow-up 0.85."""


@dataclass(frozen=True)
class Shift:
    """How far a surface moved.

    :ivar shift_mm: of each point (N, 3), RAS. :ivar sd_mm: the standard deviation of its length (N,).
    :ivar explained: share of the variation along the baseline's profiles that the matched ones of the follow-up explain, at most 1.
    :ivar undecided: share of the surface whose best shift lies at the limit of the search, or hangs on the length of the profile.
    """

    shift_mm: Values
    sd_mm: Values
    explained: float
    undecided: float


def propagated(baseline: TimePoint, followup: TimePoint, registration: Registration) -> TimePoint:
    """The follow-up with the baseline's surfaces, moved to where its image shows them, in its own frame.

    :raises InputError: without volumes or registration, or if the image does not show the surfaces.
    """
    if baseline.volume is None or followup.volume is None or followup.sampling is None:
        raise InputError(f"{followup.name} has no segment; to carry the baseline's over, both dates need their volume.")
    if not registration.captured:
        raise InputError(f"{followup.name} has no segment, and the baseline's cannot be carried over: {registration.message}")
    surfaces, facts = {}, {}
    for name, surface in baseline.surfaces.items():
        found = surface_shift(surface, baseline.volume, followup.volume, registration.matrix, followup.sampling)
        if found.explained < LEAST_EXPLAINED:
            raise InputError(f"{followup.name} has no segment, and its image does not show the edge of {name} that the baseline has.")
        sd = np.hypot(found.sd_mm, in_plane_sd_mm(surface, baseline.sampling))
        surfaces[name] = _moved(surface, found.shift_mm, sd, inverse(registration.matrix))
        facts[name] = {"explained_share": found.explained, "undecided_share": found.undecided}
    return replace(followup, surfaces=surfaces, facts=followup.facts | {"source": PROPAGATED, "propagation": facts})


def surface_shift(surface: vtkPolyData, baseline: Volume, followup: Volume, followup_to_baseline: Matrix, sampling: Sampling) -> Shift:
    """Shift of each point of a surface (RAS mm, baseline's frame) along its normal from the baseline's to the follow-up's image."""
    pixel = sampling.pixel_mm
    window, radius = np.clip(WINDOW_PIXELS * pixel, *WINDOW_MM), float(np.clip(SMOOTHING_PIXELS * pixel, *SMOOTHING_MM))
    reach = np.clip(REACH_SHARE * np.cbrt(0.75 / np.pi * abs(volume_mm3(surface))), *REACH_MM)
    half, search = (int(np.ceil(length / (STEP_PIXELS * pixel))) for length in (window, reach))
    step = STEP_PIXELS * pixel
    points, _ = triangles_of(surface)
    normals = _directions(surface, radius)
    own = _profiles(baseline, np.eye(4), points, normals, half, step)
    other = _profiles(followup, inverse(followup_to_baseline), points, normals, half + search, step)
    placed = other[:, search : search + 2 * half + 1]
    for _ in range(MATCHINGS):
        # What lies at the same places is not the same tissue where the segment grew, so the scale is matched again along the new places.
        gain, offset = _matching(placed, own)
        costs = [smoothed_values(surface, _costs(own, gain * other + offset, search, length), radius) for length in (half, half // 2)]
        shifts = [_best(cost) for cost in costs]
        at = np.clip(np.rint(shifts[0]).astype(int), 0, 2 * search)
        placed = other[np.arange(len(points))[:, None], at[:, None] + np.arange(2 * half + 1)]
    shift = smoothed_values(surface, (shifts[0] - search) * step, 0.5 * radius)
    doubt = smoothed_values(surface, np.abs(shifts[0] - shifts[1]) * step / np.sqrt(2.0), radius)
    sd = np.sqrt((PIXEL_SD * pixel) ** 2 + doubt**2 + (SHIFT_SD_SHARE * shift) ** 2)
    undecided = (doubt > pixel) | (shifts[0] < 1.0) | (shifts[0] > 2 * search - 1.0)
    areas = point_areas(surface)
    return Shift(shift[:, None] * normals, sd, _explained(own, gain * placed + offset), float(areas[undecided].sum() / areas.sum()))


def _moved(surface: vtkPolyData, shift_mm: Values, sd_mm: Values, to_followup: Matrix) -> vtkPolyData:
    points, triangles = triangles_of(surface)
    moved = with_point_normals(polydata_from_arrays(transform_points(to_followup, points + shift_mm), triangles))
    add_point_values(moved, POSITION_ARRAY, Q90 * sd_mm)
    return moved


def _directions(surface: vtkPolyData, radius_mm: float) -> Values:
    """Unit normals (N, 3) averaged over the neighbourhood: along those of a stepped surface the points would pass each other."""
    mean = smoothed_values(surface, vertex_normals(*triangles_of(surface)), radius_mm)
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)


def _profiles(volume: Volume, to_volume: Matrix, points: Values, normals: Values, half: int, step_mm: float) -> Values:
    """Intensities (N, 2 * half + 1) along the normals, from inside to outside, linearly interpolated."""
    along = np.arange(-half, half + 1) * step_mm
    places = (points[:, None] + along[:, None] * normals[:, None]).reshape(-1, 3)
    index = transform_points(np.linalg.inv(volume.ijk_to_ras) @ to_volume, places)
    values = map_coordinates(volume.voxels.astype(np.float32), index[:, ::-1].T, order=1, mode="nearest")
    return values.reshape(len(points), -1).astype(np.float64)


def _matching(placed: Values, own: Values) -> tuple[float, float]:
    """Gain and offset that bring the follow-up's profiles to the baseline's intensities: a straight line through their quantiles."""
    levels = np.linspace(5.0, 95.0, 19)
    here = np.percentile(placed, levels)
    if np.ptp(here) <= 0.0:
        return 1.0, 0.0
    gain, offset = np.polyfit(here, np.percentile(own, levels), 1)
    return float(gain), float(offset)


def _costs(own: Values, other: Values, search: int, half: int) -> Values:
    """Mean absolute difference (N, 2 * search + 1) of the middle ``half`` of the profiles at each shift."""
    middle = own.shape[1] // 2
    wanted = own[:, middle - half : middle + half + 1]
    first = middle - half
    return np.stack(
        [np.abs(other[:, first + shift : first + shift + 2 * half + 1] - wanted).mean(axis=1) for shift in range(2 * search + 1)], axis=1
    )


def _best(cost: Values) -> Values:
    """Index (N,) of the least cost, refined by the parabola through its neighbours."""
    last = cost.shape[1] - 1
    best = cost.argmin(axis=1)
    at, row = np.clip(best, 1, last - 1), np.arange(len(cost))
    before, here, after = cost[row, at - 1], cost[row, at], cost[row, at + 1]
    bend = before - 2.0 * here + after
    refined = at + np.clip(0.5 * (before - after) / np.where(bend > 0.0, bend, np.inf), -0.5, 0.5)
    return np.where(best == at, refined, best).astype(np.float64)


def _explained(own: Values, placed: Values) -> float:
    """One minus what is left of the baseline's profiles after subtracting the matched ones, relative to their variation."""
    variation = np.abs(own - np.median(own, axis=1, keepdims=True)).sum()
    return float(1.0 - np.abs(placed - own).sum() / max(variation, 1e-12))
