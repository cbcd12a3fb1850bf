"""The contour filter runs beside SimpleITK without corrupting the heap, and its process is used again."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from MedGSLib.baselines import contour_process
from MedGSLib.baselines.contour_process import interpolate_contours

PROGRAM = """
import numpy as np, SimpleITK
from MedGSLib.baselines.masks import morphological
SimpleITK.GetImageFromArray(np.zeros((3, 4, 5), np.uint8))
z, y, x = np.mgrid[0:5, 0:40, 0:44]
masks = (y - 20) ** 2 + (x - 22) ** 2 < (14 - (3 * z - 6) ** 2 * 0.2) ** 2
print(morphological(masks, np.arange(5.0), np.arange(0, 4.1, 0.5)).shape)
"""


def test_the_filter_does_not_break_a_process_that_uses_simpleitk(request) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=request.config.rootpath, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(9, 40, 44)\n"), done.stderr


def test_the_process_answers_again_and_is_replaced_when_it_died() -> None:
    grid = np.zeros((5, 12, 12), np.uint8)
    grid[0, 3:8, 3:8] = grid[4, 4:9, 3:8] = 1
    first = interpolate_contours(grid)
    process = contour_process._process
    assert first.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(interpolate_contours(grid), first)
    assert contour_process._process is process
    process.kill()
    process.wait()
    np.testing.assert_array_equal(interpolate_contours(grid), first)
