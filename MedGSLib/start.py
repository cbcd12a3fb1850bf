"""The Gaussians that a fit starts from: new ones, or those of a saved model moved into the frame of another crop."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from MedGSLib.errors import InputError
from MedGSLib.gaussians import FoldedGaussians, FoldSettings
from MedGSLib.geometry import spacing
from MedGSLib.model_file import ModelHeader, load_model
from MedGSLib.preparation import Preparation
from MedGSLib.training.initialize import initialize, sample_values

SAME_FRAME_TOLERANCE = 1e-3
"""Largest difference, in px for each px, between the frames of a model and of a stack that count as the same."""


def start_gaussians(prepared: Preparation, fold: FoldSettings, model: tuple[FoldedGaussians, ModelHeader] | None) -> FoldedGaussians:
    """New Gaussians for the targets, or those of ``model`` with its image head and new mask heads.

    :raises InputError: if the model is of another volume.
    """
    if model is None:
        return initialize(prepared.targets, prepared.training, fold)
    gaussians, header = model
    moved = _moved(gaussians, header, prepared)
    coordinates = prepared.targets.coordinates
    with torch.no_grad():
        center = moved.center.double().numpy()
        index_t = np.interp(moved.position.double().numpy(), coordinates, np.arange(len(coordinates)))
        masks = sample_values(prepared.targets, np.stack([index_t, center[:, 1], center[:, 0]]), channels=slice(1, None))
        values = torch.cat([moved.values[:, :1], torch.from_numpy(masks.astype(np.float32))], dim=1)
    state = moved.state_dict() | {"values": values}
    return FoldedGaussians.from_state(state, moved.settings)


def load_start_model(path: str | None) -> tuple[FoldedGaussians, ModelHeader] | None:
    """The saved model to start from, which must have an image head.

    :raises ModelFileError: when it cannot be read.
    :raises InputError: when it has no image head.
    """
    if path is None:
        return None
    gaussians, header = load_model(Path(path))
    if not header.has_image:
        raise InputError(f"The model {Path(path).name} has no image head to start from.")
    return gaussians, header


def _moved(gaussians: FoldedGaussians, header: ModelHeader, prepared: Preparation) -> FoldedGaussians:
    """The Gaussians in pixels and output slices of the prepared stack."""
    between = np.linalg.inv(header.matrix) @ prepared.stack.plane_to_ras
    turned = np.abs(between[:3, :3] - np.eye(3)).max() > SAME_FRAME_TOLERANCE
    if turned or not np.allclose(spacing(header.matrix), spacing(prepared.stack.plane_to_ras), rtol=1e-4):
        raise InputError("The model was made from another volume: its slices have another spacing or direction.")
    column, row, along_mm = between[:3, 3]
    ratio = header.step_mm / prepared.step_mm
    state = {name: value.detach().clone() for name, value in gaussians.state_dict().items()}
    state["center"] = state["center"] - torch.tensor([column, row], dtype=torch.float32)
    state["position"] = (state["position"] * header.step_mm - along_mm) / prepared.step_mm
    state["log_spread"] = state["log_spread"] + math.log(ratio)
    powers = torch.arange(1, gaussians.settings.degree + 1, dtype=torch.float32)
    state["drift"] = state["drift"] / (ratio**powers)[:, None]
    return FoldedGaussians.from_state(state, gaussians.settings)
