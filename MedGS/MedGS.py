"""The MedGS module of 3D Slicer: thick or sparse slices in, dense volume, segmentation and surface out.

Only what Slicer needs to list the module stands here, so that its start does not wait for the rest: the panel is in ``MedGSLib/panel``,
what it does with the scene in ``MedGSLib/scene``, and the reconstruction runs in a process of its own (``MedGSLib/job``).
"""

import importlib.util
import sys
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

if importlib.util.find_spec("MedGSLib") is None:  # a checkout: Slicer puts only this file's folder on the path
    sys.path.append(str(Path(__file__).resolve().parent.parent))

DOCUMENTATION = "https://github.com/medgs/SlicerMedGS#in-3d-slicer"


class MedGS(ScriptedLoadableModule):
    """Metadata, and what is registered once the application runs."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("MedGS")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Colors", "Markups", "Models", "SegmentStatistics", "Segmentations", "SubjectHierarchy", "Volumes"]
        self.parent.contributors = ["MedGS contributors"]
        self.parent.helpText = _(
            "Makes a dense volume, a dense segmentation and a closed surface from thick or sparse slices with Gaussian splatting. "
            "Choose a volume and segments, press Reconstruct, and go on working: the computation runs in a process of its own. "
            "Input: a scalar volume with at least two parallel slices. Slices between the acquired ones are interpolated, not measured. "
            "For research use, not for clinical diagnosis."
        )
        self.parent.helpText += f' <a href="{DOCUMENTATION}">{_("Documentation and tutorial")}</a>'
        self.parent.acknowledgementText = _(
            "After MedGS: Gaussian splatting for multi-modal 3D medical imaging (Marzol et al., 2025), reimplemented from the paper."
        )
        slicer.app.connect("startupCompleted()", self.onStartupCompleted)

    def onStartupCompleted(self):
        """Register the sample data, the right-click action and the measures for Segment Statistics."""
        from MedGSLib.panel import sampledata, statisticsplugin
        from MedGSLib.panel.MedGSSubjectHierarchyPlugin import MedGSSubjectHierarchyPlugin

        statisticsplugin.register()
        sampledata.register(str(Path(__file__).parent / "Resources" / "Icons" / "MedGS.png"))
        plugin = slicer.qSlicerSubjectHierarchyScriptedPlugin(None)
        plugin.setPythonSource(MedGSSubjectHierarchyPlugin.filePath)


class MedGSWidget(ScriptedLoadableModuleWidget):
    """The module's widget; the panel behind it is made when it is first opened."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        self.panel = None

    def setup(self):
        """Build the panel; nothing is installed, asked or started here."""
        from MedGSLib.panel.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedGS.ui"))
        self.layout.addWidget(uiWidget)
        self.logic = MedGSLogic()
        self.panel = Panel(uiWidget, self.logic.panelLogic)

    def cleanup(self):
        """The widget is destroyed: by a reload, or with the application."""
        if self.panel is not None:
            self.panel.cleanup()

    def enter(self):
        """The user opens the module."""
        self.panel.enter()

    def exit(self):
        """The user opens another module; jobs go on."""
        self.panel.exit()

    def onReload(self):
        """Reload (developer mode) takes the library along, which Slicer by itself would leave as it was."""
        for name in [name for name in sys.modules if name.partition(".")[0] == "MedGSLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def chooseSegment(self, segmentation, segmentId: str = ""):
        """Pick a segmentation (and one of its segments) and the volume that it was drawn on."""
        self.panel.chooseSegment(segmentation, segmentId)


class MedGSLogic(ScriptedLoadableModuleLogic):
    """For scripts: ``slicer.util.getModuleLogic("MedGS").panelLogic`` starts jobs and imports results.

    :ivar panelLogic: see :class:`MedGSLib.panel.logic.PanelLogic`.
    """

    def __init__(self):
        from MedGSLib.panel.logic import PanelLogic

        ScriptedLoadableModuleLogic.__init__(self)
        self.panelLogic = PanelLogic(super().getParameterNode)

    def getParameterNode(self):
        """The typed parameters that are saved with the scene."""
        return self.panelLogic.getParameterNode()


class MedGSTest(ScriptedLoadableModuleTest):
    """'Reload and Test': from the sample data to a job folder, without a worker."""

    def setUp(self):
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run all tests."""
        self.setUp()
        self.test_sampleDataToJob()

    def test_sampleDataToJob(self):
        """The sample becomes a job whose request names its segment and its place."""
        import tempfile

        from MedGSLib.panel import sampledata
        from MedGSLib.scene.export import SceneInput, sceneToJob

        volume, segmentation = sampledata.makeTimePoint(sampledata.TIME_POINTS[0])
        with tempfile.TemporaryDirectory() as folder:
            request = sceneToJob(Path(folder), SceneInput(volume, segmentation), {"preset": "fast"}).read_request()
        self.assertEqual([label.name for label in request.inputs.labels], ["aneurysm"])
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        self.assertAlmostEqual(request.geometry.matrix[2][2], matrix.GetElement(2, 2), places=6)
        self.delayDisplay("MedGS: test passed")
