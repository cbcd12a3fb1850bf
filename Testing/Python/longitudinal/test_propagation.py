"""A segment carried over to a date at which nobody drew it, on scans whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import vtk_to_numpy

from MedGSLib.errors import InputError
from MedGSLib.io.images import write_image
from MedGSLib.io.stack import build_stack
from MedGSLib.longitudinal.compare import GROWTH, CompareConfig, compare, compare_files
from MedGSLib.longitudinal.propagation import propagated, surface_shift
from MedGSLib.longitudinal.registration import Registration, given_registration, write_transform
from MedGSLib.longitudinal.timepoints import TimePoint, time_point_from_stack, time_point_without_segment
from MedGSLib.mesh import POSITION_ARRAY
from MedGSLib.metrics_surface import topology, triangles_of
from MedGSLib.phantom import AneurysmPhantom, AneurysmTruth
from MedGSLib.phantom_shape import AneurysmShape
from MedGSLib.volume import Label, Volume

GROWTH_MM = 5.0


@pytest.fixture(scope="module")
def baseline(baseline_scan: AneurysmPhantom) -> TimePoint:
    return time_point_from_stack(
        build_stack(baseline_scan.image, baseline_scan.labels, baseline_scan.segments, margin_mm=None), name="first"
    )


def undrawn(scan: AneurysmPhantom, name: str = "second") -> TimePoint:
    return time_point_without_segment(build_stack(scan.image, None, margin_mm=None), name=name)


def test_growth_is_found_without_a_segment(baseline: TimePoint, grown_scan: AneurysmPhantom, followup_pose: NDArray) -> None:
    result = compare([baseline, undrawn(grown_scan)], CompareConfig([np.linalg.inv(followup_pose)]))
    found = result.growth[0]
    assert result.time_points[1].is_propagated and not result.time_points[0].is_propagated
    assert found.largest_significant_mm == pytest.approx(GROWTH_MM, abs=1.2)
    points = triangles_of(found.surface)[0]
    truth = AneurysmTruth(AneurysmShape(growth_mm=GROWTH_MM))
    near = np.linalg.norm(points - truth.growth_place_ras(), axis=1) < 3.0
    assert np.median(vtk_to_numpy(found.surface.GetPointData().GetArray(GROWTH))[near]) == pytest.approx(4.75, abs=0.9)
    error = np.abs(truth.signed_distance(points))
    assert np.median(error) < 0.5
    limit = vtk_to_numpy(result.time_points[1].surfaces["aneurysm"].GetPointData().GetArray(POSITION_ARRAY))
    assert np.mean(error < limit) > 0.7
    assert topology(found.surface).closed


def test_no_growth_without_a_segment(baseline: TimePoint, unchanged_scan: AneurysmPhantom, followup_pose: NDArray) -> None:
    result = compare([baseline, undrawn(unchanged_scan)], CompareConfig([np.linalg.inv(followup_pose)]))
    assert result.growth[0].largest_significant_mm is None
    assert not any(change.significant for change in result.growth[0].changes)


def test_brightness_and_contrast_of_the_second_scan_do_not_matter(baseline: TimePoint, baseline_scan: AneurysmPhantom) -> None:
    image = baseline_scan.image
    other = Volume((0.6 * image.voxels + 300.0).astype(np.float32), image.ijk_to_ras)
    surface = baseline.surfaces["aneurysm"]
    shift = surface_shift(surface, image, other, np.eye(4), baseline.sampling)
    assert np.abs(np.linalg.norm(shift.shift_mm, axis=1)).max() < 0.1
    assert shift.explained > 0.97
    assert shift.undecided == 0.0


def test_growth_all_around_is_not_taken_for_brightness() -> None:
    from_center = np.linalg.norm(np.indices((52, 52, 52)) - 25.5, axis=0)
    first, second = (
        Volume((gray + contrast / (1.0 + np.exp(1.5 * (from_center - radius)))).astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1.0]))
        for radius, gray, contrast in ((15.0, 100.0, 100.0), (17.0, 130.0, 160.0))
    )
    mask = Volume((from_center < 15.0).astype(np.uint8), first.ijk_to_ras)
    ball = time_point_from_stack(build_stack(first, mask, (Label(1, "tumour"),), margin_mm=None))
    shift = surface_shift(ball.surfaces["tumour"], first, second, np.eye(4), ball.sampling)
    assert np.median(np.linalg.norm(shift.shift_mm, axis=1)) == pytest.approx(2.0, abs=0.2)


def test_an_image_that_does_not_show_the_edge_is_refused(baseline: TimePoint, baseline_scan: AneurysmPhantom) -> None:
    noise = np.random.default_rng(0).normal(size=baseline_scan.image.voxels.shape).astype(np.float32)
    other = replace(undrawn(baseline_scan), volume=Volume(noise, baseline_scan.image.ijk_to_ras))
    with pytest.raises(InputError, match="does not show the edge of aneurysm"):
        propagated(baseline, other, given_registration(np.eye(4)))
    with pytest.raises(InputError, match="cannot be carried over: It failed"):
        propagated(baseline, undrawn(baseline_scan), Registration(np.eye(4), "image", False, message="It failed."))


def test_files_say_that_nobody_drew_it(
    tmp_path: Path, baseline_scan: AneurysmPhantom, grown_scan: AneurysmPhantom, followup_pose: NDArray
) -> None:
    for name, volume in (("a", baseline_scan.image), ("mask", baseline_scan.labels), ("b", grown_scan.image)):
        write_image(tmp_path / f"{name}.nrrd", volume)
    write_transform(tmp_path / "move.tfm", np.linalg.inv(followup_pose))
    paths = [(tmp_path / "a.nrrd", tmp_path / "mask.nrrd"), (tmp_path / "b.nrrd",)]
    compare_files(paths, tmp_path / "out", registration=str(tmp_path / "move.tfm"))
    report = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert report["growth"][0]["verdict"] == "growth (segment propagated, not drawn)"
    assert [point["propagated"] for point in report["time_points"]] == [False, True]
    assert "nobody drew" in report["propagation"]
    assert ",yes" in (tmp_path / "out" / "measures.csv").read_text()
