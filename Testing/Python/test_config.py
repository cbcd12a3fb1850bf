"""Presets and their overrides."""

from __future__ import annotations

import pytest

from MedGSLib.config import PRESETS, InputOptions, ReconstructionConfig, preset_config
from MedGSLib.errors import InputError


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_without_overrides_is_itself(preset):
    assert preset_config(preset) == PRESETS[preset]
    assert preset_config(preset, iterations=None, scale=None) == PRESETS[preset]
    assert PRESETS[preset].preset == preset


def test_effort_grows_from_fast_to_high():
    fast, standard, high = (PRESETS[name] for name in ("fast", "standard", "high"))
    assert fast.training.iterations < standard.training.iterations < high.training.iterations
    assert fast.training.voxels_per_gaussian > standard.training.voxels_per_gaussian > high.training.voxels_per_gaussian
    assert fast.prior.iterations < standard.prior.iterations < high.prior.iterations


def test_the_paper_preset_is_the_paper_s_model():
    paper = PRESETS["paper"]
    assert (paper.fold.degree, paper.fold.fold, paper.fold.blending) == (7, "shrink", "alpha")
    assert paper.prior.method == "none"
    assert (paper.training.iterations, paper.training.gaussians) == (30_000, 100_000)


def test_overrides_reach_the_part_they_belong_to():
    config = preset_config(
        "standard", mode="mask", scale=3, seed=9, gaussians=123, degree=2, blending="alpha", lambda_img=0.5, lambda_seg=3, iterations=7
    )
    assert (config.mode, config.scale, config.seed) == ("mask", 3, 9)
    assert (config.training.gaussians, config.training.iterations) == (123, 7)
    assert (config.training.image_loss_weight, config.training.mask_loss_weight) == (0.5, 3)
    assert (config.fold.degree, config.fold.blending) == (2, "alpha")
    assert config.training.seed == config.prior.seed == 9
    assert config.prior.iterations == PRESETS["standard"].prior.iterations


def test_a_shorter_paper_run_keeps_its_schedule():
    config = preset_config("paper", iterations=300, gaussians=40, lambda_seg=2.0)
    assert (config.training.density.stop, config.training.blends.first_iteration, config.training.gaussians) == (200, 100, 40)
    assert config.training.mask_loss_weight == 2.0
    assert preset_config("paper", iterations=300).training.gaussians == 100_000


@pytest.mark.parametrize(
    ("preset", "overrides", "hint"),
    [
        ("best", {}, "preset 'best'"),
        ("fast", {"gausians": 3}, "gausians"),
        ("fast", {"mode": "both"}, "mode"),
        ("fast", {"scale": 2, "spacing_mm": 1.0}, "not both"),
        ("fast", {"device": "tpu"}, "device"),
        ("fast", {"degree": 8}, "degree"),
        ("fast", {"mode": "mask", "start_model": "m.medgs"}, "joint"),
        ("fast", {"mode": "image", "refine_mask": "m.medgs"}, "joint"),
        ("fast", {"refine_mask": "m.medgs", "start_model": "n.medgs"}, "not both"),
    ],
)
def test_contradictions_and_unknown_names_are_refused_in_a_sentence(preset, overrides, hint):
    with pytest.raises(InputError, match=hint) as caught:
        preset_config(preset, **overrides)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_defaults_read_everything_with_a_margin():
    assert InputOptions() == InputOptions(labels=(), axis="auto", margin_mm=10.0, annotated="auto", positions=None)
    assert ReconstructionConfig().mode == "joint"
