"""The panel's test that runs inside Slicer also passes with the stand-in."""

from __future__ import annotations

import importlib
import importlib.util
import unittest
from dataclasses import replace
from pathlib import Path

import pytest

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)

SCRIPT = Path(__file__).resolve().parents[2] / "Slicer" / "MedGSPanelTest.py"


def test_panel_test_of_slicer(widget, monkeypatch):
    sampledata = importlib.import_module("MedGSLib.panel.sampledata")
    small = tuple(replace(point, size=(28, 28, 12), gapMm=10.0) for point in sampledata.TIME_POINTS)
    monkeypatch.setattr(sampledata, "TIME_POINTS", small)
    outer = type("Widget", (), {"panel": widget})
    monkeypatch.setattr(importlib.import_module("slicer.util"), "getModuleWidget", lambda _name: outer)
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outcome = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromModule(module).run(outcome)
    assert outcome.testsRun == 5
    assert not outcome.failures and not outcome.errors, [text for _, text in [*outcome.failures, *outcome.errors]]
