"""The environment group of the panel: what is asked, followed, refused and remembered."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
pytest.importorskip("SimpleITK")

from panel_case import run  # noqa: E402


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
