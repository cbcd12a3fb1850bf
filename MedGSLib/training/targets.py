"""What the Gaussians are fitted to: slices with a weight for each, acquired or in between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingTargets:
    """T slices of C channels (the image first where there is one, then one a label).

    :ivar coordinates: float64 (T,), increasing, in output slices.
    :ivar values: float32 (T, C, H, W); images normalised by the window, masks as soft occupancy 0..1.
    :ivar weights: float32 (T, C); 0 means that the channel is not known in that slice and is never used.
    :ivar acquired: bool (T,), the slices that come from the input.
    :ivar has_image: whether channel 0 is an image.
    """

    coordinates: NDArray[np.float64]
    values: NDArray[np.float32]
    weights: NDArray[np.float32]
    acquired: NDArray[np.bool_]
    has_image: bool

    def __post_init__(self) -> None:
        slices, channels = self.weights.shape
        if self.values.shape[:2] != (slices, channels) or self.coordinates.shape != (slices,) or self.acquired.shape != (slices,):
            raise ValueError(f"Shapes of targets disagree: {self.values.shape}, {self.weights.shape}, {self.coordinates.shape}")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.values.shape[2], self.values.shape[3]

    @property
    def channels(self) -> int:
        """Number of heads."""
        return self.values.shape[1]

    @property
    def used(self) -> NDArray[np.int64]:
        """Indices of the slices that carry any weight."""
        return np.flatnonzero(self.weights.max(axis=1) > 0)
