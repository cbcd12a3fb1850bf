"""The panel: what happens when the user does something, when a job does something, and when the scene comes and goes."""

from __future__ import annotations

from typing import Any, List, Optional

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from MedGSLib.errors import MedGSError
from MedGSLib.job.folder import JobFolder
from MedGSLib.job.process import JobController
from MedGSLib.job.result import JobResult
from MedGSLib.panel import parameters, sampledata, wording
from MedGSLib.panel.comparebox import CompareBox
from MedGSLib.panel.environmentbox import EnvironmentBox
from MedGSLib.panel.jobsbox import JobsBox
from MedGSLib.panel.links import WidgetLinks
from MedGSLib.panel.logic import PanelLogic
from MedGSLib.panel.progressview import ProgressView
from MedGSLib.panel.resultbox import ResultBox, center3DViews
from MedGSLib.panel.session import isFinished, knownJobs
from MedGSLib.scene.export import missingInputs
from MedGSLib.scene.nodes import isShownIn3D
from MedGSLib.scene.volumes import fitRegion

POLL_INTERVAL_MS = 250
STATUS_MS = 10_000
"""How long the status bar of the application tells of the end of a job, for someone who works in another module."""

REGION_DELAY_MS = 200
LAST = -100.0
"""Priority of an observer that is called after the node selectors have taken in what is in the scene."""

BOUND = "SlicerParameterName"
"""The property by which a widget of the .ui names the parameter that it shows."""


class Panel(VTKObservationMixin):
    """Everything behind the widgets of ``MedGS.ui``.

    :param uiWidget: what ``slicer.util.loadUI`` made of it.
    :param logic: the jobs and parameters.
    """

    def __init__(self, uiWidget: Any, logic: PanelLogic) -> None:
        VTKObservationMixin.__init__(self)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = logic
        self._parameterNode: Any = None
        self._parameterNodeGuiTag: Any = None
        self._boundWidgets = {name: widget for widget in vars(self.ui).values() for name in [widget.property(BOUND)] if name}
        self._isEntered = self._isSceneChanging = False
        self._region: Any = None
        self.progress = ProgressView(self.ui, self.logic.session)
        self.environment = EnvironmentBox(
            self.ui,
            self.progress.log,
            self.progress.say,
            self.onEnvironmentChanged,
            lambda: self.logic.session.isBusy or self.comparison.isBusy,
        )
        self.jobs = JobsBox(
            self.ui, self.logic.jobsFolder, self.importFolder, self.resumeFolder, self.logic.session.isFollowed, self.progress.say
        )
        self.results = ResultBox(self.ui)
        self.links = WidgetLinks(self.ui, lambda: self._parameterNode)
        self.comparison = CompareBox(
            self.ui,
            self.logic.jobsFolder,
            self.environment.command,
            self._registration,
            lambda: self._isEntered,
            self.progress.say,
            self._startTimer,
        )
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_INTERVAL_MS)
        self.timer.connect("timeout()", self.onTimer)
        self.regionTimer = qt.QTimer()
        self.regionTimer.setSingleShot(True)
        self.regionTimer.setInterval(REGION_DELAY_MS)
        self.regionTimer.connect("timeout()", self.updateState)
        self._connect()
        self.initializeParameterNode()
        self.jobs.refresh()

    def _connect(self) -> None:
        ui = self.ui
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndBatchProcessEvent, self.onSceneReady, priority=LAST)
        slicer.app.connect("aboutToQuit()", self.onQuit)
        ui.reconstructButton.connect("clicked(bool)", self.onReconstruct)
        ui.queueButton.connect("clicked(bool)", self.onQueue)
        ui.sampleDataButton.connect("clicked(bool)", self.onSampleData)
        ui.roiSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.onRegionAdded)
        ui.copyReportButton.connect("clicked(bool)", lambda _checked: self.progress.copyReport())

    def cleanup(self) -> None:
        """The panel is destroyed: by a reload, or with the application."""
        self.timer.stop()
        self.regionTimer.stop()
        slicer.app.disconnect("aboutToQuit()", self.onQuit)
        self.onQuit()

    def enter(self) -> None:
        """The user opens the module."""
        self._isEntered = True
        self.initializeParameterNode()
        self.refreshJobs()
        self.jobs.tellFinished(slicer.mrmlScene, self._parameterNode.jobFolder)
        if self.environment.facts is None and not self.environment.isBusy and not slicer.app.testingEnabled():
            self.environment.onCheck()

    def exit(self) -> None:
        """The user opens another module; jobs go on, and the widgets stay as true to the parameters as before."""
        self._isEntered = False

    def onQuit(self) -> None:
        """The application ends; an unfinished job can be resumed next time. The widgets let go while they are still there."""
        self.environment.stop()
        self.comparison.stop()
        self.logic.session.stop()
        self.setParameterNode(None)
        self.removeObservers()

    def onSceneStartClose(self, _caller: Any, _event: Any) -> None:
        """The scene goes; the job keeps its folder and can be imported later."""
        self._isSceneChanging = True
        self.setParameterNode(None)
        self.results.clear()
        self.comparison.leaveScene()
        self.logic.session.leaveScene()
        if self.logic.session.isBusy:
            self.progress.log("The scene was closed; the job goes on, and its result can be imported from Advanced.")

    def onSceneStartImport(self, _caller: Any, _event: Any) -> None:
        """A scene is being read: node selectors lose their nodes meanwhile, which must not reach the parameters."""
        self._isSceneChanging = True
        self.setParameterNode(None)

    def onSceneReady(self, _caller: Any, _event: Any) -> None:
        """The scene was emptied or filled, and the node selectors know it."""
        if self._isSceneChanging and not slicer.mrmlScene.IsBatchProcessing():
            self._isSceneChanging = False
            if self._isEntered:
                self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Show the parameters of the scene, with a first volume and its segmentation chosen where nothing is."""
        self.setParameterNode(self.logic.getParameterNode())
        node = self._parameterNode
        if node.inputVolume is None:
            node.inputVolume = _firstVolume()
        if node.segmentation is None:
            node.segmentation = _segmentationOf(node.inputVolume)
            node.segmentIds = _activeSegment(node.segmentation)

    def setParameterNode(self, node: Optional[Any]) -> None:
        """Show other parameters, or none while there is no scene."""
        if node is not self._parameterNode:
            self._disconnectParameterNode()
            self._parameterNode = node
            if node is not None:
                # connectGui would do the same without telling the tag, so that it could never be disconnected (Slicer issue 7547)
                self._parameterNodeGuiTag = node.connectParametersToGui(self._boundWidgets)
                self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        self.onParametersChanged()

    def _disconnectParameterNode(self) -> None:
        if self._parameterNode is not None:
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._observeRegion(None)
            self._parameterNode = None

    def onParametersChanged(self, _caller: Any = None, _event: Any = None) -> None:
        """A parameter has changed: by the user, by a script, or because another scene was loaded."""
        if self._parameterNode is not None:
            self._observeRegion(self._parameterNode.roi)
            self.links.show(self._parameterNode)
            self.updateState()

    def _observeRegion(self, region: Optional[slicer.vtkMRMLMarkupsROINode]) -> None:
        """What can be run, and how long it takes, follows a region while it is dragged."""
        if region is not self._region:
            for event in (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLMarkupsNode.PointModifiedEvent):
                if self._region is not None:
                    self.removeObserver(self._region, event, self.onRegionModified)
                if region is not None:
                    self.addObserver(region, event, self.onRegionModified)
            self._region = region

    def onRegionModified(self, _caller: Any, _event: Any) -> None:
        """The region is moved, perhaps many times a second."""
        if not self.regionTimer.isActive():
            self.regionTimer.start()

    def chooseSegment(self, segmentation: slicer.vtkMRMLSegmentationNode, segmentId: str = "") -> None:
        """Pick a segmentation (and one of its segments) and the volume that it was drawn on."""
        self.initializeParameterNode()
        volume = segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
        with slicer.util.NodeModify(self._parameterNode):
            self._parameterNode.segmentation = segmentation
            self._parameterNode.segmentIds = segmentId
            if volume is not None:
                self._parameterNode.inputVolume = volume

    def onRegionAdded(self, roi: slicer.vtkMRMLMarkupsROINode) -> None:
        """A region that the user has just made begins as the whole volume."""
        if self._parameterNode is not None and self._parameterNode.inputVolume is not None:
            fitRegion(roi, self._parameterNode.inputVolume)

    def missing(self) -> List[str]:
        """Everything that keeps Reconstruct from being pressed, one sentence each."""
        if self._parameterNode is None:
            return ["There is no scene."]
        found = []
        options = {}
        try:
            options = parameters.jobParameters(self._parameterNode)
        except MedGSError as error:
            found.append(str(error))
        found = missingInputs(parameters.sceneInput(self._parameterNode), options) + parameters.outputProblems(self._parameterNode) + found
        return found + ([self.environment.complaint] if self.environment.complaint else [])

    def onEnvironmentChanged(self) -> None:
        """The worker's Python was checked, changed, or is being installed."""
        self.updateState()
        if self.environment.isBusy:
            self._startTimer()

    def updateState(self) -> None:
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
        self.ui.setupButton.visible = self.environment.isInstallAdvised
        self.ui.estimateLabel.text = "\n".join(missing) or self.logic.estimate(self._parameterNode, self.environment.onGpu)
        self.progress.update()

    def onReconstruct(self, _checked: bool = False) -> None:
        """Start, or cancel what runs."""
        if self.logic.session.isBusy:
            self.logic.session.cancel()
            self.progress.update()
        else:
            self.onQueue()

    def onQueue(self, _checked: bool = False) -> None:
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

    def onTimer(self) -> None:
        """Look at jobs and environment; stops by itself when nothing runs."""
        session = self.logic.session
        self.environment.poll()
        self.comparison.poll()
        news = session.poll()
        for event in news.events:
            self.progress.log(wording.logLine(event))
        try:
            for job in news.ended:
                self.onJobEnded(job)
        finally:
            self.progress.update()
            if news.ended:
                self.refreshJobs()
                self.updateState()
        if not session.isBusy and not self.environment.isBusy and not self.comparison.isBusy:
            self.timer.stop()

    def onJobEnded(self, job: JobController) -> None:
        """Import a result whose input is still in the scene; leave the others to the list of jobs."""
        self.progress.say(wording.statusText(job))
        slicer.util.showStatusMessage(f"MedGS: {wording.statusText(job)}", STATUS_MS)
        if not isFinished(job):
            return
        if self.logic.session.isWhole(job):
            self.logic.learn(job)
        if self.logic.session.belongsTo(slicer.mrmlScene, job.folder):
            self.importFolder(job.folder, job.result)
        else:
            self.progress.say(_("A job is done, but its input is not in this scene; import it from Advanced, Jobs on this computer."))

    def importFolder(self, folder: JobFolder, verified: Optional[JobResult] = None) -> None:
        """Put the result of a job into the scene, all of it or nothing; views are turned to it only while the module is open."""
        with slicer.util.tryWithErrorDisplay(_("The result could not be imported."), waitCursor=True):
            try:
                with slicer.util.RenderBlocker():
                    nodes = self.logic.importResult(folder, verified)
                    if self._isEntered and nodes.volume is not None:
                        slicer.util.setSliceViewerLayers(background=nodes.volume)
            except MedGSError as error:
                self.progress.say(str(error))
                return
            self.results.show(nodes)
            if self._isEntered and isShownIn3D(nodes):
                center3DViews()

    def resumeFolder(self, folder: JobFolder) -> None:
        """Go on with an interrupted job, or follow one that runs."""
        self.logic.session.start(folder, self.environment.command())
        self._startTimer()
        self.updateState()

    def refreshJobs(self) -> None:
        """Show the jobs that are on this computer now."""
        known = knownJobs(self.logic.jobsFolder)
        self.jobs.refresh(known)
        self.comparison.refresh(known)

    def _registration(self) -> str:
        return parameters.REGISTRATIONS[0] if self._parameterNode is None else self._parameterNode.registration

    def onSampleData(self, _checked: bool = False) -> None:
        """Make the sample and choose its first time point."""
        with slicer.util.tryWithErrorDisplay(_("The sample could not be made."), waitCursor=True):
            made = [sampledata.makeTimePoint(point) for point in sampledata.TIME_POINTS]
            self.chooseSegment(made[0][1])
            slicer.util.setSliceViewerLayers(background=made[0][0], fit=True)

    def _startTimer(self) -> None:
        if not self.timer.isActive():
            self.timer.start()


def _firstVolume() -> Optional[slicer.vtkMRMLScalarVolumeNode]:
    """The volume that is shown, else the first one, of those that the selector offers: no label maps and no vectors."""
    active = slicer.mrmlScene.GetNodeByID(slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID() or "")
    candidates = [active, *slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
    return next((node for node in candidates if node is not None and node.GetClassName() == "vtkMRMLScalarVolumeNode"), None)


def _segmentationOf(volume: Optional[slicer.vtkMRMLScalarVolumeNode]) -> Optional[slicer.vtkMRMLSegmentationNode]:
    """The segmentation that was drawn on a volume, else the first one."""
    found = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    drawn = [node for node in found if node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume]
    return next(iter([*drawn, *found]), None)


def _activeSegment(segmentation: Optional[slicer.vtkMRMLSegmentationNode]) -> str:
    """The segment that is being edited in the Segment Editor, or an empty text."""
    editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    if segmentation is None or editor is None or editor.GetSegmentationNode() is not segmentation:
        return ""
    return editor.GetSelectedSegmentID() or ""
