"""The test that runs inside Slicer also passes outside, so that it is not found broken only there."""

from __future__ import annotations

import importlib.util
import unittest
from pathlib import Path

import pytest

pytest.importorskip("slicer")
pytest.importorskip("SimpleITK")

SCRIPT = Path(__file__).resolve().parents[2] / "Slicer" / "MedGSSceneTest.py"


@pytest.mark.usefixtures("scene")
def test_scene_test_of_slicer():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outcome = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromModule(module).run(outcome)
    assert outcome.testsRun == 3
    assert not outcome.failures and not outcome.errors, [text for _, text in [*outcome.failures, *outcome.errors]]
