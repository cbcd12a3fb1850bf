"""Progress bar, status line, preview picture and log of the panel."""

from __future__ import annotations

from typing import Any

import qt
import slicer

from MedGSLib.panel import wording
from MedGSLib.panel.session import PanelSession

PREVIEW_WIDTH = 320


class ProgressView:
    """Shows how the current job of a session stands."""

    def __init__(self, ui: Any, session: PanelSession) -> None:
        self._ui = ui
        self._session = session
        self.update()

    def update(self) -> None:
        """Bring everything up to date."""
        ui, session = self._ui, self._session
        percent = wording.percent(session.current)
        ui.progressBar.visible = session.isBusy
        ui.progressBar.maximum = 0 if percent is None else 100
        ui.progressBar.value = percent or 0
        if session.isBusy:
            ui.statusLabel.text = wording.statusText(session.current, session.waiting)
        self._updatePreview()

    def say(self, sentence: str) -> None:
        """Tell the user something that needs no answer."""
        self._ui.statusLabel.text = sentence
        self.log(sentence)

    def log(self, line: str) -> None:
        """Add a line to the log."""
        if line:
            self._ui.logTextEdit.appendPlainText(line)

    def copyReport(self) -> None:
        """Put what a problem report needs on the clipboard: versions, environment, state and log."""
        ui = self._ui
        lines = [f"Slicer {slicer.app.applicationVersion}, {slicer.app.platform}", ui.environmentLabel.text, ui.statusLabel.text]
        slicer.app.clipboard().setText("\n".join([*lines, ui.logTextEdit.plainText]))

    def _updatePreview(self) -> None:
        session = self._session
        if not session.isBusy or session.preview is None:
            self._ui.previewLabel.visible = False
            return
        pixmap = qt.QPixmap(str(session.preview))
        if not pixmap.isNull():  # it may be half-written
            self._ui.previewLabel.setPixmap(pixmap.scaledToWidth(PREVIEW_WIDTH))
            self._ui.previewLabel.visible = True
