"""Small scans of the phantom, made once."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from MedGSLib.phantom import Acquisition, AneurysmPhantom, make_aneurysm
from MedGSLib.phantom_shape import AneurysmShape

GROWTH_MM = 5.0


def rigid(degrees: float, shift: tuple[float, float, float]) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * np.array([0.6, -0.48, 0.64])).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def small_scan(growth_mm: float, pose: NDArray[np.float64], seed: int, phase: float, date: str, gap_mm: float = 5.0) -> AneurysmPhantom:
    size = (66, 66, int(130 / gap_mm))
    acquisition = Acquisition(size=size, pixel_mm=1.8, gap_mm=gap_mm, seed=seed, phase=phase, study_date=date)
    return make_aneurysm(AneurysmShape(growth_mm=growth_mm), acquisition, pose)


@pytest.fixture(scope="session")
def followup_pose() -> NDArray[np.float64]:
    """6 degrees and 8 mm."""
    return rigid(6.0, (4.0, -5.5, 4.2))


@pytest.fixture(scope="session")
def baseline_scan() -> AneurysmPhantom:
    return small_scan(0.0, np.eye(4), 0, 0.0, "20230110")


@pytest.fixture(scope="session")
def grown_scan(followup_pose: NDArray[np.float64]) -> AneurysmPhantom:
    return small_scan(GROWTH_MM, followup_pose, 1, 0.4, "20250110", 4.0)


@pytest.fixture(scope="session")
def unchanged_scan(followup_pose: NDArray[np.float64]) -> AneurysmPhantom:
    return small_scan(0.0, followup_pose, 2, 0.7, "20240110")
