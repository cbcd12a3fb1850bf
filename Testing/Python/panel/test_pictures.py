"""Pictures of the panel for a person to look at, and a few things a person would complain about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)

from PySide6 import QtWidgets


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Where the pictures go: the folder named by MEDGS_TEST_ARTEFACTS, else a temporary one."""
    folder = Path(os.environ.get("MEDGS_TEST_ARTEFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def grab(widget, path: Path) -> None:
    """Draw the panel at its natural height."""
    QtWidgets.QApplication.processEvents()
    widget.frame.resize(520, widget.frame.sizeHint().height())
    QtWidgets.QApplication.processEvents()
    assert widget.frame.grab().save(str(path))


def test_panel_at_start(widget, pictures):
    for name in ("advancedCollapsibleButton", "logCollapsibleButton", "resultsCollapsibleButton"):
        getattr(widget.ui, name).collapsed = True
    grab(widget, pictures / "panel_start.png")
    assert (pictures / "panel_start.png").stat().st_size > 5000


def test_panel_with_everything_open(widget, pictures):
    for name in ("advancedCollapsibleButton", "logCollapsibleButton", "resultsCollapsibleButton"):
        getattr(widget.ui, name).collapsed = False
    widget.progress.log("[Fitting the Gaussians] 12000 Gaussians")
    grab(widget, pictures / "panel_open.png")
    assert widget.frame.sizeHint().width() <= 700, "the panel would not fit beside the views"


def test_everything_has_a_tooltip_or_a_label(widget):
    silent = []
    kinds = (QtWidgets.QAbstractButton, QtWidgets.QComboBox, QtWidgets.QAbstractSpinBox, QtWidgets.QLineEdit)
    for child in widget.frame.findChildren(QtWidgets.QWidget):
        if isinstance(child, kinds) and child.objectName() and not child.objectName().startswith("qt_") and not child.toolTip():
            silent.append(child.objectName())
    assert silent == []
