"""The compare section: results of one patient at two dates, compared by a real process, as nodes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
pytest.importorskip("SimpleITK")
pytest.importorskip("matplotlib")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scene"))
SHAPE = (30, 26, 12)
MATRIX = np.diag([-1.0, -1.0, 3.0, 1.0])


@pytest.fixture
def dates(widget, slicer_stand_in):
    """Two finished jobs: a ball of 8 mm in 2024, of 11 mm in 2025."""
    from finished import finish

    from MedGSLib import geometry
    from MedGSLib.job.launch import WorkerCommand
    from MedGSLib.scene import segments, volumes
    from MedGSLib.scene.export import SceneInput, sceneToJob

    scene = slicer_stand_in.scene
    center = geometry.transform_points(MATRIX, (np.array(SHAPE) - 1) / 2.0)
    mask = np.zeros(SHAPE[::-1], np.uint8)
    mask[4:8, 8:18, 8:22] = 1
    folders = []
    for year, radius in (("2024", 8.0), ("2025", 11.0)):
        volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"CTA{year}")
        volumes.setVoxels(volume, np.zeros(SHAPE[::-1], np.int16), MATRIX)
        volume.SetAttribute(volumes.STUDY_DATE_ATTRIBUTE, f"{year}0301")
        segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"Segmentation{year}")
        segments.addSegment(segmentation.GetSegmentation(), segments.SegmentProperties("tumour", (0.1, 0.7, 0.2)), mask, MATRIX)
        folder = sceneToJob(widget.logic.jobsFolder, SceneInput(volume, segmentation))
        finish(folder, [(center, radius)], SHAPE)
        folders.append(folder)
    widget.environment.command = lambda: WorkerCommand(Path(sys.executable))
    widget.comparison._command = widget.environment.command
    widget.initializeParameterNode()
    widget.refreshJobs()
    return SimpleNamespace(scene=scene, folders=folders)


def tick(widget) -> None:
    """Tick all results."""
    for row in range(widget.ui.timePointsTable.rowCount):
        widget.ui.timePointsTable.cellWidget(row, 0).checked = True


def test_results_are_listed_with_their_dates(widget, dates):
    table = widget.ui.timePointsTable
    assert table.rowCount == 2
    assert [table.cellWidget(row, 1).text for row in range(2)] == ["2024-03-01", "2025-03-01"]
    assert table.cellWidget(0, 0).text.startswith("CTA2024_tumour_MedGS")
    assert not widget.ui.compareButton.enabled and "at least two" in widget.ui.compareButton.toolTip
    tick(widget)
    assert widget.ui.compareButton.enabled
    widget.comparison.refresh()
    assert table.cellWidget(1, 0).checked, "ticks are kept"


def compare(widget) -> None:
    """Compare the ticked results and wait for the end."""
    widget.ui.compareButton.click()
    assert widget.ui.compareButton.text == "Cancel" and widget.timer.isActive()
    end = time.monotonic() + 180
    while widget.comparison.isBusy:
        assert time.monotonic() < end
        widget.onTimer()
        time.sleep(0.05)


def test_comparison_becomes_nodes(widget, dates):
    from MedGSLib.scene.nodes import isShownIn3D, resultToScene

    views = [dates.scene.AddNewNodeByClass("vtkMRMLViewNode", f"View{number}") for number in (1, 2)]
    slices = dates.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    results = [resultToScene(dates.scene, folder.path) for folder in dates.folders]
    layout = SimpleNamespace(setLayout=lambda _layout: None, threeDViewCount=2, resetThreeDViews=lambda: None)
    layout.threeDWidget = lambda index: SimpleNamespace(mrmlViewNode=lambda: views[index])
    slicer.app.layoutManager = lambda: layout
    tick(widget)
    widget.ui.registrationComboBox.setCurrentText("none")
    assert all(isShownIn3D(result) for result in results)
    compare(widget)
    assert not any(isShownIn3D(result) for result in results), "they would cover the growth map"
    names = {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLModelNode")}
    assert {"CTA2024 2024-03-01 tumour", "CTA2025 2025-03-01 tumour aligned"} <= names, widget.ui.logTextEdit.plainText
    assert "growth, at most +" in widget.ui.compareLabel.text
    model = dates.scene.GetFirstNodeByName("CTA2025 2025-03-01 tumour aligned")
    values = slicer.util.arrayFromModelPointData(model, "Growth (mm)")
    assert np.median(values) == pytest.approx(3.0, abs=0.3)
    assert model.GetDisplayNode().GetViewNodeIDs() == (views[1].GetID(), slices.GetID()) and views[0].GetLinkedControl()
    assert slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(model).GetViewNodeIDs() == (views[1].GetID(),)
    baseline = dates.scene.GetFirstNodeByName("CTA2024 2024-03-01 tumour")
    assert baseline.GetNthDisplayNode(0).GetViewNodeIDs() == (views[0].GetID(), slices.GetID())
    assert baseline.GetNthDisplayNode(1).GetViewNodeIDs() == (views[1].GetID(),)
    assert widget.ui.jumpButton.enabled and not widget.timer.isActive()
    place = []
    slicer.modules.markups = SimpleNamespace(logic=lambda: SimpleNamespace(JumpSlicesToLocation=lambda *where: place.append(where)))
    widget.ui.jumpButton.click()
    assert len(place) == 1 and place[0][3] is True
    compare(widget)
    assert not model.GetDisplayVisibility() and not baseline.GetDisplayVisibility(), "the second comparison replaces the first"


def test_half_given_dates_are_refused_and_cancel_leaves_nothing(widget, dates):
    tick(widget)
    nodes = dates.scene.GetNumberOfNodes()
    widget.ui.timePointsTable.cellWidget(0, 1).text = "last spring"
    widget.ui.compareButton.click()
    assert "Give a date like 2025-03-01" in widget.ui.statusLabel.text and not widget.comparison.isBusy
    widget.ui.timePointsTable.cellWidget(0, 1).text = "20240301"
    widget.ui.compareButton.click()
    process = widget.comparison._run._process
    widget.ui.compareButton.click()
    assert not process.is_alive() and "Cancelled" in widget.ui.compareLabel.text
    assert dates.scene.GetNumberOfNodes() == nodes


def test_the_baseline_can_be_chosen(widget, dates):
    tick(widget)
    table = widget.ui.timePointsTable
    for row in range(2):
        table.cellWidget(row, 2).checked = True
    widget.ui.compareButton.click()
    assert "one baseline only" in widget.ui.statusLabel.text and not widget.comparison.isBusy
    table.cellWidget(0, 2).checked = False
    widget.ui.compareButton.click()
    run = widget.comparison._run
    widget.ui.compareButton.click()
    assert [job.date for job in run.jobs] == ["2025-03-01", "2024-03-01"]
    assert run._arguments[run._arguments.index("--dates") + 1] == "2025-03-01"


def test_a_date_without_a_segment_is_listed_but_no_baseline(widget, dates):
    from dataclasses import replace

    from MedGSLib.errors import InputError
    from MedGSLib.panel.comparing import ComparisonRun, comparableJobs
    from MedGSLib.panel.session import knownJobs

    jobs = comparableJobs(knownJobs(dates.folders[0].path.parent))
    bare = replace(jobs[0], context=replace(jobs[0].context, segments=()))
    root, command = dates.folders[0].path.parent, widget.comparison._command()
    with pytest.raises(InputError, match="cannot be the baseline"):
        ComparisonRun([bare, jobs[1]], [job.date for job in jobs], "auto", root, command)
    run = ComparisonRun([bare, jobs[1]], [job.date for job in jobs], "auto", root, command, baseline=1)
    assert run.jobs[1] is bare


def test_irregular_stacks_go_without_their_image(dates):
    from dataclasses import replace

    from MedGSLib.job.request import JobGeometry
    from MedGSLib.panel.comparing import comparableJobs
    from MedGSLib.panel.session import knownJobs

    folder = dates.folders[0]
    request = folder.read_request()
    assert ",".join(job.arguments for job in comparableJobs(knownJobs(folder.path.parent))).count("image.nrrd") == 2
    folder.write_request(replace(request, geometry=JobGeometry.from_matrix(MATRIX, np.arange(12) * 3.0 + (np.arange(12) > 5))))
    assert ",".join(job.arguments for job in comparableJobs(knownJobs(folder.path.parent))).count("image.nrrd") == 1


def test_closing_the_scene_stops_a_comparison_of_its_patient(widget, dates):
    tick(widget)
    widget.ui.compareButton.click()
    process = widget.comparison._run._process
    dates.scene.Clear(False)
    assert not process.is_alive() and not widget.comparison.isBusy
    assert "scene was closed" in widget.ui.compareLabel.text and widget.ui.compareButton.text == "Compare"
