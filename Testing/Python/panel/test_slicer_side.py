"""The panel's test that runs inside Slicer also passes with the stand-in."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)


def test_panel_test_of_slicer(widget, monkeypatch, outcome_of_slicer_test):
    sampledata = importlib.import_module("MedGSLib.panel.sampledata")
    small = tuple(replace(point, size=(28, 28, 12), gapMm=10.0) for point in sampledata.TIME_POINTS)
    monkeypatch.setattr(sampledata, "TIME_POINTS", small)
    outer = type("Widget", (), {"panel": widget})
    monkeypatch.setattr(importlib.import_module("slicer.util"), "getModuleWidget", lambda _name: outer)
    outcome = outcome_of_slicer_test("MedGSPanelTest")
    assert outcome.testsRun == 8
    assert not outcome.failures and not outcome.errors, [text for _, text in [*outcome.failures, *outcome.errors]]
