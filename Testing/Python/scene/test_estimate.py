"""The size of a job as guessed beforehand, against what it really is."""

from __future__ import annotations

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")

from MedGSLib import geometry  # noqa: E402
from MedGSLib.scene.estimate import outputVoxels, scaleOf  # noqa: E402
from MedGSLib.scene.export import SceneInput  # noqa: E402

SHAPE = (40, 36, 12)


def test_segments_count_by_their_box_and_margin(make, ijk_to_ras):
    volume = make.volume(np.zeros(SHAPE[::-1], np.int16), ijk_to_ras)
    start = (10, 8, 3)
    block = make.segmentation({"a": np.ones((5, 12, 10), np.uint8)}, geometry.shifted_origin(ijk_to_ras, start))
    source = SceneInput(volume, block)
    assert outputVoxels(source, {"scale": 4, "margin": 0.0}) == 10 * 12 * (4 * 4 + 1)
    assert outputVoxels(source, {"scale": 4, "crop": False}) == 40 * 36 * 45
    assert outputVoxels(SceneInput(volume), {"scale": 1}) == 40 * 36 * 12


def test_unusable_inputs_count_nothing(make):
    assert outputVoxels(SceneInput(None), {}) == 0
    assert outputVoxels(SceneInput(make.volume(np.zeros((1, 5, 5), np.int16), np.eye(4))), {}) == 0


def test_scale_follows_the_choice():
    matrix = np.diag([1.0, 1.2, 4.0, 1.0])
    assert scaleOf(matrix, 2, {}) == 4 and scaleOf(matrix, 2, {"spacing": 2.0}) == 2 and scaleOf(matrix, 2, {"scale": 7}) == 7
