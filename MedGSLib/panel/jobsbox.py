"""The list of jobs on this computer: import a finished one, resume an interrupted one, open or delete its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List, Optional

import qt

from MedGSLib.errors import MedGSError
from MedGSLib.job.folder import FolderState, JobFolder
from MedGSLib.panel.session import canResume, knownJobs


class JobsBox:
    """Owns the widgets of the jobs group.

    :param root: the folder that holds the job folders.
    :param importJob: called with the folder of a job to import.
    :param resumeJob: called with the folder of a job to go on with.
    :param say: shows a sentence to the user.
    """

    def __init__(
        self,
        ui: Any,
        root: Path,
        importJob: Callable[[JobFolder], None],
        resumeJob: Callable[[JobFolder], None],
        say: Callable[[str], None],
    ) -> None:
        self._ui = ui
        self._root = root
        self._importJob = importJob
        self._resumeJob = resumeJob
        self._say = say
        self._folders: List[JobFolder] = []
        ui.jobsComboBox.connect("currentIndexChanged(int)", self.onSelected)
        ui.importJobButton.connect("clicked(bool)", lambda _checked: self._withSelected(self._importJob))
        ui.resumeJobButton.connect("clicked(bool)", lambda _checked: self._withSelected(self._resumeJob))
        ui.openJobButton.connect("clicked(bool)", lambda _checked: self._withSelected(openFolder))
        ui.deleteJobButton.connect("clicked(bool)", lambda _checked: self._withSelected(self._delete))

    @property
    def selected(self) -> Optional[JobFolder]:
        """The job folder that is picked in the list."""
        index = self._ui.jobsComboBox.currentIndex
        return self._folders[index] if 0 <= index < len(self._folders) else None

    def refresh(self) -> None:
        """Read the job folders anew, and keep the one that is picked."""
        before = self.selected
        jobs = knownJobs(self._root)
        self._folders = [folder for folder, _text in jobs]
        combo = self._ui.jobsComboBox
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for _folder, text in jobs:
            combo.addItem(text)
        combo.currentIndex = self._folders.index(before) if before in self._folders else min(0, len(jobs) - 1)
        combo.blockSignals(wasBlocked)
        self.onSelected()

    def onSelected(self, _index: int = 0) -> None:
        """Enable what can be done with the picked job."""
        folder = self.selected
        state = None if folder is None else folder.state()
        self._ui.importJobButton.enabled = state is FolderState.FINISHED
        self._ui.resumeJobButton.enabled = folder is not None and (state is FolderState.RUNNING or canResume(folder))
        self._ui.openJobButton.enabled = folder is not None
        self._ui.deleteJobButton.enabled = state not in (None, FolderState.RUNNING)

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
        folder.delete()


def openFolder(folder: JobFolder) -> None:
    """Show a job folder in the file manager of the system."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder.path)))
