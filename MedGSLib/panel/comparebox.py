"""The compare section of the panel: results of one patient at several dates, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List, Optional, Sequence

import qt
import slicer
from slicer.i18n import tr as _

from MedGSLib.errors import InputError, MedGSError
from MedGSLib.job.launch import WorkerCommand
from MedGSLib.panel import wording
from MedGSLib.panel.comparing import ComparableJob, ComparisonRun, comparableJobs
from MedGSLib.panel.session import KnownJob, knownJobs
from MedGSLib.scene.comparison import ComparisonNodes, overlay, uncover

RESULT_COLUMN, DATE_COLUMN, BASELINE_COLUMN = 0, 1, 2


class CompareBox:
    """Owns the widgets of the compare section.

    :param root: the folder of all jobs.
    :param command: how a worker is started; raises where there is none.
    :param registration: gives the registration that the user chose.
    :param mayTurnViews: whether the views may show a result, which those of another module may not.
    :param say: shows a sentence to the user.
    :param started: called when there is something to poll.
    """

    def __init__(
        self,
        ui: Any,
        root: Path,
        command: Callable[[], WorkerCommand],
        registration: Callable[[], str],
        mayTurnViews: Callable[[], bool],
        say: Callable[[str], None],
        started: Callable[[], None],
    ) -> None:
        self._ui = ui
        self._root = root
        self._command = command
        self._registration = registration
        self._mayTurnViews = mayTurnViews
        self._say = say
        self._started = started
        self._jobs: List[ComparableJob] = []
        self._run: Optional[ComparisonRun] = None
        self._nodes: Optional[ComparisonNodes] = None
        ui.timePointsTable.setHorizontalHeaderLabels([_("Result"), _("Date"), _("Baseline")])
        ui.compareButton.connect("clicked(bool)", self.onCompare)
        ui.jumpButton.connect("clicked(bool)", self.onJump)
        self.refresh()

    @property
    def isBusy(self) -> bool:
        """Whether a comparison runs."""
        return self._run is not None

    def refresh(self, known: Optional[Sequence[KnownJob]] = None) -> None:
        """Show the finished ones of these jobs, or read the job folders anew; ticks and dates of those that stay are kept."""
        before = {job.folder: self._row(row) for row, job in enumerate(self._jobs)}
        self._jobs = comparableJobs(knownJobs(self._root) if known is None else known)
        table = self._ui.timePointsTable
        table.setRowCount(len(self._jobs))
        for row, job in enumerate(self._jobs):
            isTicked, date, isBaseline = before.get(job.folder, (False, job.date, False))
            tick = qt.QCheckBox(f"{job.context.outputName} ({job.folder.path.name[-4:]})")
            if not job.context.segments:
                tick.toolTip = _("No segment was drawn here: that of the baseline is carried over, to find growth, not to measure it.")
            tick.checked = isTicked
            tick.connect("toggled(bool)", self.onTicked)
            line = qt.QLineEdit(date)
            line.placeholderText = "2025-03-01"
            table.setCellWidget(row, RESULT_COLUMN, tick)
            table.setCellWidget(row, DATE_COLUMN, line)
            baseline = qt.QCheckBox("")
            baseline.toolTip = _("Compare the others with this one; without a choice the earliest date is the baseline.")
            baseline.checked = isBaseline
            table.setCellWidget(row, BASELINE_COLUMN, baseline)
        table.resizeColumnsToContents()
        self.onTicked()

    def onTicked(self, _checked: bool = False) -> None:
        """Compare needs two results."""
        ticked = [row for row in range(len(self._jobs)) if self._row(row)[0]]
        self._ui.compareButton.text = _("Cancel") if self.isBusy else _("Compare")
        self._ui.compareButton.enabled = self.isBusy or len(ticked) >= 2
        hint = _("Compare the ticked results in the background with the chosen baseline, else with the earliest date.")
        self._ui.compareButton.toolTip = hint if self._ui.compareButton.enabled else _("Tick at least two results of one patient.")
        self._ui.jumpButton.enabled = self._nodes is not None and self._nodes.growthPoint is not None

    def onCompare(self, _checked: bool = False) -> None:
        """Start, or cancel what runs."""
        if self._run is not None:
            self._run.stop()
            self._end(self._run)
            return
        rows = [(job, *self._row(row)) for row, job in enumerate(self._jobs)]
        ticked = [(job, date, isBaseline) for job, isTicked, date, isBaseline in rows if isTicked]
        jobs, dates = [job for job, _date, _isBaseline in ticked], [date for _job, date, _isBaseline in ticked]
        chosen = [index for index, (_job, _date, isBaseline) in enumerate(ticked) if isBaseline]
        try:
            if len(chosen) > 1:
                raise InputError("Choose one baseline only.")
            baseline = chosen[0] if chosen else None
            run = ComparisonRun(jobs, dates, self._registration(), self._root, self._command(), baseline)
            run.start()
        except MedGSError as error:
            self._say(str(error))
            return
        self._run = run
        self._started()
        self.onTicked()

    def poll(self) -> None:
        """Look at a running comparison."""
        run = self._run
        if run is None:
            return
        for event in run.poll():
            self._ui.compareLabel.text = event.message or f"{wording.stageName(event.stage)}..."
        if not run.isRunning:
            self._end(run)

    def stop(self) -> None:
        """End a running comparison because the application ends."""
        if self._run is not None:
            self._run.stop()
            self._run = None

    def leaveScene(self) -> None:
        """The scene is closed: what is compared belongs to its patient."""
        wasBusy = self.isBusy
        self.stop()
        self._nodes = None
        self._ui.compareLabel.text = _("The scene was closed, so the comparison was stopped.") if wasBusy else ""
        self.onTicked()

    def onJump(self, _checked: bool = False) -> None:
        """Show the place of the largest change in the slice views."""
        if self._nodes is None or self._nodes.growthPoint is None or self._nodes.growthPoint.GetScene() is None:
            return
        place = [0.0, 0.0, 0.0]
        self._nodes.growthPoint.GetNthControlPointPositionWorld(0, place)
        slicer.modules.markups.logic().JumpSlicesToLocation(*place, True)

    def _row(self, row: int) -> Any:
        """Whether a row is ticked, its date, and whether it is chosen as the baseline."""
        result, date, baseline = (self._ui.timePointsTable.cellWidget(row, column) for column in range(3))
        return bool(result.checked), str(date.text).strip(), bool(baseline.checked)

    def _end(self, run: ComparisonRun) -> None:
        self._run = None
        try:
            if run.isDone:
                earlier = self._nodes
                with slicer.util.RenderBlocker():
                    self._nodes = run.importInto(slicer.mrmlScene)
                self._ui.compareLabel.text = "\n".join([*self._nodes.sentences, _("Tables, chart and transforms are in the module Data.")])
                if self._mayTurnViews():
                    uncover(slicer.mrmlScene, [job.folder.path.name for job in run.jobs], earlier)
                    showSideBySide(self._nodes)
            else:
                self._say(run.failure or _("The comparison ended without a result."))
                self._ui.compareLabel.text = run.failure
        except MedGSError as error:
            self._say(str(error))
        self.onTicked()


def showSideBySide(nodes: ComparisonNodes) -> None:
    """Two linked 3D views: the baseline on the left, the growth maps on the right with the baseline see-through over them.

    The slice views show all of them: a display that is bound to some views is hidden in every other one.
    """
    layoutManager = slicer.app.layoutManager()
    if layoutManager is None:
        return
    layoutManager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutDual3DView)
    if layoutManager.threeDViewCount < 2:
        return
    views = [layoutManager.threeDWidget(index).mrmlViewNode() for index in range(2)]
    sliceIds = [node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")]
    for view, models in zip(views, (nodes.baseline, nodes.followups)):
        view.SetLinkedControl(True)
        for model in models:
            for viewId in (view.GetID(), *sliceIds):
                model.GetDisplayNode().AddViewNodeID(viewId)
    for model in nodes.baseline:
        overlay(model, views[1].GetID())
    for model in nodes.followups:
        legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(model)
        if legend is not None:
            legend.AddViewNodeID(views[1].GetID())
    slicer.util.resetThreeDViews()
