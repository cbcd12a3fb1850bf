"""The folder that ``medgs train`` writes and ``medgs render`` and ``medgs mesh`` read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedGSLib.errors import InputError
from MedGSLib.gaussians import FoldedGaussians
from MedGSLib.io.atomic import write_json
from MedGSLib.model_file import ModelHeader, export_ply, save_model

MODEL_NAME = "model.medgs"
LATEST = "latest_iteration"
"""What of settings.json names the last model that the latest training has saved; models of earlier ones may lie beside it."""


@dataclass(frozen=True)
class ModelFolder:
    """``root/point_cloud/iteration_N/``, ``checkpoints/``, ``xyz/`` and ``settings.json``; a single model file stands for itself."""

    root: Path

    @property
    def settings_path(self) -> Path:
        """JSON with how the model was trained."""
        return self.root / "settings.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the optimiser's checkpoints."""
        return self.root / "checkpoints"

    @property
    def positions(self) -> Path:
        """Folder of the Gaussians' positions during training."""
        return self.root / "xyz"

    @property
    def metrics_path(self) -> Path:
        """CSV of the test iterations."""
        return self.root / "test_metrics.csv"

    def iterations(self) -> list[int]:
        """Iterations with a saved model, increasing."""
        matches = (re.fullmatch(r"iteration_(\d+)", path.parent.name) for path in self.root.glob(f"point_cloud/*/{MODEL_NAME}"))
        return sorted(int(match[1]) for match in matches if match)

    def model_path(self, iteration: str = "latest") -> Path:
        """The saved model of an iteration, or of the last one of the latest training.

        :raises InputError: if there is none, naming those that there are.
        """
        if self.root.is_file():
            return self.root
        saved = self.iterations()
        if not saved:
            raise InputError(f"The folder '{self.root}' holds no trained model.")
        named = ", ".join(map(str, saved))
        wanted = _read_settings(self.settings_path).get(LATEST, saved[-1]) if iteration == "latest" else int(iteration)
        if wanted is None:
            raise InputError(f"The latest training in '{self.root}' saved no model; choose an earlier one with --iteration: {named}.")
        if wanted not in saved:
            raise InputError(f"Iteration {wanted} was not saved in '{self.root}'; saved: {named}.")
        return self._iteration_folder(wanted) / MODEL_NAME

    def save(self, iteration: int, gaussians: FoldedGaussians, header: ModelHeader) -> Path:
        """Save a model for rendering, and its positions and shapes as a .ply of 3-D Gaussian splatting.

        :return: the path of the model.
        """
        folder = self._iteration_folder(iteration)
        export_ply(folder / "point_cloud.ply", gaussians, header)
        save_model(folder / MODEL_NAME, gaussians, header)
        self.write_settings(_read_settings(self.settings_path) | {LATEST: iteration})
        return folder / MODEL_NAME

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Replace settings.json; a new training has none of the models in the folder."""
        write_json(self.settings_path, {LATEST: None} | settings)

    def _iteration_folder(self, iteration: int) -> Path:
        return self.root / "point_cloud" / f"iteration_{iteration}"


def pixel_maximum(model: Path) -> int | None:
    """The largest pixel value of the frames that a model was trained on; None for models that no frames made."""
    settings = _read_settings(model.parents[2] / "settings.json") if len(model.parents) > 2 else {}
    maximum = settings.get("pixel_maximum")
    return maximum if isinstance(maximum, int) else None


def _read_settings(path: Path) -> dict[str, Any]:
    """What settings.json holds; nothing where there is none, or it is damaged."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}
