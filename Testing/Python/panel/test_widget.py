"""The panel under the stand-in: state, validity, runs, cancel, failure, scene close, saving."""

from __future__ import annotations

import importlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")
pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
pytest.importorskip("SimpleITK")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scene"))
STUB = Path(__file__).with_name("stub_worker.py")
SHAPE = (30, 26, 8)
MATRIX = np.diag([-1.0, -1.0, 4.0, 1.0])


@pytest.fixture(scope="session")
def stub_output(tmp_path_factory) -> str:
    """The output folder of a finished job: a ball in the middle of the case's volume."""
    from finished import write_outputs

    from MedGSLib import geometry
    from MedGSLib.job.folder import JobFolder
    from MedGSLib.job.request import JobGeometry, JobInputs, JobRequest
    from MedGSLib.volume import Label

    inputs = JobInputs("image.nrrd", "mask.nrrd", (Label(1, "aorta"),))
    folder = JobFolder.create(tmp_path_factory.mktemp("stub"), JobRequest(inputs, JobGeometry.from_matrix(MATRIX)))
    for name in ("image.nrrd", "mask.nrrd"):
        (folder.path / name).touch()
    write_outputs(folder, [(geometry.transform_points(MATRIX, (np.array(SHAPE) - 1) / 2.0), 8.0)], SHAPE)
    return str(folder.output)


def stub_command(way: str, output: str) -> Any:
    """A worker command that runs the stub."""
    environment = {**os.environ, "MEDGS_STUB": way, "MEDGS_STUB_OUTPUT": output, "OMP_NUM_THREADS": "1"}
    return SimpleNamespace(argv=lambda *arguments: [sys.executable, str(STUB), *arguments], environ=lambda: environment)


def run(widget: Any, until: Callable[[], bool], seconds: float = 30.0) -> None:
    """Tick the panel's timer by hand."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, widget.ui.logTextEdit.plainText
        widget.onTimer()
        time.sleep(0.02)
    widget.onTimer()


@pytest.fixture
def case(slicer_stand_in) -> SimpleNamespace:
    """A volume with a segmentation of two segments in the scene, under a rotated parent."""
    from MedGSLib.scene import segments, volumes

    scene = slicer_stand_in.scene
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Registration")
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CTA")
    volumes.setVoxels(volume, np.zeros(SHAPE[::-1], np.int16), MATRIX)
    volume.CreateDefaultDisplayNodes()
    volume.SetAndObserveTransformNodeID(parent.GetID())
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetAndObserveTransformNodeID(parent.GetID())
    mask = np.zeros(SHAPE[::-1], np.uint8)
    mask[2:6, 8:18, 8:22] = 1
    for name in ("aorta", "kidney"):
        segments.addSegment(segmentation.GetSegmentation(), segments.SegmentProperties(name, (1.0, 0.0, 0.0)), mask, MATRIX)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    return SimpleNamespace(scene=scene, volume=volume, segmentation=segmentation, ids=segments.segmentIds(segmentation))


@pytest.fixture
def ready(case, widget, use) -> Any:
    """The panel with the case's first segment chosen and the stub as worker."""
    widget.initializeParameterNode()
    widget.ui.segmentSelector.setSelectedSegmentIDs([case.ids[0]])
    widget.ui.fastRadioButton.checked = True
    use("quick")
    return widget


@pytest.fixture
def use(widget, monkeypatch, stub_output) -> Callable[[str], None]:
    """``use(way)`` lets the panel start the stub in one of its ways."""

    def choose(way: str) -> None:
        monkeypatch.setattr(type(widget.environment), "complaint", "")
        monkeypatch.setattr(widget.environment, "command", lambda: stub_command(way, stub_output))
        widget.updateState()

    return choose


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


def test_closing_the_scene_keeps_the_job_for_a_later_import(ready, case, use):
    use("slow")
    ready.onReconstruct()
    job = ready.logic.session.current
    run(ready, lambda: job.last_event is not None)
    case.scene.Clear(False)
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


def test_state_is_saved_with_the_scene(ready, case, tmp_path):
    ready.ui.seedSpinBox.setValue(11)
    ready.ui.segmentSelector.setSelectedSegmentIDs(case.ids)
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


@pytest.fixture
def small_sample(slicer_stand_in, monkeypatch) -> None:
    """The sample aneurysm on a coarse grid, since only its way into the scene is tested."""
    sampledata = importlib.import_module("MedGSLib.panel.sampledata")
    points = tuple(replace(point, size=(28, 28, 12), gapMm=10.0) for point in sampledata.TIME_POINTS)
    monkeypatch.setattr(sampledata, "TIME_POINTS", points)


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


def test_reload_takes_the_library_along(module, case, monkeypatch):
    outer, before = module.MedGSWidget(), {name: value for name, value in sys.modules.items() if name.startswith("MedGSLib")}
    outer.setup()
    outer.onReload()
    assert "MedGSLib.panel.panel" not in sys.modules and "MedGSLib" not in sys.modules
    outer.cleanup()
    for name in [name for name in sys.modules if name.partition(".")[0] == "MedGSLib"]:
        del sys.modules[name]
    sys.modules.update(before)


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


def test_missing_environment_is_said_in_the_tooltip(widget, case, monkeypatch):
    monkeypatch.setenv("PATH", "")
    widget.initializeParameterNode()
    assert "press Install" in widget.ui.reconstructButton.toolTip
    widget.ui.workerPythonPathLineEdit.currentPath = "/nowhere/python"
    assert "There is no Python at /nowhere/python" in widget.ui.reconstructButton.toolTip
    widget.ui.workerPythonPathLineEdit.currentPath = sys.executable
    assert widget.ui.reconstructButton.enabled


def test_installing_asks_first(widget, slicer_stand_in, monkeypatch, tmp_path):
    from MedGSLib.panel import environmentbox

    monkeypatch.setattr(environmentbox, "slicerPython", lambda: Path(sys.executable))
    widget.ui.installEnvironmentButton.click()
    assert len(slicer_stand_in.dialogs) == 1 and "GB" in slicer_stand_in.dialogs[0]
    assert not (tmp_path / "MedGS" / "environment").exists()


class Steps:
    """An installer whose steps pass with each look at it."""

    def __init__(self, plan: Any) -> None:
        from MedGSLib.job.environment_install import InstallState

        self.plan, self.failure, self.warnings, self.step, self.progress = plan, None, [], plan.steps[0], 0.0
        self._states = iter([InstallState.RUNNING, InstallState.SUCCEEDED])
        self.state = InstallState.IDLE

    def start(self, consent: bool) -> None:
        self.state = next(self._states)

    def poll(self) -> str:
        self.state = next(self._states, self.state)
        return "a line"

    def cancel(self) -> None:
        from MedGSLib.job.environment_install import InstallState
        from MedGSLib.job.failures import explain_exception

        self.state, self.failure, self._states = InstallState.CANCELLED, explain_exception(KeyboardInterrupt()), iter(())


def test_an_installation_goes_on_by_itself_until_its_check(widget, slicer_stand_in, monkeypatch):
    from MedGSLib.panel import environmentbox

    monkeypatch.setattr(environmentbox, "slicerPython", lambda: Path(sys.executable))
    monkeypatch.setattr(environmentbox, "Installer", Steps)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_: True)
    widget.ui.proxyLineEdit.text = "http://proxy:8080"
    assert not widget.timer.isActive()
    widget.ui.installEnvironmentButton.click()
    assert widget.timer.isActive() and widget.ui.installEnvironmentButton.text == "Cancel"
    assert not widget.ui.environmentFolderPathLineEdit.enabled
    assert widget.environment._installer.plan.steps[0].environment["HTTPS_PROXY"] == "http://proxy:8080"
    widget.onTimer()
    assert "a line" in widget.ui.logTextEdit.plainText and widget.ui.environmentLabel.text == "Checking..."
    run(widget, lambda: widget.environment.facts is not None, 120.0)
    assert not widget.timer.isActive() and widget.ui.environmentFolderPathLineEdit.enabled


def test_a_cancelled_installation_says_so(widget, monkeypatch):
    from MedGSLib.panel import environmentbox

    monkeypatch.setattr(environmentbox, "slicerPython", lambda: Path(sys.executable))
    monkeypatch.setattr(environmentbox, "Installer", Steps)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_: True)
    widget.ui.installEnvironmentButton.click()
    widget.ui.installEnvironmentButton.click()
    widget.onTimer()
    assert "installation was cancelled" in widget.ui.statusLabel.text and "Reconstruct" not in widget.ui.statusLabel.text
    assert widget.ui.installEnvironmentButton.text == "Install..." and not widget.timer.isActive()


def test_check_is_followed_to_its_end_and_forgotten_with_another_python(widget, slicer_stand_in):
    widget.ui.workerPythonPathLineEdit.currentPath = sys.executable
    widget.ui.checkEnvironmentButton.click()
    assert widget.timer.isActive() and widget.environment.isBusy
    widget.ui.workerPythonPathLineEdit.currentPath = "/nowhere/python"
    assert not widget.environment.isBusy and widget.ui.environmentLabel.text == "Not checked yet."
    widget.ui.workerPythonPathLineEdit.currentPath = ""
    assert slicer_stand_in.settings["MedGS/WorkerPython"] == "", "what was emptied does not come back with the next start"


def test_a_used_environment_is_neither_deleted_nor_rebuilt(ready, use, slicer_stand_in):
    ready.environment.managed.own()
    use("slow")
    ready.onReconstruct()
    ready.environment.onDelete()
    assert "uses the environment" in ready.ui.environmentLabel.text
    ready.environment.onInstall()
    assert slicer_stand_in.dialogs == [] and ready.environment.managed.root.is_dir()


def test_environment_may_lie_in_another_folder(widget, tmp_path, slicer_stand_in):
    widget.ui.environmentFolderPathLineEdit.currentPath = str(tmp_path / "large disk")
    assert widget.environment.managed.root == tmp_path / "large disk"
    assert slicer_stand_in.settings["MedGS/EnvironmentFolder"] == str(tmp_path / "large disk")
    widget.ui.environmentFolderPathLineEdit.currentPath = ""
    assert widget.environment.managed.root == tmp_path / "MedGS" / "environment"


def test_nothing_large_goes_into_a_roaming_profile(widget, slicer_stand_in, monkeypatch, tmp_path):
    from MedGSLib.panel.environmentbox import userFolder

    slicer_stand_in.app.slicerUserSettingsFilePath = str(tmp_path / "Roaming" / "slicer.org" / "Slicer.ini")
    monkeypatch.setenv("APPDATA", str(tmp_path / "Roaming"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    assert userFolder() == tmp_path / "Local" / "slicer.org" / "MedGS"


def test_emptied_model_field_refines_nothing(ready):
    ready.ui.refinePathLineEdit.currentPath = "/data/earlier.medgs"
    assert ready._parameterNode.refineModel == "/data/earlier.medgs"
    ready.ui.refinePathLineEdit.currentPath = ""
    assert ready._parameterNode.refineModel == ""


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


def test_loading_a_scene_is_not_disturbed_by_the_widgets(ready, case, tmp_path):
    """While a scene is read the selectors lose their nodes, which must not reach the parameters."""
    ready.ui.segmentSelector.setSelectedSegmentIDs([case.ids[1]])
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


def test_job_of_a_closed_scene_does_not_enter_the_next_one(ready, case, use):
    """Not even where the next patient's volume has the same name, ID and geometry."""
    from MedGSLib.scene import volumes

    use("slow")
    ready.onReconstruct()
    job = ready.logic.session.current
    run(ready, lambda: job.last_event is not None)
    case.scene.Clear(False)
    volume = case.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CTA")
    volumes.setVoxels(volume, np.zeros(SHAPE[::-1], np.int16), MATRIX)
    assert not ready.logic.session.belongsTo(case.scene, job.folder)
    ready.onReconstruct()
    run(ready, lambda: not ready.logic.session.isBusy)
    ready.resumeFolder(job.folder)
    assert ready.logic.session.belongsTo(case.scene, job.folder), "resumed for this scene"


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


def test_jobs_are_listed_with_their_time_and_deleted_after_a_question(ready, slicer_stand_in, monkeypatch):
    ready.onReconstruct()
    run(ready, lambda: not ready.logic.session.isBusy)
    folder = ready.jobs.selected.path
    assert time.strftime("CTA_aorta_MedGS, %Y-%m-%d") in ready.ui.jobsComboBox.currentText
    ready.ui.deleteJobButton.click()
    assert slicer_stand_in.dialogs and "MB" in slicer_stand_in.dialogs[0] and folder.is_dir()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_: True)
    ready.ui.deleteJobButton.click()
    assert not folder.exists() and ready.ui.jobsComboBox.count == 0 and not ready.ui.deleteJobButton.enabled


def test_a_waiting_job_is_neither_deleted_nor_queued_again(ready, use, slicer_stand_in):
    use("slow")
    ready.onReconstruct()
    run(ready, lambda: ready.logic.session.current.last_event is not None)
    ready.ui.seedSpinBox.setValue(3)
    ready.onQueue()
    ready.jobs.refresh()
    ready.ui.jobsComboBox.currentIndex = 0
    assert "not started" in ready.ui.jobsComboBox.currentText
    assert not ready.ui.deleteJobButton.enabled and not ready.ui.resumeJobButton.enabled
    ready.jobs._withSelected(ready.jobs._delete)
    assert "runs or waits" in ready.ui.statusLabel.text and slicer_stand_in.dialogs == []
    ready.jobs._withSelected(ready.resumeFolder)
    assert "already in the queue" in ready.ui.statusLabel.text and ready.logic.session.waiting == 1


def test_the_segment_that_is_edited_is_preselected(widget, case):
    editor = slicer.vtkMRMLSegmentEditorNode()
    editor.SetSingletonTag("SegmentEditor")
    editor = case.scene.AddNode(editor)
    editor.SetAndObserveSegmentationNode(case.segmentation)
    editor.SetSelectedSegmentID(case.ids[1])
    widget.initializeParameterNode()
    assert list(widget.ui.segmentSelector.selectedSegmentIDs()) == [case.ids[1]]


def test_what_is_missing_can_be_read_and_the_environment_installed_from_the_top(widget, case, slicer_stand_in, monkeypatch):
    monkeypatch.setenv("PATH", "")
    widget.ui.segmentSelector.setCurrentNode(None)
    widget.updateState()
    assert "at least one segment" in widget.ui.estimateLabel.text and "press Install" in widget.ui.estimateLabel.text
    assert widget.ui.setupButton.visible
    widget.ui.setupButton.click()
    assert "Slicer's own Python was not found" in widget.ui.environmentLabel.text
    assert "Slicer's own Python was not found" in widget.ui.statusLabel.text
    widget.ui.workerPythonPathLineEdit.currentPath = sys.executable
    assert not widget.ui.setupButton.visible and "press Install" not in widget.ui.estimateLabel.text


def test_a_job_that_ended_without_its_scene_is_told_once(ready, case):
    ready.onReconstruct()
    job = ready.logic.session.current
    while job.folder.process().is_alive() or not job.folder.result_file.is_file():
        time.sleep(0.02)
    ready.enter()
    assert "has finished" not in ready.ui.statusLabel.text, "it is followed"
    ready.logic.session._watched, ready.logic.session._queue._active = [], None  # as if the application had been started anew
    ready.jobs._told.clear()
    ready.enter()
    assert "The last job of this scene has finished" in ready.ui.statusLabel.text and ready.ui.importJobButton.enabled
    ready.progress.say("")
    ready.enter()
    assert ready.ui.statusLabel.text == ""
    ready.jobs._told.clear()
    ready.ui.importJobButton.click()
    ready.enter()
    assert ready.ui.statusLabel.text == "", "it is in the scene"


def test_all_jobs_and_comparisons_are_deleted_but_not_what_runs(ready, use, monkeypatch, slicer_stand_in):
    ready.onReconstruct()
    run(ready, lambda: not ready.logic.session.isBusy)
    done = ready.logic.session.current.folder
    comparison = slicer_stand_in.folder / "MedGS" / "comparisons" / "compare-1"
    comparison.mkdir(parents=True)
    (comparison / "comparison.json").write_text("{}")
    use("slow")
    ready.onReconstruct()
    ready.ui.deleteAllJobsButton.click()
    assert "Delete 1 jobs and 1 comparisons" in slicer_stand_in.dialogs[0] and done.path.is_dir()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_: True)
    ready.ui.deleteAllJobsButton.click()
    assert not done.path.exists() and not comparison.exists()
    assert ready.logic.session.current.folder.path.is_dir() and ready.ui.jobsComboBox.count == 1
