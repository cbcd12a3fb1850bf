"""The environment part of the panel: which Python the worker runs in, what it can do, and installing or deleting the managed one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import qt
import slicer
from slicer.i18n import tr as _

from MedGSLib.errors import MedGSError
from MedGSLib.job.environment import EnvironmentProbe, Interpreter, ManagedEnvironment, resolve_interpreter
from MedGSLib.job.environment_install import Installer, InstallState
from MedGSLib.job.environment_plan import InstallOptions, choose_build, installation_plan
from MedGSLib.job.gpu import query_gpu
from MedGSLib.job.launch import WorkerCommand
from MedGSLib.job.probe import one_line

WORKER_PYTHON_SETTING = "MedGS/WorkerPython"
ENVIRONMENT_FOLDER_SETTING = "MedGS/EnvironmentFolder"
READY_WORDS = ("GPU:", "CPU:")


def userFolder() -> Path:
    """Where MedGS keeps its environment and jobs: beside Slicer's user settings, never in the installation.

    On Windows those lie in the roaming profile, which hospitals copy over the network at each login; then it is its local counterpart.
    """
    folder = Path(slicer.app.slicerUserSettingsFilePath).parent
    roaming, local = os.environ.get("APPDATA"), os.environ.get("LOCALAPPDATA")
    if roaming and local and Path(roaming) in folder.parents:
        folder = Path(local) / folder.relative_to(roaming)
    return folder / "MedGS"


def slicerPython() -> Optional[Path]:
    """The interpreter that comes with Slicer, as a program of its own."""
    found = shutil.which("PythonSlicer")
    return None if found is None else Path(found)


class EnvironmentBox:
    """Owns the widgets of the environment group.

    :ivar facts: what the last check found out, or None.
    :param log: receives lines for the log.
    :param say: shows a sentence to a user who may not see the environment group.
    :param changed: called when something that decides over Reconstruct has changed, and when there is something to poll.
    :param isUsed: tells whether a worker is at work.
    """

    def __init__(
        self,
        ui: Any,
        log: Callable[[str], None],
        say: Callable[[str], None],
        changed: Callable[[], None],
        isUsed: Callable[[], bool],
    ) -> None:
        self.facts: Optional[Dict[str, Any]] = None
        self._ui = ui
        self._log = log
        self._say = say
        self._changed = changed
        self._isUsed = isUsed
        self._probe: Optional[EnvironmentProbe] = None
        self._probed = ""
        self._installer: Optional[Installer] = None
        for widget, setting, changedPath in (
            (ui.workerPythonPathLineEdit, WORKER_PYTHON_SETTING, self.onPythonChanged),
            (ui.environmentFolderPathLineEdit, ENVIRONMENT_FOLDER_SETTING, self.onFolderChanged),
        ):
            widget.currentPath = slicer.util.settingsValue(setting, "")
            # the widget's own signal does not tell that it was emptied
            widget.comboBox().connect("editTextChanged(QString)", changedPath)
        ui.checkEnvironmentButton.connect("clicked(bool)", self.onCheck)
        ui.installEnvironmentButton.connect("clicked(bool)", self.onInstall)
        ui.setupButton.connect("clicked(bool)", self.onInstall)
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
            return f"Wait until the environment is installed. {self._ui.environmentLabel.text}"
        try:
            self.interpreter()
        except MedGSError as error:
            return str(error)
        line = "" if self.facts is None else one_line(self.facts)
        return f"{line}: open Advanced, Environment." if line and not line.startswith(READY_WORDS) else ""

    @property
    def managed(self) -> ManagedEnvironment:
        """The environment that MedGS keeps, which may not exist."""
        folder = self._ui.environmentFolderPathLineEdit.currentPath
        return ManagedEnvironment(Path(folder) if folder else userFolder() / "environment")

    @property
    def isInstallAdvised(self) -> bool:
        """Whether installing the managed environment would help."""
        return bool(self.complaint) and not self._isInstalling and not self._ui.workerPythonPathLineEdit.currentPath

    def interpreter(self) -> Interpreter:
        """The worker's Python.

        :raises InputError: if there is none, or the one that the user named does not exist.
        """
        named = self._ui.workerPythonPathLineEdit.currentPath
        return resolve_interpreter(Path(named) if named else None, self.managed, slicerPython())

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
                self._ui.environmentLabel.text = f"{one_line(facts)} ({self._probed})"
                self._changed()
        if self._installer is not None:
            self._pollInstaller(self._installer)

    def stop(self) -> None:
        """End a running check or installation because the application ends."""
        self._dropProbe()
        if self._installer is not None:
            self._installer.cancel()

    def onCheck(self, _checked: bool = False) -> None:
        """Ask the worker's Python what it can do, in the background."""
        self._dropProbe()
        try:
            self._probed = self.interpreter().source.value
            self._probe = EnvironmentProbe(self.command(), userFolder())
            self._probe.start()
            self._ui.environmentLabel.text = _("Checking...")
        except MedGSError as error:
            self._ui.environmentLabel.text = str(error)
        self._changed()

    def onPythonChanged(self, path: str) -> None:
        """Remember the interpreter that the user named, for this computer and not in the scene."""
        qt.QSettings().setValue(WORKER_PYTHON_SETTING, path)
        self._forget()

    def onFolderChanged(self, path: str) -> None:
        """Remember where the managed environment is to be."""
        qt.QSettings().setValue(ENVIRONMENT_FOLDER_SETTING, path)
        self._forget()

    def onInstall(self, _checked: bool = False) -> None:
        """Install or repair the managed environment, after its size was shown and agreed to; a second click cancels."""
        if self._isInstalling and self._installer is not None:
            self._installer.cancel()
            return
        try:
            self._requireUnused()
            python = slicerPython()
            if python is None:
                raise MedGSError("Slicer's own Python was not found, so nothing can be installed with it.")
            plan = installation_plan(self.managed, python, choose_build(query_gpu()), self._options())
            if slicer.util.confirmOkCancelDisplay(plan.summary(), "MedGS"):
                self._installer = Installer(plan)
                self._installer.start(consent=True)
        except MedGSError as error:
            self._ui.environmentLabel.text = str(error)
            self._say(str(error))
        self._updateButtons()
        self._changed()

    def onDelete(self, _checked: bool = False) -> None:
        """Delete the managed environment, after a question."""
        try:
            self._requireUnused()
            with slicer.util.WaitCursor():
                size = f"{self.managed.size_bytes() / 1e9:.1f}"
            question = _("Delete {folder} ({size} GB)?").format(folder=self.managed.root, size=size)
            if not slicer.util.confirmOkCancelDisplay(question, "MedGS"):
                return
            self._dropProbe()
            with slicer.util.WaitCursor():
                self.managed.delete()
            self._forget()
            self._ui.environmentLabel.text = _("The environment was deleted.")
        except MedGSError as error:
            self._ui.environmentLabel.text = str(error)

    def _options(self) -> InstallOptions:
        """How the site's network is got through, or around."""
        ui = self._ui
        offline, certificates = ui.offlineFolderPathLineEdit.currentPath, ui.certificatePathLineEdit.currentPath
        return InstallOptions(
            proxy=ui.proxyLineEdit.text.strip(),
            ca_file=Path(certificates) if certificates else None,
            offline_folder=Path(offline) if offline else None,
        )

    def _requireUnused(self) -> None:
        if self._isUsed():
            raise MedGSError("A job uses the environment; wait for its end or cancel it first.")

    def _dropProbe(self) -> None:
        if self._probe is not None:
            self._probe.stop()
            self._probe = None

    def _forget(self) -> None:
        """What was found out is about another Python."""
        self._dropProbe()
        self.facts = None
        self._ui.environmentLabel.text = _("Not checked yet.")
        self._updateButtons()
        self._changed()

    @property
    def _isInstalling(self) -> bool:
        return self._installer is not None and self._installer.state is InstallState.RUNNING

    def _pollInstaller(self, installer: Installer) -> None:
        for line in installer.poll().splitlines():
            self._log(line)
        if installer.state is InstallState.RUNNING and installer.step is not None:
            text = f"{installer.step.title} ({100 * installer.progress:.0f} %)..."
            if text != self._ui.environmentLabel.text:
                self._ui.environmentLabel.text = text
                self._changed()
            return
        self._installer = None
        self._updateButtons()
        if installer.state is InstallState.SUCCEEDED:
            self._say(_("The environment is installed."))
            for warning in installer.warnings:
                self._log(warning)
            self.onCheck()
            return
        failure, sentence = installer.failure, _("The installation was cancelled; what was downloaded is kept for the next time.")
        if failure is not None and installer.state is not InstallState.CANCELLED:
            sentence = f"{failure.sentence} {failure.next_step}"
        self._ui.environmentLabel.text = sentence
        self._say(sentence)
        self._changed()

    def _updateButtons(self) -> None:
        ui, isIdle = self._ui, not self._isInstalling
        installed = self.managed.root.exists()
        ui.installEnvironmentButton.text = _("Install...") if isIdle else _("Cancel")
        for widget in (ui.environmentFolderPathLineEdit, ui.workerPythonPathLineEdit, ui.checkEnvironmentButton):
            widget.enabled = isIdle
        for button in (ui.repairEnvironmentButton, ui.deleteEnvironmentButton):
            button.enabled = installed and isIdle
