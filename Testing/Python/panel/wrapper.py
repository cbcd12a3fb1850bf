"""A stand-in for ``slicer.parameterNodeWrapper``: typed values on a scripted module node, and the widgets that may hold them.

Which widget can hold which type is what the README of ``shared/slicer_api`` lists for the real ``connectGui``. What surprises in the real
one is here too: values, nodes included, are cached until the node says that it was modified; ``connectGui`` returns no tag (Slicer issue
7547), so that only what ``connectParametersToGui`` connected can be disconnected; its observer of the node stays for ever; and filling a
combo box emits its signals.
"""

from __future__ import annotations

import ast
import typing
from typing import Any

import pythonqt
import slicer
import vtk
from PySide6 import QtWidgets


class Choice:
    """One of a list."""

    def __init__(self, choices: list[Any]) -> None:
        self.choices = choices

    def check(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}")


class WithinRange:
    """Both bounds."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def check(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is outside {self.minimum} to {self.maximum}")


class Minimum:
    """A lower bound."""

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def check(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"{value} is below {self.minimum}")


class Maximum:
    """An upper bound."""

    def __init__(self, maximum: float) -> None:
        self.maximum = maximum

    def check(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"{value} is above {self.maximum}")


WIDGETS = {
    bool: ("QCheckBox",),
    int: ("QSpinBox", "QSlider"),
    float: ("QDoubleSpinBox", "ctkSliderWidget"),
    str: ("QLineEdit", "QComboBox", "QTextEdit", "QPlainTextEdit", "QLabel"),
}


def parameterNodeWrapper(cls: type) -> type:
    """Turn the annotations of a class into typed properties of a node."""
    hints = typing.get_type_hints(cls, include_extras=True)
    types: dict[str, tuple[type, tuple[Any, ...]]] = {}
    defaults: dict[str, Any] = {}
    for name, hint in hints.items():
        kind, *annotations = (hint.__origin__, *hint.__metadata__) if hasattr(hint, "__metadata__") else (hint,)
        if kind not in WIDGETS and not issubclass(kind, slicer.vtkMRMLNode):
            raise TypeError(f"no serializer for {kind} of '{name}'")
        types[name] = (kind, tuple(annotations))
        defaults[name] = getattr(cls, name, None if kind not in WIDGETS else kind())
        setattr(cls, name, property(lambda self, n=name: self.getValue(n), lambda self, value, n=name: self.setValue(n, value)))
    cls._types, cls._defaults = types, defaults
    for method in (__init, getValue, setValue, connectGui, connectParametersToGui, disconnectGui):
        setattr(cls, {"__init": "__init__"}.get(method.__name__, method.__name__), method)
    for name in ("StartModify", "EndModify", "AddObserver", "RemoveObserver", "Modified"):
        setattr(cls, name, lambda self, *arguments, n=name: getattr(self.parameterNode, n)(*arguments))
    return cls


def __init(self: Any, node: Any) -> None:
    self.parameterNode, self._guis, self._updating, self._cache = node, {}, False, {}
    _fill(self)
    node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda _caller, _event: _fill(self))


def _fill(self: Any) -> None:
    """Write the defaults of what the node lacks, and read everything."""
    for name, (kind, notes) in self._types.items():
        if not self.parameterNode.HasParameter(name):
            _check(self._defaults[name], kind, notes)
            self.parameterNode.SetParameter(name, "" if kind not in WIDGETS else repr(self._defaults[name]))
        self._cache[name] = _stored(self, name)


def _stored(self: Any, name: str) -> Any:
    kind, _ = self._types[name]
    if kind not in WIDGETS:
        return self.parameterNode.GetNodeReference(name)
    text = self.parameterNode.GetParameter(name)
    return text == "True" if kind is bool else kind(ast.literal_eval(text)) if kind is not str else ast.literal_eval(text)


def _check(value: Any, kind: type, annotations: tuple[Any, ...]) -> None:
    if kind not in WIDGETS:
        if value is not None and not value.IsA(kind.__name__):
            raise TypeError(f"{value.GetClassName()} is no {kind.__name__}")
        return
    if not isinstance(value, kind) and not (kind is float and isinstance(value, int)):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    for annotation in annotations:
        annotation.check(value)


def getValue(self: Any, name: str) -> Any:
    return self._cache[name]


def setValue(self: Any, name: str, value: Any) -> None:
    kind, annotations = self._types[name]
    _check(value, kind, annotations)
    was = self.parameterNode.StartModify()
    if kind in WIDGETS:
        self.parameterNode.SetParameter(name, repr(kind(value)))
    else:
        self.parameterNode.SetNodeReferenceID(name, None if value is None else value.GetID())
    self._cache[name] = _stored(self, name)
    self.parameterNode.EndModify(was)


def connectGui(self: Any, ui: Any) -> None:
    found = {widget._object.property("SlicerParameterName"): widget for widget in vars(ui).values()}
    connectParametersToGui(self, {name: widget for name, widget in found.items() if name})


def connectParametersToGui(self: Any, mapping: dict[str, Any]) -> int:
    for name, widget in mapping.items():
        _prepare(self._types[name], widget)
    tag = self._tags = getattr(self, "_tags", -1) + 1
    self._guis[tag] = {}
    for name, widget in mapping.items():
        _write(self, name, widget)
        self._guis[tag][name] = widget
        _observe(self, name, widget, tag)
    self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda _caller, _event: _update(self))
    return tag


def disconnectGui(self: Any, tag: Any) -> None:
    self._guis.pop(tag, None)


def _prepare(types: tuple[type, tuple[Any, ...]], widget: Any) -> None:
    kind, annotations = types
    name = type(widget._object).__name__
    wanted = WIDGETS.get(kind, ("qMRMLNodeComboBox",))
    if name not in wanted:
        raise RuntimeError(f"Unable to create GUI connector from datatype '{kind}' to widget type '{name}'")
    choices = [annotation for annotation in annotations if isinstance(annotation, Choice)]
    if name == "QComboBox":
        if not choices:
            raise RuntimeError("ComboBox needs the Choice annotation")
        widget._object.clear()
        widget._object._choices = choices[0].choices
        for choice in choices[0].choices:
            widget._object.addItem(str(choice))
    if isinstance(widget._object, (QtWidgets.QSpinBox, QtWidgets.QDoubleSpinBox)):
        low = [annotation.minimum for annotation in annotations if hasattr(annotation, "minimum")]
        high = [annotation.maximum for annotation in annotations if hasattr(annotation, "maximum")]
        widget._object.setRange(low[0] if low else -(2**31), high[0] if high else 2**31 - 1)


def _write(self: Any, name: str, widget: Any) -> None:
    value, obj = self.getValue(name), widget._object
    if isinstance(obj, pythonqt.qMRMLNodeComboBox):
        obj.setCurrentNode(value)
    elif isinstance(obj, QtWidgets.QCheckBox):
        obj.setChecked(value)
    elif isinstance(obj, QtWidgets.QComboBox):
        obj.setCurrentIndex(obj.findText(str(value)))
    elif isinstance(obj, QtWidgets.QLineEdit):
        obj.setText(value)
    else:
        obj.setValue(value)


def _read(widget: Any) -> Any:
    obj = widget._object
    if isinstance(obj, pythonqt.qMRMLNodeComboBox):
        return obj.currentNode()
    if isinstance(obj, QtWidgets.QCheckBox):
        return obj.isChecked()
    if isinstance(obj, QtWidgets.QComboBox):
        return obj._choices[obj.currentIndex()]
    return obj.text() if isinstance(obj, QtWidgets.QLineEdit) else obj.value()


def _observe(self: Any, name: str, widget: Any, tag: int) -> None:
    obj = widget._object
    signals = ("currentNodeChanged", "stateChanged", "currentIndexChanged", "textChanged")
    signal = getattr(obj, "valueChanged", None) or getattr(obj, next(s for s in signals if hasattr(obj, s)))

    def changed(*_arguments: Any) -> None:
        if tag in self._guis and not self._updating:  # PySide6 6.12 loses a reference to True at each disconnection
            self.setValue(name, _read(widget))

    signal.connect(changed)


def _update(self: Any) -> None:
    if self._updating:
        return
    self._updating = True
    try:
        for links in self._guis.values():
            for name, widget in links.items():
                _write(self, name, widget)
    finally:
        self._updating = False
