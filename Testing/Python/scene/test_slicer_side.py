"""The test that runs inside Slicer also passes outside, so that it is not found broken only there."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer")
pytest.importorskip("SimpleITK")


@pytest.mark.usefixtures("scene")
def test_scene_test_of_slicer(outcome_of_slicer_test):
    outcome = outcome_of_slicer_test("MedGSSceneTest")
    assert outcome.testsRun == 3
    assert not outcome.failures and not outcome.errors, [text for _, text in [*outcome.failures, *outcome.errors]]
