"""A small picture of the slice being learnt, rewritten while the fit goes on."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.image import imsave

from MedGSLib.gaussians import FoldedGaussians
from MedGSLib.io.atomic import atomic_write
from MedGSLib.raster import Rasterizer, render_slices
from MedGSLib.training.targets import TrainingTargets

FILE_NAME = "preview_live.png"


class LivePreview:
    """Writes target and rendering of the middle slice side by side, image head first, at most every ``interval_s``.

    :param folder: where ``preview_live.png`` goes; made where needed.
    """

    def __init__(self, folder: Path, interval_s: float = 2.0) -> None:
        self._path = folder / FILE_NAME
        self._interval_s = interval_s
        self._written_at = 0.0

    def update(self, gaussians: FoldedGaussians, targets: TrainingTargets, rasterizer: Rasterizer) -> None:
        """Rewrite the picture if it is time.

        :raises ResourceError: when the disk is full.
        """
        if time.monotonic() - self._written_at < self._interval_s:
            return
        self._written_at = time.monotonic()
        middle = int(np.flatnonzero(targets.acquired)[targets.acquired.sum() // 2])
        t = torch.tensor([targets.coordinates[middle]], dtype=torch.float32, device=gaussians.center.device)
        with torch.no_grad():
            features, _ = render_slices(gaussians, t, *targets.size, rasterizer)
        rendered = features[0, :, :, 0].cpu().numpy()
        picture = np.concatenate([targets.values[middle, 0], rendered], axis=1)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._path) as temporary:
            imsave(temporary, np.clip(picture, 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0)

    def remove(self) -> None:
        """Delete the picture, once the result is there."""
        self._path.unlink(missing_ok=True)
