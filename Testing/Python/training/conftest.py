"""A small stack of targets, Gaussians and a recipe on which a fit takes a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from MedGSLib.gaussians import FoldedGaussians, FoldSettings
from MedGSLib.raster.cpu import CpuRasterizer
from MedGSLib.training.config import TrainingConfig
from MedGSLib.training.initialize import initialize
from MedGSLib.training.targets import TrainingTargets

FACTOR, SLICES, SIZE = 2, 5, (20, 24)


@pytest.fixture
def targets() -> TrainingTargets:
    """An image and one mask of a ball, 5 acquired slices and 4 in between."""
    count = (SLICES - 1) * FACTOR + 1
    t, y, x = np.meshgrid(np.arange(count), np.arange(SIZE[0]), np.arange(SIZE[1]), indexing="ij")
    distance = 6.0 - np.sqrt((x - 12.3) ** 2 + (y - 9.2) ** 2 + (2.0 * (t - 4.1)) ** 2)
    mask = 0.5 + 0.5 * np.tanh(distance / 2.0)
    image = 0.2 + 0.6 * mask + 0.1 * np.sin(x / 2.0)
    acquired = np.arange(count) % FACTOR == 0
    weights = np.where(acquired[:, None], 1.0, 0.5) * np.ones((1, 2))
    values = np.stack([image, mask], axis=1).astype(np.float32)
    return TrainingTargets(np.arange(count, dtype=np.float64), values, weights.astype(np.float32), acquired, has_image=True)


@pytest.fixture
def config() -> TrainingConfig:
    return TrainingConfig(iterations=24, slices_per_step=4, gaussians=150, seed=3)


@pytest.fixture
def start(targets, config) -> Callable[..., FoldedGaussians]:
    """Makes the Gaussians before the first step; keywords are fold settings."""

    def build(**settings: object) -> FoldedGaussians:
        return initialize(targets, config, FoldSettings(**settings))

    return build


@pytest.fixture(scope="session")
def rasterizer() -> CpuRasterizer:
    return CpuRasterizer(1)
