"""The environment part of the panel: which Python the worker runs in, what it can do, and installing or deleting the managed one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import qt
import slicer

from MedGSLib.errors import MedGSError
from MedGSLib.job.environment import EnvironmentProbe, Interpreter, ManagedEnvironment, resolve_interpreter
from MedGSLib.job.environment_install import Installer, InstallState
from MedGSLib.job.environment_plan import InstallOptions, choose_build, installation_plan
from MedGSLib.job.gpu import query_gpu
from MedGSLib.job.launch import WorkerCommand
from MedGSLib.job.probe import one_line

WORKER_PYTHON_SETTING = "MedGS/WorkerPython"
READY_WORDS = ("GPU:", "CPU:")


def userFolder() -> Path:
    """Where MedGS keeps its environment and jobs: beside Slicer's user settings, never in the installation."""
    return Path(slicer.app.slicerUserSettingsFilePath).parent / "MedGS"


def slicerPython() -> Optional[Path]:
    """The interpreter that comes with Slicer, as a program of its own."""
    found = shutil.which("PythonSlicer")
    return None if found is None else Path(found)


class EnvironmentBox:
    """Owns the widgets of the environment group.

    :ivar facts: what the last check found out, or None.
    :param log: receives lines for the log.
    :param changed: called when something that decides over Reconstruct has changed.
    """

    def __init__(self, ui: Any, log: Callable[[str], None], changed: Callable[[], None]) -> None:
        self.facts: Optional[Dict[str, Any]] = None
        self._ui = ui
        self._log = log
        self._changed = changed
        self._managed = ManagedEnvironment(userFolder() / "environment")
        self._probe: Optional[EnvironmentProbe] = None
        self._installer: Optional[Installer] = None
        ui.workerPythonPathLineEdit.currentPath = slicer.util.settingsValue(WORKER_PYTHON_SETTING, "")
        ui.workerPythonPathLineEdit.connect("currentPathChanged(QString)", self.onPythonChanged)
        ui.checkEnvironmentButton.connect("clicked(bool)", self.onCheck)
        ui.installEnvironmentButton.connect("clicked(bool)", self.onInstall)
        ui.repairEnvironmentButton.connect("clicked(bool)", self.onInstall)
        ui.deleteEnvironmentButton.connect("clicked(bool)", self.onDelete)
        self._updateButtons()

    @property
    def isBusy(self) -> bool:
        """Whether a check or an installation runs."""
        return self._probe is not None or self._isInstalling

    @property
    def onGpu(self) -> bool:
        """Whether the last check found a usable graphics card."""
        return self.facts is not None and one_line(self.facts).startswith(READY_WORDS[0])

    @property
    def complaint(self) -> str:
        """Why nothing can be run, or an empty text; an environment that was not checked is given the benefit of the doubt."""
        if self._isInstalling:
            return "Wait until the environment is installed."
        try:
            self.interpreter()
        except MedGSError as error:
            return str(error)
        line = "" if self.facts is None else one_line(self.facts)
        return f"{line}: open Advanced, Environment." if line and not line.startswith(READY_WORDS) else ""

    def interpreter(self) -> Interpreter:
        """The worker's Python.

        :raises InputError: if there is none, or the one that the user named does not exist.
        """
        named = self._ui.workerPythonPathLineEdit.currentPath
        return resolve_interpreter(Path(named) if named else None, self._managed, slicerPython())

    def command(self) -> WorkerCommand:
        """How a worker is started.

        :raises InputError: as :meth:`interpreter`.
        """
        return WorkerCommand(self.interpreter().path, slicer.util.startupEnvironment())

    def poll(self) -> None:
        """Look at a running check or installation."""
        if self._probe is not None:
            facts = self._probe.poll()
            if facts is not None:
                self._probe, self.facts = None, facts
                self._ui.environmentLabel.text = f"{one_line(facts)} ({self.interpreter().source.value})"
                self._changed()
        if self._installer is not None:
            self._pollInstaller(self._installer)

    def stop(self) -> None:
        """End a running installation because the application ends."""
        if self._installer is not None:
            self._installer.cancel()

    def onCheck(self, _checked: bool = False) -> None:
        """Ask the worker's Python what it can do, in the background."""
        try:
            self._probe = EnvironmentProbe(self.command(), userFolder())
            self._probe.start()
            self._ui.environmentLabel.text = "Checking..."
        except MedGSError as error:
            self._probe = None
            self._ui.environmentLabel.text = str(error)
        self._changed()

    def onPythonChanged(self, path: str) -> None:
        """Remember the interpreter that the user named, for this computer and not in the scene."""
        qt.QSettings().setValue(WORKER_PYTHON_SETTING, path)
        self.facts = None
        self._ui.environmentLabel.text = "Not checked yet."
        self._changed()

    def onInstall(self, _checked: bool = False) -> None:
        """Install or repair the managed environment, after its size was shown and agreed to; a second click cancels."""
        if self._isInstalling and self._installer is not None:
            self._installer.cancel()
            return
        try:
            python = slicerPython()
            if python is None:
                raise MedGSError("Slicer's own Python was not found, so nothing can be installed with it.")
            offline = self._ui.offlineFolderPathLineEdit.currentPath
            options = InstallOptions(offline_folder=Path(offline) if offline else None)
            plan = installation_plan(self._managed, python, choose_build(query_gpu()), options)
            if slicer.util.confirmOkCancelDisplay(plan.summary(), "MedGS"):
                self._installer = Installer(plan)
                self._installer.start(consent=True)
        except MedGSError as error:
            self._ui.environmentLabel.text = str(error)
        self._updateButtons()
        self._changed()

    def onDelete(self, _checked: bool = False) -> None:
        """Delete the managed environment, after a question."""
        size = self._managed.size_bytes() / 1e9
        if not slicer.util.confirmOkCancelDisplay(f"Delete {self._managed.root} ({size:.1f} GB)?", "MedGS"):
            return
        try:
            self._managed.delete()
            self._ui.environmentLabel.text = "The environment was deleted."
        except MedGSError as error:
            self._ui.environmentLabel.text = str(error)
        self.facts = None
        self._updateButtons()
        self._changed()

    @property
    def _isInstalling(self) -> bool:
        return self._installer is not None and self._installer.state is InstallState.RUNNING

    def _pollInstaller(self, installer: Installer) -> None:
        for line in installer.poll().splitlines():
            self._log(line)
        if installer.state is InstallState.RUNNING and installer.step is not None:
            self._ui.environmentLabel.text = f"{installer.step.title} ({100 * installer.progress:.0f} %)..."
            return
        self._installer = None
        self._updateButtons()
        if installer.state is InstallState.SUCCEEDED:
            for warning in installer.warnings:
                self._log(warning)
            self.onCheck()
            return
        failure = installer.failure
        self._ui.environmentLabel.text = "Cancelled." if failure is None else f"{failure.sentence} {failure.next_step}"
        self._changed()

    def _updateButtons(self) -> None:
        installed = self._managed.root.exists()
        self._ui.installEnvironmentButton.text = "Cancel" if self._isInstalling else "Install..."
        self._ui.repairEnvironmentButton.enabled = installed and not self._isInstalling
        self._ui.deleteEnvironmentButton.enabled = installed and not self._isInstalling
