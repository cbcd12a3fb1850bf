"""The MedGS module of 3D Slicer: thick or sparse slices in, dense volume, segmentation and surface out.

The panel is thin: what it does with the scene lies in ``MedGSLib/scene``, what it is made of in ``MedGSLib/panel``, and the
reconstruction runs in a process of its own (``MedGSLib/job``).
"""

import importlib.util
import logging
import sys
from pathlib import Path
from typing import Optional

import qt
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
from slicer.util import VTKObservationMixin

if importlib.util.find_spec("MedGSLib") is None:  # a checkout: Slicer puts only this file's folder on the path
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from MedGSLib.errors import MedGSError
from MedGSLib.job.folder import JobFolder
from MedGSLib.panel import parameters, sampledata, wording
from MedGSLib.panel.calibration import Calibration
from MedGSLib.panel.environmentbox import EnvironmentBox, userFolder
from MedGSLib.panel.jobsbox import JobsBox
from MedGSLib.panel.links import WidgetLinks
from MedGSLib.panel.parameters import MedGSParameterNode
from MedGSLib.panel.progressview import ProgressView
from MedGSLib.panel.session import PanelSession, belongsTo, importJob, isFinished
from MedGSLib.scene.estimate import outputVoxels
from MedGSLib.scene.export import missingInputs
from MedGSLib.scene.nodes import OutputNodes
from MedGSLib.scene.results import readReport

POLL_INTERVAL_MS = 250
CALIBRATION_SETTING = "MedGS/Calibration"


class MedGS(ScriptedLoadableModule):
    """Metadata, and what is registered once the application runs."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("MedGS")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Volumes", "Models"]
        self.parent.contributors = ["MedGS contributors"]
        self.parent.helpText = _(
            "Makes a dense volume, a dense segmentation and a closed surface from thick or sparse slices with Gaussian splatting. "
            "Choose a volume and segments, press Reconstruct, and go on working: the computation runs in a process of its own. "
            "Input: a scalar volume with at least two parallel slices. Slices between the acquired ones are interpolated, not measured. "
            "For research use, not for clinical diagnosis."
        )
        self.parent.acknowledgementText = _(
            "After MedGS: Gaussian splatting for multi-modal 3D medical imaging (Marzol et al., 2025), reimplemented from the paper."
        )
        slicer.app.connect("startupCompleted()", self.onStartupCompleted)

    def onStartupCompleted(self):
        """Register the sample data and the right-click action."""
        sampledata.register(self.resourcePath("Icons/MedGS.png"))
        from MedGSLib.panel.MedGSSubjectHierarchyPlugin import MedGSSubjectHierarchyPlugin

        plugin = slicer.qSlicerSubjectHierarchyScriptedPlugin(None)
        plugin.setPythonSource(MedGSSubjectHierarchyPlugin.filePath)

    def resourcePath(self, name: str) -> str:
        """A file in the module's folder of resources."""
        return str(Path(self.parent.path).parent / "Resources" / name)


class MedGSWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Optional[MedGSLogic] = None
        self._parameterNode: Optional[MedGSParameterNode] = None
        self._parameterNodeGuiTag = None

    def setup(self):
        """Build the panel; nothing is installed, asked or started here."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedGS.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MedGSLogic()
        self.progress = ProgressView(self.ui, self.logic.session)
        self.environment = EnvironmentBox(self.ui, self.progress.log, self.updateState)
        self.jobs = JobsBox(self.ui, self.logic.jobsFolder, self.importFolder, self.resumeFolder, self.progress.say)
        self.links = WidgetLinks(self.ui, lambda: self._parameterNode)
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_INTERVAL_MS)
        self.timer.connect("timeout()", self.onTimer)
        self._connect()
        self.initializeParameterNode()
        self.jobs.refresh()

    def _connect(self):
        ui = self.ui
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        slicer.app.connect("aboutToQuit()", self.onQuit)
        ui.reconstructButton.connect("clicked(bool)", self.onReconstruct)
        ui.queueButton.connect("clicked(bool)", self.onQueue)
        ui.sampleDataButton.connect("clicked(bool)", self.onSampleData)
        ui.copyReportButton.connect("clicked(bool)", lambda _checked: self.progress.copyReport())

    def cleanup(self):
        """The panel is destroyed: by a reload, or with the application."""
        self.timer.stop()
        self.removeObservers()
        slicer.app.disconnect("aboutToQuit()", self.onQuit)
        self.onQuit()

    def enter(self):
        """The user opens the module."""
        self.initializeParameterNode()
        self.jobs.refresh()
        if self.environment.facts is None and not self.environment.isBusy and not slicer.app.testingEnabled():
            self.environment.onCheck()
            self._startTimer()

    def exit(self):
        """The user opens another module; jobs go on."""
        self.disconnectParameterNode()

    def onQuit(self):
        """The application ends; an unfinished job can be resumed next time."""
        self.environment.stop()
        self.logic.session.stop()

    def onSceneStartClose(self, _caller, _event):
        """The scene goes; the job keeps its folder and can be imported later."""
        self.setParameterNode(None)
        if self.logic.session.isBusy:
            self.progress.log("The scene was closed; the job goes on, and its result can be imported from Advanced.")

    def onSceneEndClose(self, _caller, _event):
        """An empty scene is there."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Show the parameters of the scene, with a first volume and its segmentation chosen where nothing is."""
        self.setParameterNode(self.logic.getParameterNode())
        node = self._parameterNode
        if node.inputVolume is None:
            node.inputVolume = slicer.mrmlScene.GetNodeByID(
                slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID() or ""
            ) or slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
        if node.segmentation is None:
            node.segmentation = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")

    def disconnectParameterNode(self):
        """Leave the parameters alone while the panel is hidden."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._parameterNodeGuiTag = None
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self._parameterNode = None

    def setParameterNode(self, node: Optional[MedGSParameterNode]):
        """Show other parameters, or none while there is no scene."""
        self.disconnectParameterNode()
        self._parameterNode = node
        if node is not None:
            self._parameterNodeGuiTag = node.connectGui(self.ui)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.onParametersChanged()

    def onParametersChanged(self, _caller=None, _event=None):
        """A parameter has changed: by the user, by a script, or because another scene was loaded."""
        if self._parameterNode is not None:
            self.links.show(self._parameterNode)
            self.updateState()

    def chooseSegment(self, segmentation, segmentId: str = ""):
        """Pick a segmentation (and one of its segments) and the volume that it was drawn on."""
        self.initializeParameterNode()
        volume = segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
        with slicer.util.NodeModify(self._parameterNode):
            self._parameterNode.segmentation = segmentation
            self._parameterNode.segmentIds = segmentId
            if volume is not None:
                self._parameterNode.inputVolume = volume

    def missing(self):
        """Everything that keeps Reconstruct from being pressed, one sentence each."""
        if self._parameterNode is None:
            return ["There is no scene."]
        found = []
        options = {}
        try:
            options = parameters.jobParameters(self._parameterNode)
        except MedGSError as error:
            found.append(str(error))
        found = missingInputs(parameters.sceneInput(self._parameterNode), options) + found
        return found + ([self.environment.complaint] if self.environment.complaint else [])

    def updateState(self):
        """Buttons, tooltips, estimate, progress: everything that follows from parameters and jobs."""
        session = self.logic.session
        missing = self.missing()
        self.ui.reconstructButton.text = _("Cancel") if session.isBusy else _("Reconstruct")
        self.ui.reconstructButton.enabled = session.isBusy or not missing
        advice = "\n".join(missing) or _("Start the reconstruction in the background.")
        self.ui.reconstructButton.toolTip = _("Stop the running reconstruction.") if session.isBusy else advice
        self.ui.queueButton.visible = session.isBusy
        self.ui.queueButton.enabled = not missing
        self.ui.queueButton.toolTip = "\n".join(missing) or _("Let these inputs be reconstructed after the running job.")
        self.ui.estimateLabel.text = "" if missing or self._parameterNode is None else self.logic.estimate(
            self._parameterNode, self.environment.onGpu
        )
        self.progress.update()

    def onReconstruct(self, _checked=False):
        """Start, or cancel what runs."""
        if self.logic.session.isBusy:
            self.logic.session.cancel()
            self.progress.update()
        else:
            self.onQueue()

    def onQueue(self, _checked=False):
        """Start a job, or let it wait for the one that runs."""
        with slicer.util.tryWithErrorDisplay(_("The job could not be prepared."), waitCursor=True):
            try:
                job = self.logic.submit(self._parameterNode, self.environment.command())
                self._parameterNode.jobFolder = str(job.folder.path)
                self.progress.log(f"Job folder: {job.folder.path}")
            except MedGSError as error:
                self.progress.say(str(error))
        self._startTimer()
        self.jobs.refresh()
        self.updateState()

    def onTimer(self):
        """Look at jobs and environment; stops by itself when nothing runs."""
        session = self.logic.session
        self.environment.poll()
        news = session.poll()
        for event in news.events:
            self.progress.log(wording.logLine(event))
        for job in news.ended:
            self.onJobEnded(job)
        self.progress.update()
        if news.ended:
            self.jobs.refresh()
            self.updateState()
        if not session.isBusy and not self.environment.isBusy:
            self.timer.stop()

    def onJobEnded(self, job):
        """Import a result whose input is still in the scene; leave the others to the list of jobs."""
        self.progress.say(wording.statusText(job))
        if not isFinished(job):
            return
        self.logic.learn(job)
        if belongsTo(slicer.mrmlScene, job.folder):
            self.importFolder(job.folder)
        else:
            self.progress.say(_("A job is done, but its input is not in this scene; import it from Advanced, Jobs on this computer."))

    def importFolder(self, folder: JobFolder):
        """Put the result of a job into the scene, all of it or nothing."""
        try:
            nodes = self.logic.importResult(folder)
            self.ui.show3DButton.setSegmentationNode(nodes.segmentation)
            self.ui.summaryLabel.text = wording.summary(nodes.report, nodes.sentences)
            self.ui.resultsCollapsibleButton.collapsed = False
        except MedGSError as error:
            self.progress.say(str(error))

    def resumeFolder(self, folder: JobFolder):
        """Go on with an interrupted job, or follow one that runs."""
        self.logic.session.start(folder, self.environment.command())
        self._startTimer()
        self.updateState()

    def onSampleData(self, _checked=False):
        """Make the sample and choose its first time point."""
        with slicer.util.tryWithErrorDisplay(_("The sample could not be made."), waitCursor=True):
            made = [sampledata.makeTimePoint(point) for point in sampledata.TIME_POINTS]
            self.chooseSegment(made[0][1])
            slicer.util.setSliceViewerLayers(background=made[0][0], fit=True)

    def _startTimer(self):
        if not self.timer.isActive():
            self.timer.start()


class MedGSLogic(ScriptedLoadableModuleLogic):
    """What the module does, for the panel and for scripts; no widgets.

    :ivar session: the jobs of this application.
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.session = PanelSession()
        self.jobsFolder = userFolder() / "jobs"

    def getParameterNode(self) -> MedGSParameterNode:
        """The parameters that are saved with the scene."""
        return MedGSParameterNode(super().getParameterNode())

    def submit(self, node: MedGSParameterNode, command):
        """Start a job with the parameters of the panel, or let it wait for the one that runs.

        :raises MedGSError: if the inputs cannot be used.
        """
        logging.info("MedGS: reconstructing %s", node.inputVolume.GetName())
        return self.session.submit(
            self.jobsFolder,
            parameters.sceneInput(node),
            parameters.jobParameters(node),
            parameters.outputChoice(node),
            command,
            {"slicer": slicer.app.applicationVersion},
            Path(node.refineModel) if node.refineModel else None,
        )

    def estimate(self, node: MedGSParameterNode, onGpu: bool) -> str:
        """How long a job would take, in one sentence."""
        voxels = outputVoxels(parameters.sceneInput(node), parameters.jobParameters(node))
        return self._calibration().sentence(voxels, node.preset, onGpu)

    def learn(self, job) -> None:
        """Remember how fast a finished job was."""
        calibration = self._calibration()
        calibration.learn(readReport(job.folder.path), job.elapsed_s)
        qt.QSettings().setValue(CALIBRATION_SETTING, calibration.text)

    def importResult(self, folder: JobFolder) -> OutputNodes:
        """Put the result of a finished job into the scene.

        :raises MedGSError: if it is not complete and sound; the scene is then as before.
        """
        return importJob(slicer.mrmlScene, folder)

    @staticmethod
    def _calibration() -> Calibration:
        return Calibration(slicer.util.settingsValue(CALIBRATION_SETTING, ""))


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

        from MedGSLib.scene.export import SceneInput, sceneToJob

        volume, segmentation = sampledata.makeTimePoint(sampledata.TIME_POINTS[0])
        with tempfile.TemporaryDirectory() as folder:
            request = sceneToJob(Path(folder), SceneInput(volume, segmentation), {"preset": "fast"}).read_request()
        self.assertEqual([label.name for label in request.inputs.labels], ["aneurysm"])
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        self.assertAlmostEqual(request.geometry.matrix[2][2], matrix.GetElement(2, 2), places=6)
        self.delayDisplay("MedGS: test passed")
