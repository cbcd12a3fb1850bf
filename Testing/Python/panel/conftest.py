"""The panel in a stand-in of the application: real MRML, real widgets off-screen, strict names, no Slicer."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Iterator

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "scene")]
try:
    import pythonqt
    import slicer
    import wrapper
    from panel_case import MATRIX, SHAPE, stub_command, tickSegments
    from PySide6 import QtCore, QtGui, QtWidgets
except ImportError:  # without the slicer-core wheel or PySide6 each test module skips itself, with the reason
    slicer = None

ROOT = Path(__file__).resolve().parents[3]
MODULE_FILE = ROOT / "MedGS" / "MedGS.py"


class Settings:
    """``qt.QSettings`` in memory."""

    values: dict[str, Any] = {}

    def value(self, key: str) -> Any:
        return self.values[key]

    def contains(self, key: str) -> bool:
        return key in self.values

    def setValue(self, key: str, value: Any) -> None:
        self.values[key] = value


class App:
    """``slicer.app``: only names that the real one has (see ``pythonqt_names.json``)."""

    def __init__(self, folder: Path) -> None:
        self.slicerUserSettingsFilePath = str(folder / "Slicer.ini")
        self.applicationVersion, self.platform = "5.12.3", "stand-in"
        self.connections: dict[str, list[Any]] = {}
        self.selection = slicer.vtkMRMLSelectionNode()
        self.clip = SimpleNamespace(text="")

    def connect(self, signal: str, slot: Any) -> None:
        self.connections.setdefault(signal, []).append(slot)

    def disconnect(self, signal: str, slot: Any) -> None:
        self.connections[signal].remove(slot)

    def emit(self, signal: str) -> None:
        for slot in list(self.connections.get(signal, ())):
            slot()

    def testingEnabled(self) -> bool:
        return True

    def applicationLogic(self) -> Any:
        return SimpleNamespace(GetSelectionNode=lambda: self.selection)

    def layoutManager(self) -> Any:
        return None

    def clipboard(self) -> Any:
        return SimpleNamespace(setText=lambda text: setattr(self.clip, "text", text))


@pytest.fixture(scope="session")
def application() -> Any:
    """The Qt application."""
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication([])


@pytest.fixture
def slicer_stand_in(application: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Everything that ``MedGS.py`` finds in Slicer, with an empty scene."""
    scene = slicer.vtkMRMLScene()
    logic, sequences = slicer.vtkSlicerSegmentationsModuleLogic(), slicer.vtkSlicerSequencesLogic()
    logic.SetMRMLScene(scene)
    sequences.SetMRMLScene(scene)
    scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
    app = App(tmp_path)
    dialogs: list[str] = []
    shown: list[Any] = []
    statuses: list[str] = []

    @contextmanager
    def try_with_error_display(message: str = "", show: bool = True, waitCursor: bool = False) -> Iterator[None]:
        yield

    def confirm(text: str, *_rest: Any) -> bool:
        dialogs.append(text)
        return False

    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    monkeypatch.setattr(slicer, "app", app, raising=False)
    monkeypatch.setattr(slicer, "modules", SimpleNamespace(), raising=False)
    for name, value in {
        "loadUI": pythonqt.load_ui,
        "childWidgetVariables": pythonqt.child_variables,
        "tryWithErrorDisplay": try_with_error_display,
        "confirmOkCancelDisplay": confirm,
        "startupEnvironment": lambda: dict(os.environ),
        "setSliceViewerLayers": lambda background, fit=False: shown.append(background),
        "RenderBlocker": nullcontext,
        "showStatusMessage": lambda message, _duration=0: statuses.append(message),
    }.items():
        monkeypatch.setattr(importlib.import_module("slicer.util"), name, value)
    Settings.values = {}
    for name, module in _modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in [name for name in sys.modules if name.startswith("MedGSLib.panel")]:
        monkeypatch.delitem(sys.modules, name)
    yield SimpleNamespace(scene=scene, app=app, dialogs=dialogs, shown=shown, folder=tmp_path, settings=Settings.values, statuses=statuses)
    scene.Clear(True)


def _modules() -> dict[str, types.ModuleType]:
    qt = types.ModuleType("qt")
    qt.QTimer = lambda: pythonqt.Strict(QtCore.QTimer())
    qt.QPixmap = lambda path: pythonqt.Strict(QtGui.QPixmap(path), "qt.QPixmap")
    qt.QSettings = Settings
    qt.QCheckBox = lambda text: pythonqt.Strict(QtWidgets.QCheckBox(text))
    qt.QLineEdit = lambda text: pythonqt.Strict(QtWidgets.QLineEdit(text))
    qt.QAction = lambda text, _parent: pythonqt.Strict(QtGui.QAction(text))
    qt.QUrl = SimpleNamespace(fromLocalFile=lambda path: path)
    qt.opened = []
    qt.QDesktopServices = SimpleNamespace(openUrl=qt.opened.append)
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda _context, text: text
    plugin = types.ModuleType("AbstractScriptedSubjectHierarchyPlugin")
    plugin.AbstractScriptedSubjectHierarchyPlugin = type(
        "AbstractScriptedSubjectHierarchyPlugin", (), {"__init__": lambda self, scripted: setattr(self, "scriptedPlugin", scripted)}
    )
    sample = types.ModuleType("SampleData")
    sample.SampleDataLogic = SampleDataLogic
    SampleDataLogic.sources = {}
    plugins = types.ModuleType("SegmentStatisticsPlugins")
    plugins.SegmentStatisticsPluginBase = SegmentStatisticsPluginBase
    statistics = types.ModuleType("SegmentStatistics")
    statistics.SegmentStatisticsLogic = type("SegmentStatisticsLogic", (), {"registeredPlugins": []})
    known = statistics.SegmentStatisticsLogic.registeredPlugins
    statistics.SegmentStatisticsLogic.registerPlugin = lambda plugin: known.append(type(plugin))
    return {
        "SegmentStatisticsPlugins": plugins,
        "SegmentStatistics": statistics,
        "qt": qt,
        "slicer.i18n": i18n,
        "slicer.parameterNodeWrapper": wrapper,
        "slicer.ScriptedLoadableModule": _scripted_loadable_module(),
        "AbstractScriptedSubjectHierarchyPlugin": plugin,
        "SampleData": sample,
    }


class SegmentStatisticsPluginBase:
    """What the real base class gives its plugins."""

    parameters: dict[str, str] = {}

    def getParameterNode(self) -> Any:
        return SimpleNamespace(GetParameter=lambda name: self.parameters.get(name, ""))

    def getRequestedKeys(self) -> list[str]:
        return self.keys

    @staticmethod
    def createCodedEntry(value: str, scheme: str, meaning: str, returnAsString: bool = False) -> Any:
        entry = slicer.vtkCodedEntry()
        entry.SetValueSchemeMeaning(value, scheme, meaning)
        return entry.GetAsString() if returnAsString else entry

    @staticmethod
    def createMeasurementInfo(name: str, description: str, units: str, quantityDicomCode: Any = None, unitsDicomCode: Any = None) -> Any:
        return {"name": name, "description": description, "units": units, "DICOM.QuantityCode": quantityDicomCode, "u": unitsDicomCode}


class SampleDataLogic:
    """``SampleData.SampleDataLogic``: what is registered."""

    sources: dict[str, list[Any]] = {}

    @classmethod
    def sampleDataSourcesByCategory(cls, category: str) -> list[Any]:
        return cls.sources.get(category, [])

    @classmethod
    def registerCustomSampleDataSource(cls, category: str, **fields: Any) -> None:
        assert len(fields["uris"]) == len(fields["fileNames"]) == len(fields["nodeNames"])
        cls.sources.setdefault(category, []).append(SimpleNamespace(**fields))


def _scripted_loadable_module() -> types.ModuleType:
    module = types.ModuleType("slicer.ScriptedLoadableModule")

    class ScriptedLoadableModule:
        def __init__(self, parent: Any) -> None:
            self.parent = parent

    class ScriptedLoadableModuleWidget:
        def __init__(self, parent: Any = None) -> None:
            self.parent = SimpleNamespace(isEntered=True)
            self.frame = QtWidgets.QWidget()
            self._layout = QtWidgets.QVBoxLayout(self.frame)
            self.layout = SimpleNamespace(addWidget=lambda widget: self._layout.addWidget(widget._object))

        def setup(self) -> None:
            """Nothing."""

        def onReload(self) -> None:
            """Nothing."""

        def resourcePath(self, name: str) -> str:
            return str(MODULE_FILE.parent / "Resources" / name)

    class ScriptedLoadableModuleLogic:
        def getParameterNode(self) -> Any:
            node = slicer.mrmlScene.GetSingletonNode("MedGS", "vtkMRMLScriptedModuleNode")
            if node is None:
                node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
                node.UnRegister(None)
                node.SetSingletonTag("MedGS")
                node.SetName("MedGS")
                node.SetModuleName("MedGS")
                node = slicer.mrmlScene.AddNode(node)
            return node

    class ScriptedLoadableModuleTest:
        def delayDisplay(self, _message: str) -> None:
            """Nothing to wait for."""

        def assertEqual(self, first: Any, second: Any) -> None:
            assert first == second

        def assertAlmostEqual(self, first: float, second: float, places: int = 7) -> None:
            assert round(first - second, places) == 0

    for name, value in list(locals().items()):
        if name.startswith("Scripted"):
            setattr(module, name, value)
    return module


@pytest.fixture
def module(slicer_stand_in: SimpleNamespace) -> types.ModuleType:
    """``MedGS.py``, freshly imported."""
    spec = importlib.util.spec_from_file_location("MedGS", MODULE_FILE)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def widget(module: types.ModuleType) -> Iterator[Any]:
    """The panel, set up and shown off-screen."""
    outer = module.MedGSWidget()
    outer.setup()
    outer.frame.resize(520, 900)
    outer.frame.show()
    outer.enter()
    outer.panel.frame = outer.frame
    yield outer.panel
    outer.cleanup()


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
    tickSegments(widget, [case.ids[0]])
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


@pytest.fixture
def small_sample(slicer_stand_in, monkeypatch) -> None:
    """The sample aneurysm on a coarse grid, since only its way into the scene is tested."""
    sampledata = importlib.import_module("MedGSLib.panel.sampledata")
    points = tuple(replace(point, size=(28, 28, 12), gapMm=10.0) for point in sampledata.TIME_POINTS)
    monkeypatch.setattr(sampledata, "TIME_POINTS", points)
