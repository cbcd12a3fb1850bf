"""The panel while scenes are closed, saved and read, and while it is left, entered, reloaded and destroyed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")
pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
pytest.importorskip("SimpleITK")

from panel_case import MATRIX, SHAPE, run, tickSegments  # noqa: E402


def job_of_a_closed_scene(ready, case, use):
    use("slow")
    ready.onReconstruct()
    job = ready.logic.session.current
    run(ready, lambda: job.last_event is not None)
    case.scene.Clear(False)
    return job


def test_closing_the_scene_keeps_the_job_for_a_later_import(ready, case, use):
    job = job_of_a_closed_scene(ready, case, use)
    assert ready.logic.session.isBusy and "scene was closed" in ready.ui.logTextEdit.plainText
    ready.logic.session.cancel()
    run(ready, lambda: not ready.logic.session.isBusy)
    use("quick")
    ready.jobs.refresh()
    ready.resumeFolder(job.folder)
    run(ready, lambda: not ready.logic.session.isBusy)
    assert "import it from Advanced" in ready.ui.statusLabel.text
    assert case.scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 0
    assert ready.ui.importJobButton.enabled
    ready.ui.importJobButton.click()
    assert case.scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 1


def test_job_of_a_closed_scene_does_not_enter_the_next_one(ready, case, use):
    """Not even where the next patient's volume has the same name, ID and geometry."""
    from MedGSLib.scene import volumes

    job = job_of_a_closed_scene(ready, case, use)
    volume = case.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CTA")
    volumes.setVoxels(volume, np.zeros(SHAPE[::-1], np.int16), MATRIX)
    assert not ready.logic.session.belongsTo(case.scene, job.folder)
    ready.onReconstruct()
    run(ready, lambda: not ready.logic.session.isBusy)
    ready.resumeFolder(job.folder)
    assert ready.logic.session.belongsTo(case.scene, job.folder), "resumed for this scene"


def test_late_import_spares_nodes_of_another_patient_that_are_called_alike(ready, case, use):
    from MedGSLib.scene import volumes

    ready._parameterNode.outputVolume = case.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Dense")
    targetId = ready._parameterNode.outputVolume.GetID()
    job_of_a_closed_scene(ready, case, use)
    ready.logic.session.cancel()
    run(ready, lambda: not ready.logic.session.isBusy)
    folder = ready.logic.session.current.folder
    use("quick")
    ready.resumeFolder(folder)
    run(ready, lambda: not ready.logic.session.isBusy)
    other = np.diag([1.0, 1.0, 2.0, 1.0])
    for name in ("CTA", "Dense"):
        volumes.setVoxels(case.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name), np.ones((3, 4, 5), np.int16), other)
    dense = case.scene.GetFirstNodeByName("Dense")
    assert dense.GetID() == targetId
    ready.ui.importJobButton.click()
    assert case.scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 1
    assert volumes.voxels(dense).shape == (3, 4, 5) and np.array_equal(volumes.ijkToRas(dense), other)


def test_a_deleted_segment_is_no_longer_chosen(ready, case):
    from MedGSLib.panel import parameters

    assert parameters.chosenSegmentIds(ready._parameterNode) == (case.ids[0],)
    case.segmentation.GetSegmentation().RemoveSegment(case.ids[0])
    assert parameters.chosenSegmentIds(ready._parameterNode) == ()
    ready._parameterNode.segmentIds += "\n"
    assert list(ready.ui.segmentSelector.selectedSegmentIDs()) == []


def test_state_is_saved_with_the_scene(ready, case, tmp_path):
    ready.ui.seedSpinBox.setValue(11)
    tickSegments(ready, case.ids)
    ready.ui.annotatedLineEdit.setText("0, 5 & <9>")
    ready.ui.paperRadioButton.checked = True
    case.scene.SetRootDirectory(str(tmp_path))
    case.scene.SetURL(str(tmp_path / "scene.mrml"))
    for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
        node.SetSaveWithScene(not node.IsA("vtkMRMLVolumeNode") or node.AddDefaultStorageNode())
        if node.IsA("vtkMRMLScalarVolumeNode") or node.IsA("vtkMRMLSegmentationNode"):
            node.AddDefaultStorageNode()
            storage = node.GetStorageNode()
            storage.SetFileName(str(tmp_path / f"{node.GetID()}.{storage.GetDefaultWriteFileExtension()}"))
            storage.WriteData(node)
            node.SetSaveWithScene(True)
    assert case.scene.Commit()
    ready.exit()
    case.scene.Clear(False)
    case.scene.Connect()
    ready.enter()
    node = ready._parameterNode
    assert (node.seed, node.preset) == (11, "paper")
    assert node.inputVolume.GetName() == "CTA" and node.segmentation.GetName() == "Segmentation"
    assert ready.ui.seedSpinBox.value == 11 and ready.ui.paperRadioButton.checked
    assert list(ready.ui.segmentSelector.selectedSegmentIDs()) == case.ids
    assert node.annotatedDetail == "0, 5 & <9>"


def test_loading_a_scene_is_not_disturbed_by_the_widgets(ready, case, tmp_path):
    """While a scene is read the selectors lose their nodes, which must not reach the parameters."""
    tickSegments(ready, [case.ids[1]])
    scene, node = case.scene, ready._parameterNode.parameterNode
    scene.StartState(scene.ImportState)
    ready.ui.segmentSelector.setCurrentNode(None)
    ready.ui.roiSelector.setCurrentNode(None)
    ready.ui.inputVolumeSelector.setCurrentNode(None)
    assert node.GetNodeReference("inputVolume") is case.volume and node.GetNodeReference("segmentation") is case.segmentation
    scene.AddObserver(scene.EndImportEvent, lambda *_: ready.ui.inputVolumeSelector.setCurrentNode(None))
    scene.AddObserver(scene.EndBatchProcessEvent, lambda *_: ready.ui.inputVolumeSelector.setCurrentNode(None))
    scene.EndState(scene.ImportState)
    assert node.GetNodeReference("inputVolume") is case.volume
    assert ready.ui.inputVolumeSelector.currentNode() is case.volume
    assert list(ready.ui.segmentSelector.selectedSegmentIDs()) == [case.ids[1]]


def test_choices_outlive_leaving_and_entering_the_module(ready, case):
    ready.ui.modeComboBox.setCurrentText("Segments only")
    ready.ui.annotatedComboBox.setCurrentText("All slices")
    for _ in range(3):
        ready.exit()
        ready.enter()
    node = ready._parameterNode
    assert (node.mode, node.annotated, node.axis) == ("Segments only", "All slices", "auto")
    assert ready.ui.modeComboBox.currentText == "Segments only"


def test_entering_again_adds_no_observers(ready, case):
    ready.exit()
    ready.enter()
    node = ready._parameterNode.parameterNode
    calls = []
    tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: calls.append(None))
    for _ in range(3):
        ready.exit()
        ready.enter()
    assert node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: None) == tag + 1


def test_a_cleaned_up_panel_leaves_widgets_and_parameters_alone(module, case, slicer_stand_in):
    outer = module.MedGSWidget()
    outer.setup()
    outer.enter()
    panel, node = outer.panel, outer.panel._parameterNode
    outer.cleanup()
    panel.ui.seedSpinBox.setValue(7)
    assert node.seed == 0
    node.seed = 9
    assert panel.ui.seedSpinBox.value == 7


def test_reload_takes_the_library_along(module, case, monkeypatch):
    outer, before = module.MedGSWidget(), {name: value for name, value in sys.modules.items() if name.startswith("MedGSLib")}
    outer.setup()
    outer.onReload()
    assert "MedGSLib.panel.panel" not in sys.modules and "MedGSLib" not in sys.modules
    outer.cleanup()
    for name in [name for name in sys.modules if name.partition(".")[0] == "MedGSLib"]:
        del sys.modules[name]
    sys.modules.update(before)
