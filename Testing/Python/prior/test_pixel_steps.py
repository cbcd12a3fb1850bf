"""Planes keep their place on other pixels."""

from __future__ import annotations

import numpy as np
import pytest

from MedGSLib.prior.pixel_steps import resampled, stepped_shape


@pytest.mark.parametrize("steps", [(2.0, 1.5), (1.3, 4.0), (0.5, 0.25)])
def test_a_slope_keeps_its_place(steps: tuple[float, float]) -> None:
    rows, columns = np.mgrid[:41, :37].astype(np.float32)
    planes = np.stack([rows + 10 * columns, 5 - 2 * rows])
    shape = stepped_shape(planes.shape[1:], steps)
    assert (shape[0] - 1) * steps[0] >= 40 > (shape[0] - 2) * steps[0] and (shape[1] - 1) * steps[1] >= 36 > (shape[1] - 2) * steps[1]
    found = resampled(planes, steps, shape, order=1)
    row, column = np.mgrid[: shape[0], : shape[1]]
    row, column = np.minimum(row * steps[0], 40), np.minimum(column * steps[1], 36)
    np.testing.assert_allclose(found, np.stack([row + 10 * column, 5 - 2 * row]), atol=1e-3)
    assert found.dtype == np.float32
