"""Fixtures that every test may use."""

from __future__ import annotations

import importlib.util
import unittest
from pathlib import Path

import pytest

TESTS_IN_SLICER = Path(__file__).resolve().parents[1] / "Slicer"
SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real volumes beside the project; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real volumes (../shared/data) are not beside this checkout")
    return SHARED_DATA


def _outcome_of_slicer_test(name: str) -> unittest.TestResult:
    spec = importlib.util.spec_from_file_location(name, TESTS_IN_SLICER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outcome = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromModule(module).run(outcome)
    return outcome


@pytest.fixture
def outcome_of_slicer_test():
    """A function of the name of a test module that is made to run inside Slicer: its outcome here."""
    return _outcome_of_slicer_test
