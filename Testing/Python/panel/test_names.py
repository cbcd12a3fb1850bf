"""Every name that the panel uses of Qt, the application and its own .ui exists in the real Slicer; read from the source, not run."""

from __future__ import annotations

import ast
import json
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Iterator

import pytest

pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)

import pythonqt

ROOT = Path(__file__).resolve().parents[3]
UI = ROOT / "MedGS" / "Resources" / "UI" / "MedGS.ui"
SOURCES = [ROOT / "MedGS" / "MedGS.py", *sorted((ROOT / "MedGSLib" / "panel").glob("*.py"))]
EXTRA = ("QObject", "QWidget", "QTimer", "QPixmap", "QSettings", "QAction", "QUrl", "QDesktopServices", "QLineEdit")
"""Classes that are made in the code and not in the .ui."""

LISTS = ("slicer.util", "slicer.modules")


def widgets() -> dict[str, str]:
    """Class of each named widget of the .ui."""
    return {widget.get("name", ""): widget.get("class", "") for widget in ElementTree.parse(UI).iter("widget")}


def key(class_name: str) -> str:
    """The entry of a class in the list of names."""
    return next(name for name in (f"slicer.{class_name}", f"ctk.{class_name}", f"qt.{class_name}") if name in pythonqt.NAMES)


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of an attribute chain, or an empty text."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def uses() -> Iterator[tuple[str, str, str]]:
    """(place, chain, how) of every attribute chain; how is ``call``, ``store`` or ``load``."""
    for source in SOURCES:
        tree = ast.parse(source.read_text())
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (id(node) not in inner or id(node) in called) and dotted(node):
                how = "store" if isinstance(node.ctx, ast.Store) else "call" if id(node) in called else "load"
                yield f"{source.name}:{node.lineno}", dotted(node), how


def ui_uses() -> list[tuple[str, str, str, str]]:
    """(place, objectName, attribute, how) of every use of a widget of the .ui."""
    found = []
    for place, chain, how in uses():
        match = re.search(r"(?:^|\.)_?ui\.(\w+)(?:\.(\w+))?", chain)
        if match and match.group(2):
            deeper = chain[match.end() :]
            found.append((place, match.group(1), match.group(2), "load" if deeper else how))
    return found


def test_the_scan_sees_the_panel():
    assert len(ui_uses()) > 60
    assert ("call" in {how for *_, how in ui_uses()}) and ("store" in {how for *_, how in ui_uses()})


def test_every_object_name_is_in_the_ui():
    known = widgets()
    assert [(place, name) for place, name, _, _ in ui_uses() if name not in known] == []


def test_every_widget_attribute_exists_and_is_used_as_what_it_is():
    known = widgets()
    wrong = []
    for place, name, attribute, how in ui_uses():
        kind = key(known[name])
        properties, methods = pythonqt.allowed(kind, "properties"), pythonqt.allowed(kind, "methods")
        fits = attribute in properties if how == "store" else attribute in methods if how == "call" else attribute in properties | methods
        if not fits:
            wrong.append((place, known[name], attribute, how))
    assert wrong == []


def test_signals_exist_with_their_names():
    known = widgets()
    wrong = []
    for source in SOURCES:
        for name, signal in re.findall(r"ui\.(\w+)\.connect\(\s*\"(\w+)\(", source.read_text()):
            if signal not in pythonqt.allowed(key(known[name]), "methods"):
                wrong.append((source.name, name, signal))
    assert wrong == []


def test_application_and_utility_names_exist():
    app = {group: pythonqt.allowed("slicer.app", group) for group in ("properties", "methods")}
    wrong = []
    for place, chain, how in uses():
        parts = chain.split(".")
        if parts[:2] == ["slicer", "util"] and parts[2] not in pythonqt.NAMES["slicer.util"]:
            wrong.append((place, chain))
        if parts[:2] == ["slicer", "app"]:
            group = "methods" if how == "call" and len(parts) == 3 else "properties"
            if parts[2] not in app[group] and not (len(parts) > 3 and parts[2] in app["methods"]):
                wrong.append((place, chain))
        if parts[0] == "qt" and f"qt.{parts[1]}" not in pythonqt.NAMES:
            wrong.append((place, chain))
    assert wrong == []


def test_ui_uses_only_known_classes_and_no_style_sheets():
    tree = ElementTree.parse(UI)
    spaces = ("slicer", "ctk", "qt")
    unknown = [name for name in set(widgets().values()) if not any(f"{space}.{name}" in pythonqt.NAMES for space in spaces)]
    assert unknown == []
    assert [entry for entry in tree.iter("property") if entry.get("name") == "styleSheet"] == []
    names = [widget.get("name") for widget in tree.iter("widget")]
    assert len(names) == len(set(names))


def test_parameters_of_the_ui_are_those_of_the_node():
    source = (ROOT / "MedGSLib" / "panel" / "parameters.py").read_text()
    tree = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    fields = {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
    in_ui = [entry.find("string").text for entry in ElementTree.parse(UI).iter("property") if entry.get("name") == "SlicerParameterName"]
    assert len(in_ui) == len(set(in_ui)) and set(in_ui) <= fields
    assert fields - set(in_ui) == {"segmentation", "segmentIds", "preset", "refineModel", "jobFolder"}


def used_subset(full: dict) -> dict:
    """The part of the list of names that panel, stand-in and tests mention, so that the tests run without the full list."""
    here = Path(__file__).parent
    words = set(re.findall(r"\w+", "".join(path.read_text() for path in [*SOURCES, UI, *here.glob("*.py")])))
    wanted = {*map(key, set(widgets().values())), *(f"qt.{name}" for name in EXTRA), "slicer.app"}
    subset: dict = {name: sorted(words & set(full[name])) for name in LISTS}
    for name in sorted(wanted):
        entry = full[name]
        subset[name] = {"inherits": entry["inherits"]} if entry.get("inherits") else {}
        for group in ("properties", "methods"):
            subset[name][group] = sorted(words & set(entry.get(group, ())))
    return subset


def test_kept_subset_has_what_is_used():
    """Set MEDGS_UPDATE_NAMES=1 to write it anew."""
    if not pythonqt.SHARED.is_file():
        pytest.skip("the full list of PythonQt names is not beside this checkout")
    full = json.loads(pythonqt.SHARED.read_text())
    fresh = used_subset(full)
    if os.environ.get("MEDGS_UPDATE_NAMES"):
        pythonqt.SUBSET.write_text(json.dumps(fresh, indent=1, sort_keys=True) + "\n")
    kept = json.loads(pythonqt.SUBSET.read_text())
    for name, entry in fresh.items():
        for group in ("properties", "methods") if isinstance(entry, dict) else ():
            assert set(entry[group]) <= set(kept[name][group]) <= set(full[name].get(group, ())), (name, group)
