"""Progress bar, status line, preview picture and log of the panel."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Optional, Tuple

import qt
import slicer

from MedGSLib.errors import MedGSError
from MedGSLib.job.detached import tail
from MedGSLib.job.folder import JobFolder
from MedGSLib.panel import wording
from MedGSLib.panel.session import PanelSession

PREVIEW_WIDTH = 320
READING_S = 6.0
"""Time to read a sentence."""

CONSOLE_PART = 4000
"""Bytes of the worker's console that go into a problem report."""


class ProgressView:
    """Shows how the current job of a session stands."""

    def __init__(self, ui: Any, session: PanelSession) -> None:
        self._ui = ui
        self._session = session
        self._previewed: Optional[Tuple[Path, float]] = None
        self._readUntil = 0.0
        self.update()

    def update(self) -> None:
        """Bring everything up to date."""
        ui, session = self._ui, self._session
        percent = wording.percent(session.current)
        ui.progressBar.visible = session.isBusy
        ui.progressBar.maximum = 0 if percent is None else 100
        ui.progressBar.value = percent or 0
        if session.isBusy and time.monotonic() >= self._readUntil:
            ui.statusLabel.text = wording.statusText(session.current, session.waiting)
        self._updatePreview()

    def say(self, sentence: str) -> None:
        """Tell the user something that needs no answer, and leave the time to read it before a running job is shown again."""
        self._ui.statusLabel.text = sentence
        self._readUntil = time.monotonic() + READING_S
        self.log(sentence)

    def log(self, line: str) -> None:
        """Add a line to the log."""
        if line:
            self._ui.logTextEdit.appendPlainText(line)

    def copyReport(self) -> None:
        """Put what a problem report needs on the clipboard: versions, environment, state, parameters, and the ends of the logs."""
        ui, job = self._ui, self._session.current
        lines = [f"Slicer {slicer.app.applicationVersion}, {slicer.app.platform}", ui.environmentLabel.text, ui.statusLabel.text]
        if job is not None:
            lines += [self._parameters(job.folder), tail(job.folder.console_file, CONSOLE_PART)]
        slicer.app.clipboard().setText("\n".join([*lines, ui.logTextEdit.plainText]))

    @staticmethod
    def _parameters(folder: JobFolder) -> str:
        try:
            return json.dumps(dict(folder.read_request().parameters), sort_keys=True)
        except MedGSError as error:
            return str(error)

    def _updatePreview(self) -> None:
        session, label = self._session, self._ui.previewLabel
        if not session.isBusy or session.preview is None:
            label.visible, self._previewed = False, None
            return
        try:
            state = (session.preview, session.preview.stat().st_mtime)
        except OSError:
            return
        pixmap = None if state == self._previewed else qt.QPixmap(str(session.preview))
        if pixmap is not None and not pixmap.isNull():  # it may be half-written
            label.setPixmap(pixmap.scaledToWidth(PREVIEW_WIDTH))
            label.visible, self._previewed = True, state
