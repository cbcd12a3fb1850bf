"""The list of jobs on this computer: import a finished one, resume an interrupted one, open or delete its folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable, List, Optional, Sequence, Set

import qt
import slicer
from slicer.i18n import tr as _

from MedGSLib.errors import InputError, MedGSError
from MedGSLib.job.folder import FolderState, JobFolder, list_jobs
from MedGSLib.panel.comparing import COMPARISON_FILE, COMPARISONS
from MedGSLib.panel.session import RESUMABLE, KnownJob, isImported, knownJobs


class JobsBox:
    """Owns the widgets of the jobs group.

    :param root: the folder that holds the job folders.
    :param importJob: called with the folder of a job to import.
    :param resumeJob: called with the folder of a job to go on with.
    :param isFollowed: whether a job runs or waits.
    :param say: shows a sentence to the user.
    """

    def __init__(
        self,
        ui: Any,
        root: Path,
        importJob: Callable[[JobFolder], None],
        resumeJob: Callable[[JobFolder], None],
        isFollowed: Callable[[JobFolder], bool],
        say: Callable[[str], None],
    ) -> None:
        self._ui = ui
        self._root = root
        self._importJob = importJob
        self._resumeJob = resumeJob
        self._isFollowed = isFollowed
        self._say = say
        self._jobs: List[KnownJob] = []
        self._told: Set[str] = set()
        ui.jobsComboBox.connect("currentIndexChanged(int)", self.onSelected)
        ui.importJobButton.connect("clicked(bool)", lambda _checked: self._withSelected(self._importJob))
        ui.resumeJobButton.connect("clicked(bool)", lambda _checked: self._withSelected(self._resumeJob))
        ui.openJobButton.connect("clicked(bool)", lambda _checked: self._withSelected(openFolder))
        ui.deleteJobButton.connect("clicked(bool)", lambda _checked: self._withSelected(self._delete))
        ui.deleteAllJobsButton.connect("clicked(bool)", self.onDeleteAll)

    @property
    def selected(self) -> Optional[JobFolder]:
        """The job folder that is picked in the list."""
        index = self._ui.jobsComboBox.currentIndex
        return self._jobs[index].folder if 0 <= index < len(self._jobs) else None

    def tellFinished(self, scene: slicer.vtkMRMLScene, path: str) -> None:
        """Pick the last job of a scene and say so, once, where it ended while the scene was not there."""
        found = [index for index, job in enumerate(self._jobs) if str(job.folder.path) == path]
        job = self._jobs[found[0]] if found else None
        if job is None or job.state is not FolderState.FINISHED or path in self._told:
            return
        self._told.add(path)
        if not self._isFollowed(job.folder) and not isImported(scene, job.folder):
            self._ui.jobsComboBox.currentIndex = found[0]
            self._say(_("The last job of this scene has finished; import it from Advanced, Jobs on this computer."))

    def refresh(self, known: Optional[Sequence[KnownJob]] = None) -> None:
        """Show these jobs, or read the job folders anew, and keep the one that is picked."""
        before = self.selected
        self._jobs = list(knownJobs(self._root) if known is None else known)
        folders = [job.folder for job in self._jobs]
        combo = self._ui.jobsComboBox
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for job in self._jobs:
            combo.addItem(job.text)
        combo.currentIndex = folders.index(before) if before in folders else min(0, len(folders) - 1)
        combo.blockSignals(wasBlocked)
        self.onSelected()

    def onSelected(self, _index: int = 0) -> None:
        """Enable what can be done with the picked job."""
        folder = self.selected
        state = None if folder is None else folder.state()
        isFree = folder is not None and not self._isFollowed(folder)
        self._ui.importJobButton.enabled = state is FolderState.FINISHED
        self._ui.resumeJobButton.enabled = isFree and (state is FolderState.RUNNING or state in RESUMABLE)
        self._ui.openJobButton.enabled = folder is not None
        self._ui.deleteJobButton.enabled = isFree and state is not FolderState.RUNNING
        self._ui.deleteAllJobsButton.enabled = bool(self._jobs)

    def onDeleteAll(self, _checked: bool = False) -> None:
        """Delete what no job works on, comparisons included, after a question."""
        folders = [folder for folder in list_jobs(self._root) if folder.state() is not FolderState.RUNNING and not self._isFollowed(folder)]
        finished = [path.parent for path in self._root.parent.glob(f"{COMPARISONS}/*/{COMPARISON_FILE}")]
        size = _megabytes([folder.path for folder in folders] + finished)
        question = _("Delete {count} jobs and {others} comparisons ({size} MB) from this computer? Nodes in the scene stay.").format(
            count=len(folders), others=len(finished), size=size
        )
        if slicer.util.confirmOkCancelDisplay(question, "MedGS"):
            try:
                for folder in folders:
                    folder.delete()
                for path in finished:
                    shutil.rmtree(path, ignore_errors=True)
            except MedGSError as error:
                self._say(str(error))
        self.refresh()

    def _withSelected(self, action: Callable[[JobFolder], None]) -> None:
        folder = self.selected
        if folder is None:
            return
        try:
            action(folder)
        except MedGSError as error:
            self._say(str(error))
        self.refresh()

    def _delete(self, folder: JobFolder) -> None:
        """Delete a job folder, after a question."""
        if self._isFollowed(folder):
            raise InputError("The job runs or waits; cancel it first.")
        question = _("Delete {folder} ({size} MB)? Nodes in the scene stay.").format(folder=folder.path, size=_megabytes([folder.path]))
        if slicer.util.confirmOkCancelDisplay(question, "MedGS"):
            folder.delete()


def _megabytes(folders: Sequence[Path]) -> str:
    size = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:.0f}"


def openFolder(folder: JobFolder) -> None:
    """Show a job folder in the file manager of the system."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder.path)))
