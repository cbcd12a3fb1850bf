"""The panel under the stand-in: state, validity, runs, cancel, failure, results."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
pytest.importorskip("SimpleITK")

from panel_case import MATRIX, SHAPE, run  # noqa: E402


def test_setup_opens_no_dialog_and_starts_nothing(widget, slicer_stand_in):
    assert slicer_stand_in.dialogs == []
    assert not widget.timer.isActive()
    assert widget.ui.reconstructButton.text == "Reconstruct"
    assert widget.ui.reconstructButton.enabled is False
    assert "Choose an input volume." in widget.ui.reconstructButton.toolTip
    assert "at least one segment" in widget.ui.reconstructButton.toolTip


def test_first_volume_and_segmentation_are_preselected(ready, case):
    node = ready._parameterNode
    assert node.inputVolume is case.volume and node.segmentation is case.segmentation
    assert ready.ui.inputVolumeSelector.currentNode() is case.volume
    assert ready.ui.reconstructButton.enabled is True
    assert "million output voxels" in ready.ui.estimateLabel.text


def test_choices_reach_the_request(ready, case):
    from MedGSLib.panel import parameters

    ui, node = ready.ui, ready._parameterNode
    ui.highRadioButton.checked = True
    ui.modeComboBox.setCurrentText("Segments only")
    ui.resolutionComboBox.setCurrentText("Slices per gap")
    ui.scaleSpinBox.setValue(5)
    ui.seedSpinBox.setValue(7)
    ui.degreeSpinBox.setValue(3)
    ui.annotatedComboBox.setCurrentText("Every N-th slice")
    assert "write a number such as 3" in ui.reconstructButton.toolTip and not ui.reconstructButton.enabled
    ui.annotatedLineEdit.setText("2")
    assert parameters.jobParameters(node) == {
        "preset": "high",
        "mode": "mask",
        "axis": "auto",
        "annotated": "every:2",
        "device": "auto",
        "seed": 7,
        "crop": True,
        "margin": 10.0,
        "scale": 5,
        "overrides": {"degree": 3},
    }
    assert parameters.chosenSegmentIds(node) == (case.ids[0],)
    assert ui.scaleSpinBox.visible and not ui.spacingSpinBox.visible


def test_choosing_another_segmentation_forgets_the_segments(ready, case):
    other = case.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Other")
    ready.ui.segmentSelector.setCurrentNode(other)
    assert ready._parameterNode.segmentation is other and ready._parameterNode.segmentIds == ""
    assert "at least one segment" in ready.ui.reconstructButton.toolTip


def test_run_imports_the_result_and_sums_it_up(ready, case, slicer_stand_in):
    ready.onReconstruct()
    assert ready.ui.reconstructButton.text == "Cancel" and ready.ui.progressBar.visible
    run(ready, lambda: not ready.logic.session.isBusy)
    names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLModelNode")]
    assert names == ["CTA_aorta_MedGS"]
    volume = case.scene.GetNodesByClassByName("vtkMRMLScalarVolumeNode", "CTA_aorta_MedGS").GetItemAsObject(0)
    assert volume.GetParentTransformNode() is case.volume.GetParentTransformNode()
    assert ready.ui.reconstructButton.text == "Reconstruct" and not ready.timer.isActive()
    text = ready.ui.summaryLabel.text
    assert "aorta: volume 3.05 cm3, largest diameter 18.0 mm" in text
    assert "image 31.5 dB, linear interpolation 29.0 dB" in text and "interpolated" in text
    assert ready.ui.show3DButton.enabled and ready.ui.show3DButton.checked
    assert "stub at work" in ready.ui.logTextEdit.plainText
    assert slicer_stand_in.dialogs == [] and slicer_stand_in.shown == [volume]
    assert Path(ready._parameterNode.jobFolder).is_dir()
    assert ready.ui.jobsComboBox.count == 1 and "finished" in ready.ui.jobsComboBox.currentText


def test_the_next_estimate_is_measured(ready):
    assert "rough guess" in ready.ui.estimateLabel.text
    ready.onReconstruct()
    job = ready.logic.session.current
    run(ready, lambda: not ready.logic.session.isBusy)
    job._started_at -= 100.0
    ready.logic.learn(job)
    ready.updateState()
    assert "measured on this computer" in ready.ui.estimateLabel.text


def test_cancel_leaves_no_process_and_no_node(ready, case, use):
    use("slow")
    nodes = case.scene.GetNumberOfNodes()
    ready.onReconstruct()
    job = ready.logic.session.current
    run(ready, lambda: job.last_event is not None and job.last_event.step > 0)
    assert "Fitting the Gaussians" in ready.ui.statusLabel.text and ready.ui.progressBar.maximum == 100
    run(ready, lambda: ready.logic.session.preview is not None)
    assert ready.ui.previewLabel.visible and ready.ui.previewLabel.pixmap.width() == 320
    started = time.monotonic()
    ready.onReconstruct()
    run(ready, lambda: not ready.logic.session.isBusy)
    assert time.monotonic() - started < 2.5
    assert not job.folder.process().is_alive()
    assert case.scene.GetNumberOfNodes() == nodes
    assert "Cancelled on request" in ready.ui.logTextEdit.plainText and not ready.ui.previewLabel.visible
    assert ready.ui.resumeJobButton.enabled and not ready.ui.importJobButton.enabled


def test_reconstruct_goes_on_with_the_same_stopped_job(ready, case, use):
    use("slow")
    ready.onReconstruct()
    job = ready.logic.session.current
    run(ready, lambda: job.last_event is not None)
    ready.onReconstruct()
    run(ready, lambda: not ready.logic.session.isBusy)
    (job.folder.output / "checkpoint").mkdir(parents=True)
    use("quick")
    ready.ui.seedSpinBox.setValue(5)
    ready.onReconstruct()
    assert ready.logic.session.current.folder != job.folder and ready.logic.session.isWhole(ready.logic.session.current)
    run(ready, lambda: not ready.logic.session.isBusy)
    ready.ui.seedSpinBox.setValue(0)
    ready.onReconstruct()
    assert ready.logic.session.current.folder == job.folder
    assert not ready.logic.session.isWhole(ready.logic.session.current), "its duration says nothing"
    run(ready, lambda: not ready.logic.session.isBusy)
    assert case.scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 2
    assert len(list(job.folder.path.parent.glob("job-*"))) == 2


def test_failure_is_one_sentence_and_a_next_step(ready, case, use):
    use("fail")
    nodes = case.scene.GetNumberOfNodes()
    ready.onReconstruct()
    run(ready, lambda: not ready.logic.session.isBusy)
    assert "The stub ran out of memory." in ready.ui.statusLabel.text
    assert "Traceback" not in ready.ui.statusLabel.text
    assert case.scene.GetNumberOfNodes() == nodes


def test_second_job_waits_for_the_first(ready, case, use):
    use("slow")
    ready.onReconstruct()
    first = ready.logic.session.current
    run(ready, lambda: first.last_event is not None)
    use("quick")
    assert ready.ui.queueButton.visible and ready.ui.queueButton.enabled
    ready.onQueue()
    assert ready.logic.session.waiting == 1
    ready.logic.session.cancel()
    run(ready, lambda: not ready.logic.session.isBusy)
    assert case.scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 1


def test_leaving_the_module_does_not_stop_the_job(ready, case, slicer_stand_in):
    ready.onReconstruct()
    ready.exit()
    run(ready, lambda: not ready.logic.session.isBusy)
    assert slicer_stand_in.shown == [], "the views of another module are left alone"
    assert case.scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 1
    ready.enter()
    assert ready.ui.reconstructButton.enabled


def test_quitting_ends_the_worker_and_keeps_its_folder(ready, use, slicer_stand_in):
    use("slow")
    ready.onReconstruct()
    job = ready.logic.session.current
    run(ready, lambda: job.last_event is not None)
    node = ready._parameterNode
    slicer_stand_in.app.emit("aboutToQuit()")
    assert not job.folder.process().is_alive() and job.folder.path.is_dir()
    ready.ui.seedSpinBox.setValue(7)
    assert node.seed == 0, "what the widgets do while they are destroyed does not matter any more"


@pytest.mark.usefixtures("small_sample")
def test_sample_data_is_registered_and_made_once(module, ready, case):
    parent = SimpleNamespace(path=str(Path(module.__file__)))
    loaded = module.MedGS(parent)
    assert parent.title == "MedGS" and "not for clinical diagnosis" in parent.helpText
    slicer.qSlicerSubjectHierarchyScriptedPlugin = lambda _parent: SimpleNamespace(setPythonSource=lambda path: Path(path).stat())
    loaded.onStartupCompleted()
    loaded.onStartupCompleted()
    import SampleData

    sources = SampleData.SampleDataLogic.sources["MedGS"]
    assert [source.sampleName for source in sources] == ["MedGSAneurysm2024", "MedGSAneurysm2025"]
    assert Path(sources[0].thumbnailFileName).is_file()
    ready.onSampleData()
    ready.onSampleData()
    assert case.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 3
    assert ready._parameterNode.inputVolume.GetName() == "MedGSAneurysm2024"
    assert ready.ui.reconstructButton.enabled


@pytest.mark.usefixtures("small_sample")
def test_reload_and_test(module):
    module.MedGSTest().runTest()


def test_right_click_chooses_the_segment_and_its_volume(ready, case):
    from MedGSLib.panel import MedGSSubjectHierarchyPlugin as plugin

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(case.scene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), case.segmentation)
    segment = hierarchy.CreateHierarchyItem(item, "kidney", "Segments")
    hierarchy.SetItemAttribute(segment, slicer.vtkMRMLSegmentationNode.GetSegmentIDAttributeName(), case.ids[1])
    assert plugin.segmentationOfItem(item) == (case.segmentation, "")
    assert plugin.segmentationOfItem(segment) == (case.segmentation, case.ids[1])
    assert plugin.segmentationOfItem(hierarchy.CreateItem(hierarchy.GetSceneItemID(), case.volume)) == (None, "")
    ready.chooseSegment(*plugin.segmentationOfItem(segment))
    assert ready._parameterNode.segmentIds == case.ids[1]
    assert tuple(ready.ui.segmentSelector.selectedSegmentIDs()) == (case.ids[1],)
    instance = plugin.MedGSSubjectHierarchyPlugin(SimpleNamespace())
    instance.showContextMenuActionsForItem(segment)
    assert instance.reconstructAction.visible and instance.itemContextMenuActions() == [instance.reconstructAction]


def test_measures_stand_in_segment_statistics(ready, case):
    from MedGSLib.panel import statisticsplugin

    statisticsplugin.register()
    statisticsplugin.register()
    import SegmentStatistics

    assert len(SegmentStatistics.SegmentStatisticsLogic.registeredPlugins) == 1
    ready.onReconstruct()
    run(ready, lambda: not ready.logic.session.isBusy)
    made = case.scene.GetFirstNode("CTA_aorta_MedGS", "vtkMRMLSegmentationNode")
    plugin = SegmentStatistics.SegmentStatisticsLogic.registeredPlugins[0]()
    plugin.parameters = {"Segmentation": made.GetID()}
    segment = made.GetSegmentation().GetNthSegmentID(0)
    assert plugin.computeStatistics(segment) == {"volume_cm3": 3.05, "max_diameter_mm": 18.0}
    assert plugin.computeStatistics("another") == {}
    plugin.parameters = {"Segmentation": case.segmentation.GetID()}
    assert plugin.computeStatistics(case.ids[0]) == {}
    assert plugin.getMeasurementInfo("volume_cm3")["units"] == "cm3" and plugin.getMeasurementInfo("x") is None


def test_report_for_the_clipboard(ready, slicer_stand_in, use):
    ready.progress.log("a line of the log")
    ready.progress.copyReport()
    assert slicer_stand_in.app.clip.text.startswith("Slicer 5.12.3") and "a line of the log" in slicer_stand_in.app.clip.text
    use("fail")
    ready.onReconstruct()
    run(ready, lambda: not ready.logic.session.isBusy)
    ready.progress.copyReport()
    assert '"preset": "fast"' in slicer_stand_in.app.clip.text and "ran out of memory" in slicer_stand_in.app.clip.text
    assert '"stage":"fit"' in slicer_stand_in.app.clip.text, "what the worker printed"


def test_emptied_model_field_refines_nothing(ready):
    ready.ui.refinePathLineEdit.currentPath = "/data/earlier.medgs"
    assert ready._parameterNode.refineModel == "/data/earlier.medgs"
    ready.ui.refinePathLineEdit.currentPath = ""
    assert ready._parameterNode.refineModel == ""


def test_show_3d_hides_and_shows_the_model_and_keeps_its_surface(ready, case):
    ready.onReconstruct()
    run(ready, lambda: not ready.logic.session.isBusy)
    model = case.scene.GetFirstNode("CTA_aorta_MedGS", "vtkMRMLModelNode").GetDisplayNode()
    segmentation = case.scene.GetFirstNode("CTA_aorta_MedGS", "vtkMRMLSegmentationNode")
    surface = segmentation.GetClosedSurfaceInternalRepresentation(segmentation.GetSegmentation().GetNthSegmentID(0))
    ready.ui.show3DButton.click()
    assert not model.GetVisibility3D() and model.GetVisibility() and model.GetVisibility2D()
    ready.ui.show3DButton.click()
    assert model.GetVisibility3D()
    assert segmentation.GetClosedSurfaceInternalRepresentation(segmentation.GetSegmentation().GetNthSegmentID(0)) is surface
    case.scene.Clear(False)
    assert not ready.ui.show3DButton.enabled and ready.ui.summaryLabel.text == "No result yet."


def test_only_volumes_that_the_selector_offers_are_preselected(widget, slicer_stand_in):
    from MedGSLib.scene import volumes

    scene = slicer_stand_in.scene
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    slicer_stand_in.app.selection.SetActiveVolumeID(labels.GetID())
    widget.initializeParameterNode()
    assert widget._parameterNode.inputVolume is None
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CTA")
    volumes.setVoxels(volume, np.zeros(SHAPE[::-1], np.int16), MATRIX)
    scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "of another volume")
    drawn = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "of this volume")
    drawn.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    widget.initializeParameterNode()
    assert widget._parameterNode.inputVolume is volume and widget._parameterNode.segmentation is drawn


def test_inputs_cannot_be_outputs(ready, case):
    ready.ui.outputVolumeSelector.setCurrentNode(case.volume)
    assert "The output volume is the input" in ready.ui.reconstructButton.toolTip and not ready.ui.reconstructButton.enabled
    ready.ui.makeVolumeCheckBox.checked = False
    assert ready.ui.reconstructButton.enabled
    ready.ui.outputSegmentationSelector.setCurrentNode(case.segmentation)
    assert "The output segmentation is the input" in ready.ui.reconstructButton.toolTip


def test_new_region_begins_as_the_whole_volume(ready, case):
    from MedGSLib.scene import volumes

    roi = case.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "ROI")
    ready.ui.roiSelector.setCurrentNode(roi)
    assert "'ROI' covers fewer than two voxels" in ready.ui.reconstructButton.toolTip
    ready.ui.roiSelector.nodeAddedByUser(roi)
    assert volumes.roiCrop(roi, case.volume) == volumes.Crop((0, 0, 0), SHAPE)
    assert ready.regionTimer.isActive()
    ready.updateState()
    assert ready.ui.reconstructButton.enabled
    ready.regionTimer.stop()
    roi.SetSize(0, 0, 0)
    assert ready.regionTimer.isActive(), "what is told follows a region that is dragged"
    ready.ui.roiSelector.setCurrentNode(None)
    ready.regionTimer.stop()
    roi.SetSize(50, 50, 50)
    assert not ready.regionTimer.isActive()


def test_end_of_a_job_is_told_in_the_status_bar(ready, slicer_stand_in):
    ready.onReconstruct()
    ready.exit()
    run(ready, lambda: not ready.logic.session.isBusy)
    assert slicer_stand_in.statuses[-1].startswith("MedGS: Done in")


def test_the_segment_that_is_edited_is_preselected(widget, case):
    editor = slicer.vtkMRMLSegmentEditorNode()
    editor.SetSingletonTag("SegmentEditor")
    editor = case.scene.AddNode(editor)
    editor.SetAndObserveSegmentationNode(case.segmentation)
    editor.SetSelectedSegmentID(case.ids[1])
    widget.initializeParameterNode()
    assert list(widget.ui.segmentSelector.selectedSegmentIDs()) == [case.ids[1]]


def test_what_is_said_during_a_run_can_be_read(ready, use, monkeypatch):
    from MedGSLib.panel import progressview

    use("slow")
    ready.onReconstruct()
    run(ready, lambda: "Fitting" in ready.ui.statusLabel.text)
    ready.progress.say("Choose one baseline only.")
    ready.onTimer()
    assert ready.ui.statusLabel.text == "Choose one baseline only."
    monkeypatch.setattr(progressview.time, "monotonic", lambda now=time.monotonic: now() + progressview.READING_S)
    ready.progress.update()
    assert "Fitting" in ready.ui.statusLabel.text


def test_an_import_that_fails_unexpectedly_leaves_a_usable_panel(ready, monkeypatch):
    monkeypatch.setattr(ready.logic, "importResult", lambda *_arguments: 1 / 0)
    ready.onReconstruct()
    with pytest.raises(ZeroDivisionError):
        run(ready, lambda: False)
    assert ready.ui.reconstructButton.text == "Reconstruct" and ready.ui.importJobButton.enabled
    ready.onTimer()
    assert not ready.timer.isActive()
