"""Gaussians of a saved model take their places in another crop and at another slice distance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from MedGSLib.config import preset_config
from MedGSLib.errors import InputError, ModelFileError
from MedGSLib.gaussians import FoldedGaussians, FoldSettings
from MedGSLib.geometry import shifted_origin
from MedGSLib.model_file import ModelHeader, save_model
from MedGSLib.preparation import prepare
from MedGSLib.prior.image_config import PriorConfig
from MedGSLib.progress import Reporter
from MedGSLib.raster import render_slices
from MedGSLib.raster.cpu import CpuRasterizer
from MedGSLib.start import load_start_model, start_gaussians
from MedGSLib.volume import Label, SliceStack

PLANE_TO_RAS = np.array([[0.0, -0.8, 0.0, 30.0], [0.7, 0.0, 0.0, -5.0], [0.0, 0.0, -1.0, 80.0], [0.0, 0.0, 0.0, 1.0]])
GAP, SIZE = 4.0, (30, 34)


def model(degree: int = 3, labels: tuple[Label, ...] = ()) -> tuple[FoldedGaussians, ModelHeader]:
    generator = torch.Generator().manual_seed(0)
    count = 400

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    gaussians = FoldedGaussians(
        center=uniform(count, 2) * torch.tensor([34.0, 30.0]),
        log_scale=uniform(count, 2),
        angle=uniform(count),
        position=10.0 * uniform(count),
        log_spread=0.5 * uniform(count),
        drift=0.2 * (uniform(count, degree, 2) - 0.5),
        log_weight=uniform(count),
        values=uniform(count, 1 + len(labels)),
        settings=FoldSettings(degree=degree),
    )
    header = ModelHeader(
        plane_to_ras=PLANE_TO_RAS.tolist(),
        step_mm=2.0,
        size=SIZE,
        acquired_mm=[GAP * k for k in range(6)],
        window=(10.0, 90.0),
        labels=labels,
        axis=2,
        preset="fast",
        seed=0,
        fold=gaussians.settings,
    )
    return gaussians, header


def stack_at(start_xyz: tuple[float, float, float], shape: tuple[int, int, int], labels: int = 1, plane_to_ras=PLANE_TO_RAS) -> SliceStack:
    """Slices of a crop that begins at column, row and mm along the stack of the model's own."""
    occupancy = np.zeros((labels, *shape), np.float32)
    occupancy[0, :, 4:12, 5:13] = 1.0
    image = 50.0 + 30.0 * np.random.default_rng(0).random(shape)
    return SliceStack(
        image=image.astype(np.float32),
        occupancy=occupancy,
        labels=tuple(Label(k + 1, f"{k + 1}") for k in range(labels)),
        annotated=np.ones(shape[0], bool),
        positions_mm=np.arange(shape[0]) * GAP,
        plane_to_ras=shifted_origin(plane_to_ras, start_xyz),
    )


def prepared_for(stack: SliceStack, scale: int, window=(10.0, 90.0)):
    config = replace(preset_config("fast", scale=scale), prior=PriorConfig(method="linear"))
    return prepare(stack, config, Reporter(), window=window)


@pytest.mark.parametrize("scale", [2, 3, 8])
def test_the_image_stays_where_it_is_in_the_patient(scale):
    """The model rendered in the frame of its own stack equals the moved one rendered in the crop, drift of degree 3 included."""
    gaussians, header = model()
    stack = stack_at((3.0, 2.0, 2 * GAP), (4, 20, 24))
    prepared = prepared_for(stack, scale)
    moved = start_gaussians(prepared, FoldSettings(), (gaussians, header))
    assert moved.settings == gaussians.settings
    along_mm = np.array([0.0, 2.5, 5.0, 11.0])
    with torch.no_grad():
        own = torch.from_numpy((along_mm + 2 * GAP) / header.step_mm).float()
        expected, _ = render_slices(gaussians, own, *SIZE, CpuRasterizer(1))
        found, _ = render_slices(moved, torch.from_numpy(along_mm / prepared.step_mm).float(), 20, 24, CpuRasterizer(1))
    np.testing.assert_allclose(found[..., 0].numpy(), expected[:, 2:22, 3:27, 0].numpy(), atol=2e-4)


def test_new_mask_heads_show_the_mask_and_the_image_head_is_kept():
    gaussians, header = model(labels=(Label(9, "old"),))
    stack = stack_at((0.0, 0.0, 0.0), (6, 30, 34), labels=2)
    moved = start_gaussians(prepared_for(stack, 2), FoldSettings(), (gaussians, header))
    assert moved.channels == 3
    assert torch.equal(moved.values[:, 0], gaussians.values[:, 0])
    x, y = moved.center.detach().numpy().T
    inside = (x > 6) & (x < 11) & (y > 5) & (y < 10)
    outside = (x < 3) | (x > 15) | (y < 2) | (y > 14)
    assert inside.any() and (moved.values[inside, 1] > 0.5).all() and (moved.values[outside, 1] < 0.5).all()
    assert (moved.values[:, 2] < 0.5).all()


def test_without_a_model_new_gaussians_are_made():
    prepared = prepared_for(stack_at((0.0, 0.0, 0.0), (6, 30, 34)), 2)
    fresh = start_gaussians(prepared, FoldSettings(degree=2), None)
    assert fresh.settings.degree == 2 and fresh.channels == 2


@pytest.mark.parametrize("change", ["spacing", "turn", "mirror", "tilt"])
def test_another_frame_is_refused(change):
    matrix = PLANE_TO_RAS.copy()
    if change == "spacing":
        matrix[:3, 0] *= 1.01
    elif change == "turn":
        matrix = matrix[:, [1, 0, 2, 3]]
    elif change == "mirror":
        matrix[:3, 0] *= -1.0
    else:
        angle = np.radians(0.5)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
        matrix[:3, :3] = turn @ matrix[:3, :3]
    prepared = prepared_for(stack_at((0.0, 0.0, 0.0), (6, 30, 34), plane_to_ras=matrix), 2)
    with pytest.raises(InputError, match="another volume"):
        start_gaussians(prepared, FoldSettings(), model())


def test_models_are_loaded_and_must_show_an_image(tmp_path):
    assert load_start_model(None) is None
    gaussians, header = model()
    save_model(tmp_path / "a.medgs", gaussians, header)
    loaded, found = load_start_model(str(tmp_path / "a.medgs"))
    assert found == header and torch.equal(loaded.center, gaussians.center)
    save_model(tmp_path / "b.medgs", gaussians, replace(header, window=None, labels=(Label(1, "mask"),)))
    with pytest.raises(InputError, match="no image head"):
        load_start_model(str(tmp_path / "b.medgs"))
    with pytest.raises(ModelFileError, match="no model file"):
        load_start_model(str(tmp_path / "c.medgs"))
