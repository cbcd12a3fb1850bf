"""From a comparison folder to nodes: place, growth map, tables, chart, largest change, failure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")

from MedGSLib.errors import InputError  # noqa: E402
from MedGSLib.io.meshes import write_mesh  # noqa: E402
from MedGSLib.scene import frames, segments, volumes  # noqa: E402
from MedGSLib.scene.comparison import GROWTH_ARRAY, comparisonToScene, overlay  # noqa: E402
from MedGSLib.scene.context import SceneContext, SegmentSource, parentContext  # noqa: E402

SHIFT = np.eye(4)
SHIFT[:3, 3] = (5.0, -3.0, 2.0)
TIP = (0.0, 0.0, 18.0)


def sphere(radius: float, values: np.ndarray | None = None) -> vtk.vtkPolyData:
    """A ball's surface, with the array that the comparison writes."""
    source = vtk.vtkSphereSource()
    source.SetRadius(radius)
    source.SetThetaResolution(24)
    source.SetPhiResolution(24)
    source.Update()
    mesh = source.GetOutput()
    if values is not None:
        shown = np.where(np.arange(mesh.GetNumberOfPoints()) < len(values), np.resize(values, mesh.GetNumberOfPoints()), np.nan)
        array = vtk.util.numpy_support.numpy_to_vtk(shown.astype(np.float32), deep=True)
        array.SetName("GrowthShownMm")
        mesh.GetPointData().AddArray(array)
    return mesh


def change(measure: str, unit: str, before: float, after: float, verdict: str) -> dict:
    """One entry of ``changes``."""
    return {
        "measure": measure,
        "unit": unit,
        "before": before,
        "after": after,
        "difference": after - before,
        "per_year": after - before,
        "band": 1.0,
        "verdict": verdict,
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    """A comparison of two dates, as :mod:`MedGSLib.longitudinal.outputs` writes it."""
    write_mesh(sphere(15.0), tmp_path / "00_aorta.vtp")
    write_mesh(sphere(18.0, np.array([3.0, -0.5])), tmp_path / "01_aorta.vtp")
    growth = {
        "segment": "aorta",
        "followup": 1,
        "aligned": True,
        "files": ["01_aorta.vtp", "01_aorta.ply"],
        "baseline_file": "00_aorta.vtp",
        "largest_significant_mm": 3.0,
        "largest_significant_place_ras": TIP,
        "verdict": "growth",
        "changes": [change("volume", "cm3", 14.1, 24.4, "changed"), change("max_diameter", "mm", 30.0, 30.4, "within measurement error")],
    }
    points = [
        {"name": "output", "date": "2024-03-01", "registration": {"followup_to_baseline_ras": np.eye(4).tolist(), "message": ""}},
        {
            "name": "output",
            "date": "2025-03-01",
            "registration": {"followup_to_baseline_ras": SHIFT.tolist(), "message": "The images agree."},
        },
    ]
    document = {"segments": ["aorta"], "time_points": points, "growth": [growth], "band": "The band is 95 %."}
    (tmp_path / "comparison.json").write_text(json.dumps(document))
    return tmp_path


@pytest.fixture
def contexts(make) -> list[SceneContext]:
    """Two jobs; the baseline's volume lies under a rotated parent."""
    parent = make.transform(make.rotation((0, 0, 1), 30, (1, 2, 3)), "Registration")
    source = SegmentSource("s1", 1, segments.SegmentProperties("aorta", (0.1, 0.6, 0.2)))
    return [
        SceneContext("", "CTA 1", segments=(source,), studyDate="20240301", **parentContext(parent)),
        SceneContext("", "CTA 2", segments=(source,), studyDate="20250301"),
    ]


def test_everything_lies_in_the_baselines_frame(scene, folder, contexts):
    made = comparisonToScene(scene, folder, contexts)
    parent = scene.GetFirstNodeByName("Registration")
    for node in (*made.transforms, *made.baseline, *made.followups, made.growthPoint):
        assert node.GetParentTransformNode() is parent
    assert [node.GetName() for node in made.baseline] == ["CTA 1 2024-03-01 aorta"]
    assert [node.GetName() for node in made.followups] == ["CTA 2 2025-03-01 aorta aligned"]
    assert made.transforms[0].GetName() == "CTA 2 2025-03-01 to CTA 1 2024-03-01"
    np.testing.assert_allclose(frames.matrixBetween(made.transforms[0], parent), SHIFT)
    tip = np.zeros(3)
    made.growthPoint.GetNthControlPointPositionWorld(0, tip)
    expected = volumes.transformPoints(frames.transformBetween(parent), np.array([TIP]))[0]
    np.testing.assert_allclose(tip, expected, atol=1e-6)
    assert made.growthPoint.GetNthControlPointLabel(0) == "aorta +3.0 mm"


def test_growth_map_is_symmetric_and_grey_inside_the_band(scene, folder, contexts):
    model = comparisonToScene(scene, folder, contexts).followups[0]
    values = vtk.util.numpy_support.vtk_to_numpy(model.GetPolyData().GetPointData().GetArray(GROWTH_ARRAY))
    assert np.isfinite(values).all() and values[0] == 3.0 and values[-1] == 0.0
    display = model.GetDisplayNode()
    assert display.GetScalarVisibility() and display.GetActiveScalarName() == GROWTH_ARRAY
    assert display.GetScalarRange() == (-3.0, 3.0)
    colors = display.GetColorNode()
    middle, ends = np.zeros(4), (np.zeros(4), np.zeros(4))
    colors.GetColor(colors.GetNumberOfColors() // 2, middle)
    colors.GetColor(0, ends[0])
    colors.GetColor(colors.GetNumberOfColors() - 1, ends[1])
    assert np.ptp(middle[:3]) < 0.02
    assert ends[0][2] > ends[0][0] and ends[1][0] > ends[1][2]
    assert slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(model).GetTitleText() == GROWTH_ARRAY


def test_tables_and_chart(scene, folder, contexts):
    made = comparisonToScene(scene, folder, contexts)
    changes, course = (node.GetTable() for node in made.tables)
    assert changes.GetValueByName(0, "Measure").ToString() == "volume"
    assert changes.GetValueByName(1, "Verdict").ToString() == "within measurement error"
    assert course.GetValueByName(1, "Years").ToDouble() == pytest.approx(1.0, abs=0.002)
    assert course.GetValueByName(1, "aorta volume (cm3)").ToDouble() == 24.4
    assert made.chart.GetNumberOfPlotSeriesNodes() == 2


def test_progression_is_a_sequence_over_days(scene, folder, contexts):
    comparisonToScene(scene, folder, contexts)
    sequence = scene.GetFirstNodeByName("Progression of aorta")
    assert [sequence.GetNthIndexValue(index) for index in range(2)] == ["0", "365"]
    assert sequence.GetNthDataNode(1).GetPolyData().GetNumberOfPoints() > 0
    browser = scene.GetFirstNodeByName("Progression CTA 1")
    assert browser.GetMasterSequenceNode() is sequence
    played = browser.GetProxyNode(sequence)
    assert played.GetName() == "Progression of aorta (played)" and not played.GetDisplayVisibility()


def test_the_baseline_is_laid_over_the_growth_map(scene, folder, contexts):
    model = comparisonToScene(scene, folder, contexts).baseline[0]
    display = overlay(model, "vtkMRMLViewNode2")
    assert model.GetNumberOfDisplayNodes() == 2 and display.GetOpacity() == pytest.approx(0.3)
    assert display.IsDisplayableInView("vtkMRMLViewNode2") and not display.IsDisplayableInView("vtkMRMLViewNode1")


def test_a_propagated_segment_is_named_so(scene, folder, contexts):
    document = json.loads((folder / "comparison.json").read_text())
    document["growth"][0]["verdict"] += " (segment propagated, not drawn)"
    (folder / "comparison.json").write_text(json.dumps(document | {"propagation": "Nobody drew it."}))
    lines = comparisonToScene(scene, folder, contexts).sentences
    assert "growth (segment propagated, not drawn), at most +3.0 mm" in lines[1] and "Nobody drew it." in lines


def test_sentences_say_what_is_beyond_the_band(scene, folder, contexts):
    lines = comparisonToScene(scene, folder, contexts).sentences
    assert lines[0] == "CTA 2 2025-03-01: The images agree."
    assert "growth, at most +3.0 mm" in lines[1] and "max diameter 30.0 to 30.4 mm (within measurement error)" in lines[1]


def test_failed_registration_shows_no_growth(scene, folder, contexts):
    document = json.loads((folder / "comparison.json").read_text())
    document["growth"][0].update(aligned=False, files=[], largest_significant_mm=None, verdict="not aligned, so no growth map is shown")
    (folder / "comparison.json").write_text(json.dumps(document))
    made = comparisonToScene(scene, folder, contexts)
    assert made.followups == () and made.growthPoint is None and "not aligned" in made.sentences[1]


@pytest.mark.parametrize("damage", ["mesh", "json", "count"])
def test_nothing_partial_is_left(scene, folder, contexts, damage):
    before = scene.GetNumberOfNodes()
    if damage == "mesh":
        (folder / "01_aorta.vtp").write_bytes(b"damaged")
    elif damage == "json":
        (folder / "comparison.json").write_text(json.dumps({"time_points": [], "growth": [{}]}))
    with pytest.raises(InputError):
        comparisonToScene(scene, folder, contexts[:1] if damage == "count" else contexts)
    assert scene.GetNumberOfNodes() == before
