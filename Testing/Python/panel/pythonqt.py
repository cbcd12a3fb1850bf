"""A stand-in for PythonQt over PySide6, as strict as the real thing.

Which names a class has is read from a list taken in a running Slicer. A name that is not on it raises AttributeError; a property can
be read and assigned but not called; a method can be called but not assigned.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

SHARED = Path(__file__).resolve().parents[4] / "shared" / "slicer_api" / "pythonqt_names.json"
SUBSET = Path(__file__).with_name("pythonqt_names_used.json")
BASES = ("qt.QWidget", "qt.QObject")


def load_names() -> dict[str, Any]:
    """The full list where it lies beside the checkout, else the part of it that the panel needs."""
    return json.loads((SHARED if SHARED.is_file() else SUBSET).read_text())


NAMES = load_names()


def kind_of(obj: QtCore.QObject) -> str:
    """The key of an object's class in :data:`NAMES`."""
    name = type(obj).__name__
    return next(key for key in (f"slicer.{name}", f"ctk.{name}", f"qt.{name}", "qt.QWidget") if key in NAMES)


def allowed(kind: str, group: str) -> set[str]:
    """Names of a class and of its bases; ``group`` is ``properties`` or ``methods``."""
    entry = NAMES[kind]
    found = set(entry.get(group, ()))
    base = entry.get("inherits")
    for parent in BASES if base == "qt.QWidget" else (base,) if base else ():
        found |= set(NAMES[parent].get(group, ()))
    return found


class Property:
    """A property's value that remembers that it may not be called."""


class Strict:
    """Wraps a Qt object; the wrapped one is ``_object``."""

    def __init__(self, obj: Any, kind: str | None = None) -> None:
        object.__setattr__(self, "_object", obj)
        object.__setattr__(self, "_kind", kind or kind_of(obj))

    def __getattr__(self, name: str) -> Any:
        if name == "name":
            return self._object.objectName()
        if name in allowed(self._kind, "properties"):
            return _read(self._object, name)
        if name in allowed(self._kind, "methods"):
            if name == "connect":
                return lambda signal, slot: _signal(self, signal).connect(slot)
            if name == "disconnect":
                return lambda signal, slot: _signal(self, signal).disconnect(slot)
            return _Method(getattr(self._object, name))
        raise AttributeError(f"{self._kind} has no '{name}' in PythonQt")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in allowed(self._kind, "properties"):
            raise AttributeError(f"{self._kind} has no property '{name}' in PythonQt")
        if not _write(self._object, name, value):
            raise TypeError(f"{self._kind}.{name} cannot take {value!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Strict) and other._object is self._object

    def __hash__(self) -> int:
        return hash(id(self._object))


class _Method:
    """A method or signal; wrapped objects are unwrapped on the way in."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __call__(self, *arguments: Any) -> Any:
        plain = [argument._object if isinstance(argument, Strict) else argument for argument in arguments]
        answer = self._target.emit(*plain) if isinstance(self._target, QtCore.SignalInstance) else self._target(*plain)
        return Strict(answer) if isinstance(answer, (QtCore.QObject, QtGui.QPixmap)) else answer

    def connect(self, slot: Any) -> None:
        """Connect a signal."""
        self._target.connect(slot)

    def disconnect(self, slot: Any) -> None:
        """Disconnect a signal."""
        self._target.disconnect(slot)


def _signal(strict: Strict, signature: str) -> Any:
    name, bracket, _ = signature.partition("(")
    if not bracket or not signature.endswith(")"):
        raise ValueError(f"'{signature}' is no signal signature")
    if name not in allowed(strict._kind, "methods"):
        raise AttributeError(f"{strict._kind} has no signal '{name}' in PythonQt")
    return getattr(strict._object, name)


def _read(obj: Any, name: str) -> Any:
    if isinstance(obj, QtCore.QObject) and obj.metaObject().indexOfProperty(name) < 0 and hasattr(type(obj), name):
        return getattr(obj, name)
    return obj.property(name)


def _write(obj: Any, name: str, value: Any) -> bool:
    if obj.metaObject().indexOfProperty(name) < 0 and hasattr(type(obj), name):
        setattr(obj, name, value)
        return True
    known = obj.metaObject().indexOfProperty(name) >= 0
    return obj.setProperty(name, value) or not known


class qMRMLWidget(QtWidgets.QWidget):
    """The panel's root."""

    mrmlSceneChanged = QtCore.Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        """Pass the scene on, as the connections in the .ui do."""
        self.scene = scene
        self.mrmlSceneChanged.emit(scene)
        for child in self.findChildren(QtWidgets.QWidget):
            if hasattr(child, "takeScene"):
                child.takeScene(scene)


class qMRMLNodeComboBox(QtWidgets.QComboBox):
    """Holds one node of the scene."""

    currentNodeChanged = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)

    def takeScene(self, scene: Any) -> None:
        """The scene to pick from."""
        self._scene = scene
        self._node = getattr(self, "_node", None)
        if self.count() == 0:
            self.addItem(str(self.property("noneDisplay") or "None"))

    def currentNode(self) -> Any:
        """The picked node or None."""
        return getattr(self, "_node", None)

    def setCurrentNode(self, node: Any) -> None:
        """Pick a node."""
        if node is not self.currentNode():
            self._node = node
            self.clear()
            self.addItem(node.GetName() if node is not None else str(self.property("noneDisplay") or "None"))
            self.currentNodeChanged.emit(node)

    def setMRMLScene(self, scene: Any) -> None:
        """As in the .ui."""
        self.takeScene(scene)


class qMRMLSegmentSelectorWidget(QtWidgets.QComboBox):
    """Holds a segmentation and the ticked segments."""

    currentNodeChanged = QtCore.Signal(object)
    segmentSelectionChanged = QtCore.Signal(list)

    def takeScene(self, scene: Any) -> None:
        """The scene to pick from."""
        self._scene = scene

    setMRMLScene = takeScene

    def currentNode(self) -> Any:
        """The picked segmentation or None."""
        return getattr(self, "_node", None)

    def setCurrentNode(self, node: Any) -> None:
        """Pick a segmentation; no segment is ticked then."""
        if node is not self.currentNode():
            self._node, self._ids = node, []
            self.clear()
            self.addItem(node.GetName() if node is not None else "None")
            self.currentNodeChanged.emit(node)

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        """The ticked segments; PythonQt gives string lists as tuples."""
        return tuple(getattr(self, "_ids", ()))

    def setSelectedSegmentIDs(self, ids: list[str]) -> None:
        """Tick segments by program: unknown ones are passed over, and no signal is sent."""
        segmentation = None if self.currentNode() is None else self.currentNode().GetSegmentation()
        self._ids = [name for name in ids if segmentation is not None and segmentation.GetSegment(name) is not None]


class ctkCollapsibleButton(QtWidgets.QGroupBox):
    """A group with a title; its text is the title."""

    collapsed = QtCore.Property(bool, lambda self: getattr(self, "_collapsed", False), lambda self, value: self._collapse(value))
    text = QtCore.Property(str, lambda self: self.title(), lambda self, value: self.setTitle(value))

    def _collapse(self, value: bool) -> None:
        self._collapsed = value
        children = self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly)
        if value:
            self._shown = [child for child in children if not child.isHidden()]
        for child in getattr(self, "_shown", children):
            child.setVisible(not value)


class ctkPathLineEdit(QtWidgets.QWidget):
    """An editable combo box that holds a path. Like the real one it announces only texts that pass its filter, hence never an empty one."""

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)
    currentPath = QtCore.Property(str, lambda self: self._combo.currentText(), lambda self, value: self._combo.setEditText(value))
    nameFilters = QtCore.Property("QStringList", lambda self: self._filters, lambda self, value: setattr(self, "_filters", list(value)))

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._filters: list[str] = []
        self._isValid = False
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setEditable(True)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo, 1)
        browse = QtWidgets.QToolButton(self)
        browse.setText("...")
        layout.addWidget(browse)
        self._combo.lineEdit().textChanged.connect(self._announce)

    def comboBox(self) -> QtWidgets.QComboBox:
        """The box inside."""
        return self._combo

    def _announce(self, text: str) -> None:
        suffixes = [suffix for entry in self._filters for suffix in re.findall(r"\*(\.\w+)", entry)]
        isValid = text.endswith(tuple(suffixes)) if suffixes else bool(text)
        if isValid:
            self.currentPathChanged.emit(text)
        if isValid != self._isValid:
            self._isValid = isValid
            self.validInputChanged.emit(isValid)


CUSTOM = (
    qMRMLWidget,
    qMRMLNodeComboBox,
    qMRMLSegmentSelectorWidget,
    ctkCollapsibleButton,
    ctkPathLineEdit,
)


def load_ui(path: str) -> Strict:
    """Build the widgets of a .ui file."""
    loader = QtUiTools.QUiLoader()
    for custom in CUSTOM:
        loader.registerCustomWidget(custom)
    file = QtCore.QFile(str(path))
    if not file.open(QtCore.QFile.ReadOnly):
        raise RuntimeError(f"There is no {path}")
    widget = loader.load(file)
    if widget is None:
        raise RuntimeError(loader.errorString())
    return Strict(widget)


def child_variables(widget: Strict) -> Any:
    """An object with each named child as attribute, as ``slicer.util.childWidgetVariables`` makes it."""
    ui = type("Ui", (), {})()
    for child in [widget._object, *widget._object.findChildren(QtWidgets.QWidget)]:
        if child.objectName() and not child.objectName().startswith("qt_"):
            setattr(ui, child.objectName(), Strict(child))
    return ui
