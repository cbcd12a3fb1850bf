"""The general network is exact on the slices, fits any gap, knows synthetic anatomy, and its training is repeatable."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from MedGSLib.errors import InputError
from MedGSLib.prior.anatomy_synthesis import SIDE, synthetic_anatomy
from MedGSLib.prior.general_network import (
    AVERAGES_PATH,
    CHANNELS,
    CONTEXT,
    DEPTH,
    POINTS_PATH,
    RowNetworkFamily,
    general_weights,
    load_family,
    save_family,
)
from MedGSLib.prior.network import RowNetwork
from MedGSLib.prior.profile import SliceProfile
from MedGSLib.prior.train_general_network import THICK_PLAN, TrainingPlan, draw_batch, draw_profile, make_volumes, train_family

HELD_OUT_SEED = 987_654
TINY = (4, 3)
PLAN = TrainingPlan(volumes=1, iterations=6, batch=4, channels=TINY[0], depth=TINY[1])
BOX = SliceProfile("box", 1.0)


@pytest.fixture(scope="module")
def volumes() -> np.ndarray:
    return np.stack([synthetic_anatomy(np.random.default_rng(HELD_OUT_SEED + k)).astype(np.float16) for k in range(4)])


def random_family(seed: int = 0, averaged: bool = False) -> RowNetworkFamily:
    torch.manual_seed(seed)
    family = RowNetworkFamily(*TINY, averaged)
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.normal_(0.0, 0.3)
    return family


def network(weights: dict[str, torch.Tensor], factor: int, size: tuple[int, int] = TINY, averaged: bool = False) -> RowNetwork:
    found = RowNetwork(factor, *size, CONTEXT, averaged)
    found.load_state_dict(weights)
    return found.eval()


def test_sub_rows_of_any_number_sample_one_curve_that_vanishes_on_the_slices():
    """The same position in the gap is predicted alike whatever the number of sub-slices; linear interpolation is left out of it."""
    family, planes = random_family(), torch.randn(2, 2 * CONTEXT + 1, 5, 12)
    with torch.no_grad():
        halves, sixths = (network(family.weights(3.0, factor), factor)(planes) for factor in (2, 6))
        fine = network(family.weights(3.0, 400), 400)(planes)
    assert torch.allclose(halves[:, 0], sixths[:, 2], atol=1e-4)
    ends = fine[:, [0, -1]] - torch.stack([planes[:, CONTEXT, :-1], planes[:, CONTEXT, 1:]], 1)
    assert ends.abs().max() < 0.05 * (fine - halves).abs().max()


def test_weights_are_linear_in_the_logarithm_of_the_gap_and_held_beyond_the_trained_range():
    family = random_family()
    low, middle, high = (family.weights(gap, 3)["features.2.weight"] for gap in (2.0, 4.0, 8.0))
    assert torch.allclose(middle, (low + high) / 2, atol=1e-6) and not torch.allclose(low, high)
    assert torch.equal(family.weights(12.0, 3)["head.bias"], family.weights(40.0, 3)["head.bias"])


def test_sub_rows_of_thick_slices_sample_one_curve_too():
    family, planes = random_family(averaged=True), torch.randn(2, 2 * CONTEXT + 1, 5, 12)
    with torch.no_grad():
        coarse, fine = (network(family.weights(3.0, factor), factor, averaged=True)(planes) for factor in (4, 12))
    assert torch.allclose(coarse, fine[:, ::3], atol=1e-4)


def test_weights_of_averages_also_follow_the_width_of_the_profile():
    family = random_family(averaged=True)
    narrow, middle, wide = (family.weights(4.0, 3, SliceProfile("box", share * 12**0.5))["head.weight"] for share in (0.2, 0.3, 0.4))
    assert torch.allclose(middle, (narrow + wide) / 2, atol=1e-5) and not torch.allclose(narrow, wide)
    gaussian, box = (family.weights(4.0, 3, profile) for profile in (SliceProfile("gaussian", 0.6), SliceProfile("box", 0.882636)))
    assert torch.allclose(gaussian["features.0.bias"], box["features.0.bias"], atol=1e-4)
    hidden = [family.weights(4.0, 3, SliceProfile("box", width))["features.2.weight"] for width in (0.5, 1.5)]
    assert torch.equal(*hidden)


@pytest.mark.parametrize("averaged", [False, True])
def test_weights_survive_their_file(averaged, tmp_path):
    family = load_family(averaged)
    save_family(family, tmp_path / "weights.safetensors", {"data": "none"})
    read = load_family(averaged, tmp_path / "weights.safetensors").state_dict()
    for name, value in family.state_dict().items():
        assert torch.equal(value, read[name]), name


@pytest.mark.parametrize("content", [b"", b"no weights at all", None, save({"middle.head.bias": torch.zeros(3)})])
@pytest.mark.parametrize("averaged", [False, True])
def test_a_damaged_file_asks_for_a_new_installation(content, averaged, tmp_path):
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="reinstall MedGS"):
        load_family(averaged, path)


@pytest.mark.parametrize(("path", "plan"), [(POINTS_PATH, TrainingPlan()), (AVERAGES_PATH, THICK_PLAN)])
def test_the_shipped_weights_come_from_the_training_plan_of_this_version_and_no_patient(path, plan):
    with safe_open(path, framework="pt") as file:
        provenance = json.loads(file.metadata()["provenance"])
    assert provenance["data"] == "synthetic anatomy only"
    assert provenance["training"] == json.loads(json.dumps(asdict(plan)))


@pytest.mark.parametrize(("gap", "share_of_error"), [(2, 0.4), (3, 0.55), (5, 0.8), (8, 0.92)])
def test_on_anatomy_it_was_not_trained_on_it_beats_linear_interpolation(gap, share_of_error, volumes):
    seen, wanted = draw_batch(volumes, gap, replace(PLAN, batch=24, blurred=0.0, alone=0.0), np.random.default_rng(0))
    with torch.no_grad():
        predicted = network(general_weights(gap, gap), gap, (CHANNELS, DEPTH))(seen)
    fraction = torch.arange(1, gap).view(1, -1, 1, 1) / gap
    linear = torch.lerp(seen[:, CONTEXT : CONTEXT + 1, :-1], seen[:, CONTEXT : CONTEXT + 1, 1:], fraction)
    assert (predicted - wanted).square().mean() < share_of_error * (linear - wanted).square().mean()


@pytest.mark.parametrize(
    ("gap", "profile", "share_of_error"),
    [(3, BOX, 0.5), (5, BOX, 0.7), (4, BOX, 0.6), (3, SliceProfile("gaussian", 1.0), 0.5), (4, SliceProfile("box", 0.6), 0.7)],
)
def test_on_thick_slices_of_anatomy_it_was_not_trained_on_it_beats_linear_interpolation(gap, profile, share_of_error, volumes):
    seen, wanted = draw_batch(volumes, gap, replace(THICK_PLAN, batch=24, alone=0.0), np.random.default_rng(0), profile)
    with torch.no_grad():
        predicted = network(general_weights(gap, gap, profile), gap, (CHANNELS, DEPTH), averaged=True)(seen)
        linear = RowNetwork(gap, *TINY, CONTEXT, averaged=True)(seen)
    errors = [(rows - wanted)[:, :, 1:-1].square().mean() for rows in (predicted, linear)]
    assert errors[0] < share_of_error * errors[1]


@pytest.mark.parametrize("gap", [3, 4])
@pytest.mark.parametrize("profile", [BOX, SliceProfile("box", 1.7), SliceProfile("box", 0.5), SliceProfile("gaussian", 1.0)])
def test_patches_of_thick_slices_show_averages_of_the_rows_asked_for(gap, profile, volumes):
    seen, wanted = draw_batch(volumes, gap, replace(PLAN, averaged=True, blurred=0.0, alone=0.0), np.random.default_rng(1), profile)
    assert wanted.shape[1:3] == (gap, seen.shape[2])
    rows = wanted.transpose(1, 2).flatten(1, 2)
    offsets, weights = profile.weights(gap)
    for number in range(2, seen.shape[2] - 2):
        average = torch.einsum("brx,r->bx", rows[:, number * gap + gap // 2 + offsets], torch.from_numpy(weights).float())
        assert torch.allclose(average, seen[:, CONTEXT, number], atol=1e-5)


def test_profiles_of_every_kind_are_drawn_for_averages_alone():
    rng = np.random.default_rng(0)
    drawn = [draw_profile(THICK_PLAN, rng) for _ in range(200)]
    assert BOX in drawn and {profile.kind for profile in drawn} == {"box", "gaussian"}
    assert draw_profile(PLAN, rng).kind == "point"


def test_patches_show_every_gap_th_row_and_ask_for_the_rows_between(volumes):
    plan = replace(PLAN, blurred=0.0, inverted=0.0, alone=0.0)
    seen, wanted = draw_batch(volumes, 4, plan, np.random.default_rng(1))
    assert seen.shape == (4, 5, 13, 64) and wanted.shape == (4, 3, 12, 64)
    before = (wanted[:, 0] - seen[:, CONTEXT, :-1]).abs().mean()
    assert before < (wanted[:, 2] - seen[:, CONTEXT, :-1]).abs().mean()
    alone, _ = draw_batch(volumes, 4, replace(plan, alone=1.0), np.random.default_rng(1))
    assert torch.equal(alone[:, 0], alone[:, CONTEXT])


@pytest.mark.parametrize("averaged", [False, True])
def test_training_is_repeatable_and_learns(averaged, volumes):
    plan = replace(PLAN, averaged=averaged, gaps=(3,), gap_shares=(1.0,), iterations=60, alone=0.0, hidden_rate=0.02)
    first, second = (train_family(volumes, plan) for _ in range(2))
    for (name, value), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    seen, wanted = draw_batch(volumes, 3, replace(plan, batch=24), np.random.default_rng(5), BOX if averaged else SliceProfile())
    untrained = RowNetworkFamily(*TINY, averaged)
    with torch.no_grad():
        losses = [(network(family.weights(3, 3), 3, averaged=averaged)(seen) - wanted).abs().mean() for family in (untrained, first)]
    assert losses[1] < losses[0]


def test_synthetic_anatomy_is_repeatable_varied_and_in_the_window():
    same, again = (synthetic_anatomy(np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(same, again) and same.shape == (SIDE,) * 3 and same.dtype == np.float32
    assert np.percentile(same, [0.5, 99.5]) == pytest.approx([0.0, 1.0], abs=0.01)
    assert same.std() > 0.05 and same.min() >= -0.2 and same.max() <= 1.3
    assert np.array_equal(make_volumes(PLAN), make_volumes(PLAN))
