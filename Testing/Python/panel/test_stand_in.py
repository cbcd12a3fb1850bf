"""The stand-in is as strict as it says; without this, a passing panel test would prove nothing."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)

import pythonqt


@pytest.fixture
def ui(widget):
    return widget.ui


def test_unknown_names_raise(ui):
    with pytest.raises(AttributeError, match="PythonQt"):
        _ = ui.reconstructButton.getText
    with pytest.raises(AttributeError, match="no property"):
        ui.reconstructButton.caption = "x"
    with pytest.raises(AttributeError):
        ui.segmentSelector.currentSegmentIDs()
    with pytest.raises(AttributeError, match="no signal"):
        ui.reconstructButton.connect("pushed(bool)", print)


def test_properties_cannot_be_called_and_methods_not_assigned(ui):
    with pytest.raises(TypeError):
        ui.reconstructButton.text()
    with pytest.raises(AttributeError):
        ui.logTextEdit.appendPlainText = "x"


def test_wrong_widget_for_a_type_is_refused():
    import wrapper

    with pytest.raises(RuntimeError, match="Unable to create GUI connector"):
        wrapper._prepare((bool, ()), pythonqt.Strict(pythonqt.QtWidgets.QRadioButton()))
