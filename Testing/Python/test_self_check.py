"""The self-check leaves the right slices out, compares them with the truth, and never makes a run fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedGSLib.baselines.masks import sdf_linear
from MedGSLib.config import preset_config
from MedGSLib.metrics import dice, mean_psnr
from MedGSLib.preparation import prepare
from MedGSLib.prior.image_config import PriorConfig
from MedGSLib.progress import Reporter
from MedGSLib.reconstruct import reconstruct
from MedGSLib.self_check import ALTERNATIVES, LeftOutResult, SelfCheck, self_check
from MedGSLib.volume import Label, SliceStack

GAP = 3.0


def make_stack(slices: int = 9, size: tuple[int, int] = (20, 22), annotated=None) -> SliceStack:
    """A slanted cylinder; its centre moves one pixel a slice."""
    z, y, x = np.meshgrid(np.arange(slices), np.arange(size[0]), np.arange(size[1]), indexing="ij")
    inside = (x - 5.0 - z) ** 2 + (y - 9.0) ** 2 < 20.0
    image = 20.0 + 60.0 * inside + np.random.default_rng(0).normal(0.0, 1.0, inside.shape)
    return SliceStack(
        image=image.astype(np.float32),
        occupancy=inside[None].astype(np.float32),
        labels=(Label(1, "tube"),),
        annotated=np.ones(slices, bool) if annotated is None else np.asarray(annotated, bool),
        positions_mm=np.arange(slices) * GAP,
        plane_to_ras=np.eye(4),
    )


def recipe(**overrides: object):
    options = {"scale": 3, "iterations": 30, "gaussians": 400, "threads": 1, "device": "cpu"} | overrides
    return replace(preset_config("fast", **options), prior=PriorConfig(method="linear"), self_check=True)


class Oracle:
    """A reconstruction that knows the truth of the whole stack, made worse by ``blur`` and ``shift`` where wanted."""

    def __init__(self, truth: SliceStack, noise: float = 0.0) -> None:
        self.truth, self.noise = truth, noise
        self.asked: list[tuple[SliceStack, object]] = []

    def __call__(self, stack: SliceStack, config, reporter: Reporter) -> LeftOutResult:
        self.asked.append((stack, config))
        prepared = prepare(stack, config, reporter)
        ras = prepared.grid.positions_mm[:, None] * stack.plane_to_ras[:3, 2] + stack.plane_to_ras[:3, 3]
        numbers = np.rint((ras - self.truth.plane_to_ras[:3, 3]) @ self.truth.plane_to_ras[:3, 2] / GAP).astype(int)
        image = doubt = occupancy = None
        if stack.image is not None:
            low, high = prepared.window
            error = np.random.default_rng(5).normal(0.0, 1.0, stack.shape[1:]).astype(np.float32)
            image = (self.truth.image[numbers] - low) / (high - low) + self.noise * error
            doubt = np.broadcast_to(np.abs(error), image.shape).astype(np.float32)
        if stack.occupancy is not None:
            occupancy = self.truth.occupancy[:, numbers]
        return LeftOutResult(prepared, image, doubt, occupancy)


def test_every_other_slice_is_left_out_at_twice_the_distance():
    stack = make_stack()
    oracle = Oracle(stack)
    check = self_check(stack, recipe(), oracle, Reporter())
    seen, config = oracle.asked[0]
    np.testing.assert_array_equal(seen.image, stack.image[::2])
    assert seen.gap_mm == 2 * GAP and config.scale == 2 and not config.self_check
    assert check.left_out == 4
    assert set(check.image) == {"medgs", *ALTERNATIVES}
    assert check.image["medgs"]["psnr_db"] > 90.0 and check.share == 1.0
    assert check.masks["tube"]["dice_medgs"] == 1.0 > check.masks["tube"]["dice_sdf_linear"] > 0.5
    assert check.masks["tube"]["contour_error_q90_mm"] == pytest.approx(0.0, abs=1e-6)


def test_a_mask_is_blended_only_where_linear_contours_alone_do_better():
    stack = make_stack()
    worse = np.roll(stack.occupancy, 6, axis=-1)
    check = self_check(stack, recipe(), Oracle(replace(stack, occupancy=worse)), Reporter())
    figures = check.masks["tube"]
    assert figures["dice_medgs"] < figures["dice_sdf_linear"] and check.mask_share("tube") < 0.5
    best = self_check(stack, recipe(), Oracle(stack), Reporter())
    assert best.mask_share("tube") == best.mask_share("unchecked") == 1.0


def test_what_the_check_prefers_is_what_the_user_gets(monkeypatch):
    stack = make_stack()
    share = {"tube": {"dice_medgs": 0.5, "dice_sdf_linear": 0.9, "share_of_medgs": 0.0, "contour_error_q90_mm": 1.0}}
    monkeypatch.setattr("MedGSLib.reconstruct.self_check", lambda *_: SelfCheck(4, masks=share))
    result = reconstruct(stack, recipe(scale=2))
    expected = sdf_linear(stack.occupancy[0] >= 0.5, stack.positions_mm, result.grid.positions_mm, stack.pixel_mm) > 0
    np.testing.assert_array_equal(result.occupancy[0] > 0.5, expected)
    np.testing.assert_array_equal(result.label_map > 0, expected)
    assert any("contours of tube did better: 100 %" in remark for remark in result.report["remarks"])


def test_thick_slices_are_compared_with_what_thick_slices_would_show():
    """The thin truth, averaged over the thickness of a slice, is what was acquired; unaveraged it is not."""
    z, y, x = np.meshgrid(np.arange(-1, 18) / 2.0, np.arange(20.0), np.arange(22.0), indexing="ij")
    fine = (100.0 * ((x - 6.0 - z) ** 2 + (y - 9.0) ** 2 < 20.0)).astype(np.float32)
    thick = 0.25 * fine[:-2:2] + 0.5 * fine[1:-1:2] + 0.25 * fine[2::2]
    stack = replace(make_stack(), image=thick, occupancy=None, labels=(), slice_thickness_mm=GAP)

    def thin_truth(seen: SliceStack, config, reporter: Reporter) -> LeftOutResult:
        prepared = prepare(seen, config, reporter)
        assert prepared.profile.kind == "box" and len(prepared.grid) == 17
        low, high = prepared.window
        return LeftOutResult(prepared, (fine[1:-1] - low) / (high - low), np.zeros((17, 20, 22), np.float32), None)

    check = self_check(stack, recipe(mode="image"), thin_truth, Reporter())
    assert check.image["medgs"]["psnr_db"] > 80.0 and check.share == 1.0


def test_an_impossible_thickness_of_the_header_plays_no_part_in_the_check():
    stack = replace(make_stack(), slice_thickness_mm=10 * GAP, meta={"slice_thickness_mm": f"{10 * GAP:g}"})
    oracle = Oracle(stack)
    assert self_check(stack, recipe(), oracle, Reporter()) is not None
    _, asked = oracle.asked[0]
    assert (asked.slice_profile, asked.scale) == ("point", 2)


def test_a_check_that_fails_says_why():
    result = reconstruct(replace(make_stack(), slice_thickness_mm=10 * GAP), recipe(scale=1, iterations=2))
    (remark,) = result.report["remarks"]
    assert "10 slice gaps" in remark and "--slice-profile point" in remark and "too few" not in remark


def test_large_stacks_are_checked_on_a_bounded_part_round_their_middle():
    stack = replace(make_stack(slices=40, size=(200, 170)), occupancy=None, labels=())
    oracle = Oracle(replace(stack, image=stack.image[:, 20:180, 5:165]))
    check = self_check(stack, recipe(mode="image"), oracle, Reporter())
    seen, _ = oracle.asked[0]
    assert seen.shape == (9, 160, 160) and check.left_out == 8
    first = 11
    np.testing.assert_array_equal(seen.image[0], stack.image[first, 20:180, 5:165])


def test_the_cost_is_that_of_the_fast_preset_and_saved_models_play_no_part():
    oracle = Oracle(make_stack())
    config = replace(preset_config("high", scale=3), start_model="somewhere.medgs", self_check=True)
    self_check(make_stack(), config, oracle, Reporter())
    _, asked = oracle.asked[0]
    assert asked.start_model is None and asked.refine_mask is None
    assert asked.training.iterations == 150 and asked.training.voxels_per_gaussian == 24.0
    assert asked.prior.iterations == preset_config("fast").prior.iterations


@pytest.mark.parametrize("slices", [2, 3, 4])
def test_short_stacks_are_not_checked(slices):
    assert self_check(make_stack(slices=slices), recipe(), Oracle(make_stack()), Reporter()) is None


def test_a_better_alternative_gets_its_share():
    """A noisy reconstruction of a stack that linear interpolation predicts well is blended with the alternative by least squares."""
    ramp = np.linspace(0.0, 1.0, 9)[:, None, None] * np.linspace(10.0, 90.0, 22)
    stack = replace(make_stack(), image=np.broadcast_to(ramp, (9, 20, 22)).astype(np.float32), occupancy=None, labels=())
    check = self_check(stack, recipe(mode="image"), Oracle(stack, noise=0.2), Reporter())
    assert check.alternative in ALTERNATIVES and check.share < 0.05
    assert check.as_dict()["blended_with"] == check.alternative
    better = self_check(stack, recipe(mode="image"), Oracle(stack), Reporter())
    assert better.as_dict()["blended_with"] is None


def test_error_bins_follow_the_doubt():
    stack = make_stack()
    check = self_check(stack, recipe(mode="image"), Oracle(stack, noise=0.1), Reporter())
    doubts, errors = np.array(check.doubt_bins), np.array(check.error_bins)
    assert len(doubts) == 12 and (np.diff(doubts) >= 0).all() and (np.diff(errors) >= 0).all()
    np.testing.assert_allclose(errors[2:-1], 0.1 * doubts[2:-1], rtol=0.25)


def test_sparse_annotations_are_left_out_while_the_image_stays():
    annotated = np.arange(17) % 2 == 0
    stack = make_stack(slices=17, size=(20, 30), annotated=annotated)
    oracle = Oracle(stack)
    check = self_check(stack, recipe(scale=1), oracle, Reporter())
    seen, config = oracle.asked[0]
    assert seen.shape == stack.shape and config.scale == 1
    assert np.flatnonzero(seen.annotated).tolist() == [0, 4, 8, 12, 16]
    assert check.left_out == 4 and check.image == {} and check.masks["tube"]["dice_medgs"] == 1.0


def test_sparse_annotations_without_an_image_are_checked_too():
    annotated = np.arange(17) % 2 == 0
    stack = make_stack(slices=17, size=(20, 30), annotated=annotated)
    result = reconstruct(stack, recipe(mode="mask", scale=1))
    assert result.report["self_check"]["left_out_slices"] == 4
    assert result.report["self_check"]["masks"]["tube"]["dice_medgs"] > 0.6


def test_the_check_of_a_real_run_measures_what_it_says():
    stack = make_stack()
    result = reconstruct(stack, recipe())
    figures = result.report["self_check"]
    half = reconstruct(stack.select(np.arange(0, 9, 2)), replace(recipe(scale=2), self_check=False))
    low, high = half.header.window
    expected = mean_psnr((half.image[1::2] - low) / (high - low), (stack.image[1::2] - low) / (high - low))
    assert figures["image"]["medgs"]["psnr_db"] == pytest.approx(expected, abs=0.05)
    assert figures["masks"]["tube"]["dice_medgs"] == pytest.approx(
        dice(half.occupancy[0, 1::2] > 0.5, stack.occupancy[0, 1::2] > 0.5), abs=0.01
    )
    assert result.report["segments"]["tube"]["position_error_is_calibrated"]


@pytest.mark.parametrize("case", ["small pixels", "empty middle", "constant middle", "one label leaves the window"])
def test_odd_stacks_do_not_make_the_run_fail(case):
    stack = make_stack(size=(9, 14)) if case == "small pixels" else make_stack(slices=21)
    if case == "empty middle":
        stack.occupancy[0, 1:-1] = 0.0
    elif case == "constant middle":
        stack.image[1:-1] = 7.0
    elif case == "one label leaves the window":
        end = np.zeros_like(stack.occupancy)
        end[0, -1, 3:9, 3:9] = 1.0
        stack = replace(stack, occupancy=np.concatenate([stack.occupancy, end]), labels=(*stack.labels, Label(2, "end")))
    result = reconstruct(stack, recipe(scale=2, iterations=3))
    assert result.image is not None


def test_figures_of_a_check_are_plain():
    assert SelfCheck(3).as_dict()["share_of_medgs"] == 1.0
