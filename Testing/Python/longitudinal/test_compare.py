"""Whole comparisons on scans of the phantom, in memory and from files."""

from __future__ import annotations

import csv
import datetime
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkCommonExecutionModel import vtkPolyDataAlgorithm
from vtkmodules.vtkFiltersCore import vtkReverseSense, vtkStripper
from vtkmodules.vtkFiltersSources import vtkCubeSource

from MedGSLib.dates import parse_date
from MedGSLib.errors import Cancelled, InputError
from MedGSLib.io.atomic import atomic_write
from MedGSLib.io.images import write_image
from MedGSLib.io.meshes import read_mesh, write_mesh
from MedGSLib.io.stack import build_stack
from MedGSLib.io.volumes import read_volume
from MedGSLib.io.writers import segment_header
from MedGSLib.longitudinal.compare import GROWTH, CompareConfig, Comparison, SegmentGrowth, compare, compare_files
from MedGSLib.longitudinal.distance import add_point_values
from MedGSLib.longitudinal.plots import _draw_histogram, draw_volumes
from MedGSLib.longitudinal.registration import write_transform
from MedGSLib.longitudinal.timepoints import OUTER_WALL, TimePoint, distinct_names, load_time_point, time_point_from_stack
from MedGSLib.mesh import POSITION_ARRAY, polydata_from_arrays
from MedGSLib.metrics_surface import topology, triangles_of, volume_mm3
from MedGSLib.phantom import Acquisition, AneurysmPhantom, AneurysmTruth, make_aneurysm
from MedGSLib.phantom_shape import AneurysmShape
from MedGSLib.volume import Label, Volume

GROWTH_MM = 5.0


def time_point(scan: AneurysmPhantom, name: str) -> TimePoint:
    return time_point_from_stack(build_stack(scan.image, scan.labels, scan.segments, margin_mm=None), name=name)


@pytest.fixture(scope="module")
def grown(
    baseline_scan: AneurysmPhantom, grown_scan: AneurysmPhantom, unchanged_scan: AneurysmPhantom, followup_pose: NDArray
) -> Comparison:
    """Baseline, unchanged and grown, given out of order, with the true transforms."""
    points = [time_point(grown_scan, "grown"), time_point(baseline_scan, "baseline"), time_point(unchanged_scan, "unchanged")]
    return compare(points, CompareConfig([np.linalg.inv(followup_pose)] * 2))


def test_time_points_are_ordered_by_their_dates(grown: Comparison) -> None:
    assert [point.name for point in grown.time_points] == ["baseline", "unchanged", "grown"]
    assert grown.time_points[0].date == datetime.date(2023, 1, 10)


def test_growth_is_found_at_its_place_and_of_its_size(grown: Comparison, baseline_scan: AneurysmPhantom) -> None:
    found = grown.growth[1]
    place = baseline_scan.truth.growth_place_ras()
    assert found.largest_significant_mm == pytest.approx(GROWTH_MM, abs=0.6)
    assert np.linalg.norm(np.array(found.largest_significant_place) - place) < 8.0
    points = triangles_of(found.surface)[0]
    near = np.linalg.norm(points - AneurysmTruth(AneurysmShape(growth_mm=GROWTH_MM)).growth_place_ras(), axis=1) < 3.0
    values = vtk_to_numpy(found.surface.GetPointData().GetArray("GrowthMm"))
    assert np.median(values[near]) == pytest.approx(4.75, abs=0.6)
    assert 0.02 < found.significant_area_share < 0.25
    changes = {change.measure: change for change in found.changes}
    assert changes["max_diameter"].difference == pytest.approx(GROWTH_MM, abs=0.8)
    assert changes["max_diameter"].significant
    assert changes["max_diameter"].per_year == pytest.approx(GROWTH_MM / 2, abs=0.4)


def test_no_growth_is_reported_where_there_is_none(grown: Comparison) -> None:
    found = grown.growth[0]
    assert found.largest_significant_mm is None
    assert found.significant_area_share == 0.0
    assert np.isnan(vtk_to_numpy(found.surface.GetPointData().GetArray("GrowthShownMm"))).all()
    assert not any(change.significant for change in found.changes)
    assert abs(found.outward.median) < 0.3


def test_three_dates_have_a_trend(grown: Comparison) -> None:
    line = next(line for line in grown.trends["aneurysm"] if line.measure == "max_diameter")
    assert line.dates == 3
    assert line.per_year > 1.0


def test_a_failed_registration_shows_no_growth(baseline_scan: AneurysmPhantom, grown_scan: AneurysmPhantom, monkeypatch) -> None:
    from MedGSLib.longitudinal import compare as module
    from MedGSLib.longitudinal.registration import Registration

    monkeypatch.setattr(module, "register_images", lambda *_args, **_kwargs: Registration(np.eye(4), "image", False, message="It failed."))
    result = compare([time_point(baseline_scan, "a"), time_point(grown_scan, "b")], CompareConfig("image"))
    assert result.growth[0].surface is None
    assert result.growth[0].outward is None
    assert result.growth[0].changes


def test_files_in_and_files_out(
    tmp_path: Path, baseline_scan: AneurysmPhantom, grown_scan: AneurysmPhantom, followup_pose: NDArray
) -> None:
    paths = []
    for name, scan in (("first", baseline_scan), ("second", grown_scan)):
        pair = tmp_path / f"{name}.nrrd", tmp_path / f"{name}_mask.nrrd"
        for path, volume in zip(pair, (scan.image, scan.labels)):
            with atomic_write(path) as temporary:
                write_image(temporary, volume)
        paths.append(pair)
    write_transform(tmp_path / "move.tfm", np.linalg.inv(followup_pose))
    dates = [datetime.date(2023, 1, 10), datetime.date(2025, 1, 10)]
    out = tmp_path / "out"
    report = compare_files(paths, out, dates=dates, registration=str(tmp_path / "move.tfm"))
    assert json.loads((out / "comparison.json").read_text()) == json.loads(json.dumps(report, default=float))
    entry = report["growth"][0]
    assert entry["verdict"] == "growth"
    for name in [*entry["files"], entry["baseline_file"], "01_to_baseline.tfm", "summary.png", "volume.png", "measures.csv", "growth.csv"]:
        assert (out / name).stat().st_size > 100, name
    surface = read_mesh(out / entry["files"][0])
    assert surface.GetPointData().GetArray("GrowthMm").GetRange()[1] > 4.0
    assert topology(surface).closed
    assert volume_mm3(surface) > 0
    assert b"property uchar red" in (out / entry["files"][1]).read_bytes()[:600]
    assert imread(out / "summary.png").std() > 0.1
    rows = list(csv.DictReader((out / "growth.csv").open()))
    diameter = next(row for row in rows if row["measure"] == "max_diameter")
    assert float(diameter["difference"]) == pytest.approx(GROWTH_MM, abs=0.8)


def test_bare_meshes_are_compared_and_written(tmp_path: Path) -> None:
    for name, growth in (("a.vtp", 0.0), ("b.ply", 3.0)):
        write_mesh(AneurysmTruth(AneurysmShape(growth_mm=growth)).mesh(2.0), tmp_path / name)
    report = compare_files([(tmp_path / "a.vtp",), (tmp_path / "b.ply",)], tmp_path / "out")
    assert report["time_points"][1]["registration"]["method"] == "surface"
    assert report["time_points"][1]["registration"]["captured"]
    assert report["growth"][0]["distance_mm"]["largest"] == pytest.approx(3.0, abs=0.4)


def filtered(algorithm: vtkPolyDataAlgorithm, surface: vtkPolyData) -> vtkPolyData:
    algorithm.SetInputData(surface)
    algorithm.Update()
    return algorithm.GetOutput()


def test_surfaces_of_any_origin_are_triangles_that_face_outward(tmp_path: Path) -> None:
    ball = AneurysmTruth(AneurysmShape()).mesh(6.0)
    points, triangles = triangles_of(ball)
    mixed = np.where(np.arange(len(triangles))[:, None] % 3 == 0, triangles[:, ::-1], triangles)
    loose = polydata_from_arrays(points[triangles].reshape(-1, 3), np.arange(triangles.size).reshape(-1, 3))
    strips, inward = filtered(vtkStripper(), ball), filtered(vtkReverseSense(), ball)
    for name, mesh in {"strips": strips, "inward": inward, "mixed": polydata_from_arrays(points, mixed), "loose": loose}.items():
        write_mesh(mesh, tmp_path / f"{name}.vtp")
        surface = load_time_point([tmp_path / f"{name}.vtp"]).surfaces["segment"]
        assert volume_mm3(surface) == pytest.approx(volume_mm3(ball), rel=1e-4), name
        found = topology(surface)
        assert found.closed and found.oriented and found.components == 1, name
    box = vtkCubeSource()
    box.Update()
    write_mesh(box.GetOutput(), tmp_path / "box.ply")
    assert volume_mm3(load_time_point([tmp_path / "box.ply"]).surfaces["segment"]) == pytest.approx(1.0)


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for year in ("2023", "2025"):
        (tmp_path / year).mkdir()
        paths.append(tmp_path / year / "node.vtp")
        write_mesh(AneurysmTruth(AneurysmShape()).mesh(6.0), paths[-1])
    report = compare_files([[path] for path in paths], tmp_path / "out", registration="none")
    assert [point["name"] for point in report["time_points"]] == ["2023/node", "2025/node"]
    assert distinct_names([*paths, paths[0]]) == ["node (1)", "2025/node", "node (2)"]
    assert distinct_names([Path("first.vtp"), Path("second.nii.gz")]) == ["first", "second"]


def test_undated_volumes_are_pictured_in_their_order() -> None:
    points = [TimePoint("node", {"node": AneurysmTruth(AneurysmShape(growth_mm=mm)).mesh(6.0)}) for mm in (0.0, 3.0)]
    axes = Figure().subplots()
    draw_volumes(axes, compare(points, CompareConfig("none")))
    assert np.ptp(axes.containers[0].lines[0].get_xdata()) == 1
    assert [label.get_text() for label in axes.get_xticklabels()] == ["node", "node"]


def test_an_open_surface_is_refused(tmp_path: Path) -> None:
    points, triangles = triangles_of(AneurysmTruth(AneurysmShape()).mesh(6.0))
    write_mesh(polydata_from_arrays(points, triangles[1:]), tmp_path / "open.stl")
    with pytest.raises(InputError, match="open.stl is open"):
        load_time_point([tmp_path / "open.stl"])


def test_a_wall_that_moved_the_same_everywhere_is_pictured() -> None:
    figure = Figure()
    surface = AneurysmTruth(AneurysmShape()).mesh(6.0)
    moved = np.where(np.arange(surface.GetNumberOfPoints()) % 2, np.float32(4.0), np.nextafter(np.float32(4.0), np.float32(5.0)))
    add_point_values(surface, GROWTH, moved)
    axes = figure.subplots()
    _draw_histogram(axes, SegmentGrowth("node", 1, (), surface))
    assert sum(bar.get_height() for bar in axes.patches[:60]) == pytest.approx(100.0)


def test_result_folders_are_read_with_their_report(tmp_path: Path) -> None:
    surface = AneurysmTruth(AneurysmShape()).mesh(3.0)
    add_point_values(surface, POSITION_ARRAY, np.ones(surface.GetNumberOfPoints()))
    write_mesh(surface, tmp_path / "mesh.vtp")
    geometry = {"plane_to_ras": np.eye(4).tolist(), "pixel_mm": [0.8, 0.9], "input_gap_mm": 5.0, "slice_thickness_mm": 5.0}
    report = {"geometry": geometry, "segments": {"aneurysm": {}}, "inputs": {"study_date": "20240229"}, "preset": "fast"}
    (tmp_path / "report.json").write_text(json.dumps(report))
    point = load_time_point([tmp_path])
    assert point.date == datetime.date(2024, 2, 29)
    assert point.sampling is not None
    assert point.sampling.pixel_mm == 0.9
    assert list(point.surfaces) == ["aneurysm"]
    assert point.surfaces["aneurysm"].GetPointData().GetArray(POSITION_ARRAY) is None
    assert point.sampling.gap_mm == 5.0
    geometry["annotated_gap_mm"] = 15.0
    report["segments"]["aneurysm"]["position_error_is_calibrated"] = True
    (tmp_path / "report.json").write_text(json.dumps(report))
    point = load_time_point([tmp_path])
    assert point.surfaces["aneurysm"].GetPointData().GetArray(POSITION_ARRAY) is not None
    assert point.sampling.gap_mm == point.facts["gap_mm"] == 15.0
    with pytest.raises(InputError, match="lacks one of the wanted segments; it has aneurysm"):
        load_time_point([tmp_path], labels=["liver"])
    (tmp_path / "report.json").write_text(json.dumps(report | {"segments": {}}))
    assert load_time_point([tmp_path]).surfaces == {}
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        load_time_point([tmp_path])


def write_result(folder: Path, *names: str) -> None:
    """A result folder with the same surface for each segment, without volumes."""
    surface = AneurysmTruth(AneurysmShape()).mesh(6.0)
    for name in ["mesh.vtp"] if len(names) == 1 else [f"mesh_{Label(0, name).file_name}.vtp" for name in names]:
        write_mesh(surface, folder / name)
    geometry = {"plane_to_ras": np.eye(4).tolist(), "pixel_mm": [0.8, 0.9], "input_gap_mm": 5.0}
    (folder / "report.json").write_text(json.dumps({"geometry": geometry, "segments": {name: {} for name in names}}))


def test_segments_of_a_result_are_chosen_by_number_or_name(tmp_path: Path) -> None:
    write_result(tmp_path, "Lumen", "node")
    assert list(load_time_point([tmp_path], labels=["LUMEN"]).surfaces) == ["Lumen"]
    voxels = np.zeros((4, 6, 6), np.uint8)
    voxels[1:3, 1:3, 1:3], voxels[1:3, 3:5, 3:5] = 7, 2
    dense = Volume(voxels, np.eye(4))
    write_image(tmp_path / "segmentation.nrrd", dense, segment_header([Label(7, "Lumen"), Label(2, "node")], dense))
    assert list(load_time_point([tmp_path], labels=[7]).surfaces) == ["Lumen"]
    assert list(load_time_point([tmp_path], labels=["Node", 7]).surfaces) == ["node", "Lumen"]
    with pytest.raises(InputError, match=r"lacks one of the wanted segments; it has 7 \(Lumen\), 2 \(node\)"):
        load_time_point([tmp_path], labels=[7, 1])


def test_an_irregular_image_leaves_a_result_its_own_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from MedGSLib.longitudinal import timepoints as module

    write_result(tmp_path, "aorta")
    dense = Volume(np.zeros((5, 6, 7), np.int16), np.diag([1.0, 1.0, 2.0, 1.0]))
    (tmp_path / "ct").mkdir()
    write_image(tmp_path / "volume.nrrd", dense)
    irregular = dense.with_positions(np.array([0.0, 2.0, 4.0, 11.0, 13.0]))
    monkeypatch.setattr(module, "read_volume", lambda path: irregular if path.name == "ct" else read_volume(path))
    volume = load_time_point([tmp_path, tmp_path / "ct"]).volume
    assert volume.positions_mm is None and volume.shape_ijk == (7, 6, 5)
    assert "The slices of ct are irregular" in caplog.text


def test_contours_on_every_eighth_slice_hide_what_lies_between_them() -> None:
    k, j, i = np.indices((64, 46, 46))
    ball = ((k - 32) ** 2 + (j - 22.5) ** 2 + (i - 22.5) ** 2 < 20**2).astype(np.uint8)
    points = []
    for first in (0, 4):
        drawn = np.zeros_like(ball)
        drawn[first::8] = ball[first::8]
        points.append(time_point_from_stack(build_stack(None, Volume(drawn, np.eye(4)), (Label(1, "node"),), margin_mm=None)))
    assert [point.sampling.gap_mm for point in points] == [8.0, 8.0]
    found = compare(points, CompareConfig("none")).growth[0]
    assert found.largest_significant_mm is None
    assert not any(change.significant for change in found.changes if change.measure.endswith("diameter"))


def test_segments_of_one_name_stay_apart() -> None:
    voxels = np.zeros((6, 20, 24), np.uint8)
    voxels[1:5, 3:9, 3:9], voxels[1:5, 11:18, 12:20] = 1, 2
    stack = build_stack(None, Volume(voxels, np.diag([1.0, 1.0, 3.0, 1.0])), [Label(1, "node"), Label(2, "node")], margin_mm=None)
    surfaces = time_point_from_stack(stack).surfaces
    assert list(surfaces) == ["node", "node (2)"]
    assert volume_mm3(surfaces["node"]) < volume_mm3(surfaces["node (2)"])


def test_unusable_time_points_are_refused_in_one_sentence(tmp_path: Path) -> None:
    surface = AneurysmTruth(AneurysmShape()).mesh(6.0)
    one = TimePoint("one", {"aorta": surface})
    with pytest.raises(InputError, match="at least two"):
        compare([one])
    with pytest.raises(InputError, match="no segment in common"):
        compare([one, TimePoint("two", {"liver": surface, "kidney": surface})])
    with pytest.raises(InputError, match="none of auto"):
        compare([one, TimePoint("two", {"aorta": surface})], CompareConfig("magic"))
    with pytest.raises(InputError, match="needs the volume"):
        compare([one, TimePoint("two", {"aorta": surface})], CompareConfig("image"))
    with pytest.raises(InputError, match="The baseline one has no segment"):
        compare([TimePoint("one", {}), one])
    with pytest.raises(InputError, match="both dates need their volume"):
        compare([one, TimePoint("two", {})], CompareConfig("none"))
    with pytest.raises(InputError, match="holds no DICOM images"):
        load_time_point([tmp_path])


def test_single_segments_are_compared_whatever_they_are_called() -> None:
    points = [TimePoint(name, {name: AneurysmTruth(AneurysmShape()).mesh(5.0)}) for name in ("Segment_1", "AAA")]
    result = compare(points, CompareConfig("none"))
    assert result.segments == ("Segment_1",)
    assert list(points[1].surfaces) == ["AAA"]


def test_the_first_stays_the_baseline_on_request() -> None:
    surface = AneurysmTruth(AneurysmShape()).mesh(6.0)
    points = [TimePoint(year, {"aorta": surface}, datetime.date(int(year), 1, 1)) for year in ("2025", "2023")]
    assert [point.name for point in compare(points, CompareConfig("none")).time_points] == ["2023", "2025"]
    assert [point.name for point in compare(points, CompareConfig("none", keep_order=True)).time_points] == ["2025", "2023"]


def test_a_vessel_that_ends_at_once_does_not_bulge() -> None:
    k, j, i = np.indices((12, 44, 44))
    tube = (((i - 21.5) ** 2 + (j - 21.5) ** 2 < 15**2) & (k >= 3) & (k <= 8)).astype(np.uint8)
    matrix = np.diag([1.0, 1.0, 5.0, 1.0])
    stack = build_stack(Volume(tube, matrix), Volume(tube, matrix), (Label(1, "aorta"),), margin_mm=None)
    points = triangles_of(time_point_from_stack(stack).surfaces["aorta"])[0]
    radius = np.hypot(*(points[:, :2] - 21.5).T)
    assert radius.max() < 15.6
    assert radius[(points[:, 2] > 15) & (points[:, 2] < 40)].min() > 14.4


def test_lumen_and_thrombus_make_an_outer_wall(tmp_path: Path) -> None:
    split = make_aneurysm(acquisition=Acquisition(size=(66, 66, 26), pixel_mm=1.8, split=True, noise_hu=0.0))
    stack = build_stack(split.image, split.labels, split.segments, margin_mm=None)
    point = time_point_from_stack(stack)
    assert list(point.surfaces) == ["lumen", "thrombus", OUTER_WALL]
    result = compare([point, point], CompareConfig("none"))
    measures = result.measures[0]
    assert measures["thrombus"].vessel is None
    assert measures[OUTER_WALL].vessel.max_diameter_mm == pytest.approx(split.truth.max_diameter_mm, abs=0.7)
    assert measures["lumen"].vessel.max_diameter_mm < 0.8 * split.truth.max_diameter_mm
    parts = measures["lumen"].lesion.volume_cm3 + measures["thrombus"].lesion.volume_cm3
    assert measures[OUTER_WALL].lesion.volume_cm3 == pytest.approx(parts, rel=0.05)
    for label in stack.labels:
        field = Volume(stack.occupancy[label.value - 1].astype(np.float32), split.labels.ijk_to_ras)
        write_image(tmp_path / f"occupancy_{label.file_name}.nrrd", field)
        write_mesh(point.surfaces[label.name], tmp_path / f"mesh_{label.file_name}.vtp")
    geometry = {"plane_to_ras": np.eye(4).tolist(), "pixel_mm": [1.8, 1.8], "input_gap_mm": 5.0, "slice_thickness_mm": 5.0}
    (tmp_path / "report.json").write_text(json.dumps({"geometry": geometry, "segments": {"lumen": {}, "thrombus": {}}}))
    whole = load_time_point([tmp_path]).surfaces[OUTER_WALL]
    assert volume_mm3(whole) == pytest.approx(split.truth.volume_mm3, rel=0.03)


def test_a_transform_for_the_other_order_is_refused(tmp_path: Path) -> None:
    paths = []
    for name in "ab":
        write_mesh(AneurysmTruth(AneurysmShape()).mesh(6.0), tmp_path / f"{name}.vtp")
        paths.append([tmp_path / f"{name}.vtp"])
    write_transform(tmp_path / "move.tfm", np.eye(4))
    dates = [datetime.date(2025, 1, 10), datetime.date(2023, 1, 10)]
    with pytest.raises(InputError, match="the wrong way round"):
        compare_files(paths, tmp_path / "out", dates=dates, registration=str(tmp_path / "move.tfm"))
    kept = CompareConfig(keep_order=True)
    assert compare_files(paths, tmp_path / "out", dates=dates, registration=str(tmp_path / "move.tfm"), config=kept)["growth"]


def test_a_kind_of_no_segment_is_refused() -> None:
    points = [TimePoint(name, {"aorta": AneurysmTruth(AneurysmShape()).mesh(6.0)}) for name in "ab"]
    with pytest.raises(InputError, match="no segment called lumen to measure; there is aorta"):
        compare(points, CompareConfig("none", kinds={"lumen": "vessel"}))


def test_an_unfinished_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(InputError, match="unfinished result"):
        load_time_point([tmp_path])


def test_a_place_that_cannot_be_written_is_found_out_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from MedGSLib.longitudinal import compare as module

    monkeypatch.setattr(module, "compare", lambda *_: pytest.fail("the work began"))
    write_mesh(AneurysmTruth(AneurysmShape()).mesh(6.0), tmp_path / "a.vtp")
    with pytest.raises(InputError, match="is a file, and a folder is needed"):
        compare_files([[tmp_path / "a.vtp"]] * 2, tmp_path / "a.vtp")


def test_a_comparison_can_be_cancelled() -> None:
    points = [TimePoint(name, {"aorta": AneurysmTruth(AneurysmShape()).mesh(6.0)}) for name in "ab"]
    with pytest.raises(Cancelled):
        compare(points, CompareConfig("none"), lambda event: event.stage != "growth")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20240229", (2024, 2, 29)),
        ("2024-02-29", (2024, 2, 29)),
        ("2023-1-11", (2023, 1, 11)),
        ("2023-11-1", (2023, 11, 1)),
        ("2023.01.11", (2023, 1, 11)),
        ("2023/1/2", (2023, 1, 2)),
        ("2023111", None),
        ("2023-111", None),
        ("11.01.2023", None),
        ("20230229", None),
        ("", None),
    ],
)
def test_dates(text: str, expected: tuple[int, int, int] | None) -> None:
    assert parse_date(text) == (None if expected is None else datetime.date(*expected))


def test_comparing_needs_no_torch() -> None:
    code = "import sys, MedGSLib.longitudinal.compare, MedGSLib.longitudinal.outputs; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
