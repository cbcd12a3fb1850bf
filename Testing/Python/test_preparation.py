"""What is known before the first Gaussian: window, grid, slice profile, targets and their weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from MedGSLib import memory
from MedGSLib.config import preset_config
from MedGSLib.errors import InputError, ResourceError
from MedGSLib.preparation import SPARSE_MASK_SPREAD, choose_grid, intensity_window, prepare, slice_profile, thickness_decision
from MedGSLib.prior.image_config import PriorConfig
from MedGSLib.progress import Reporter
from MedGSLib.training.checkpoint import CheckpointStore
from MedGSLib.volume import Label, SliceStack

GAP, HEIGHT, WIDTH = 4.0, 22, 26


def make_stack(positions=None, *, labels: int = 1, thickness=None, annotated=None, pixel=(1.0, 1.0)) -> SliceStack:
    """A ball of radius 8 mm in noise; ``pixel`` is (row, column) in mm."""
    positions = np.arange(6) * GAP if positions is None else np.asarray(positions, float)
    matrix = np.diag([pixel[1], pixel[0], 1.0, 1.0])
    z, y, x = np.meshgrid(positions, np.arange(HEIGHT) * pixel[0], np.arange(WIDTH) * pixel[1], indexing="ij")
    inside = (x - 12.4) ** 2 + (y - 10.3) ** 2 + (z - 9.1) ** 2 < 64.0
    noise = np.random.default_rng(0).normal(0.0, 4.0, inside.shape)
    occupancy = np.stack([inside, x < 3.0][:labels]).astype(np.float32)
    return SliceStack(
        image=(40.0 + 100.0 * inside + noise).astype(np.float32),
        occupancy=occupancy,
        labels=tuple(Label(k + 1, f"label {k + 1}") for k in range(labels)),
        annotated=np.ones(len(positions), bool) if annotated is None else np.asarray(annotated, bool),
        positions_mm=positions,
        plane_to_ras=matrix,
        slice_thickness_mm=thickness,
    )


def recipe(method="linear", **overrides):
    config = preset_config("fast", device="cpu", **overrides)
    return replace(config, prior=PriorConfig(method=method, iterations=7, flow_share=0.5))


def test_the_window_is_the_percentiles_and_values_beyond_stay_linear():
    image = np.linspace(0.0, 1000.0, 100_001, dtype=np.float32)
    assert intensity_window(image) == pytest.approx((5.0, 995.0), rel=1e-3)
    stack = make_stack()
    stack.image[0, 0, 0] = 5000.0
    prepared = prepare(stack, recipe(scale=2), Reporter())
    low, high = prepared.window
    np.testing.assert_allclose(prepared.slices * (high - low) + low, stack.image, rtol=1e-5, atol=1e-3)
    assert prepared.slices.max() > 10.0


def test_a_window_of_almost_constant_images_takes_the_extremes():
    image = np.zeros((4, 40, 40), np.float32)
    image[0, 0, 0] = 7.0
    assert intensity_window(image) == (0.0, 7.0)


def test_a_constant_image_is_refused():
    stack = make_stack()
    with pytest.raises(InputError, match="same value"):
        prepare(replace(stack, image=np.full_like(stack.image, 3.0)), recipe(), Reporter())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(bad):
    stack = make_stack()
    stack.image[2, 3, 4] = bad
    with pytest.raises(InputError, match="not numbers"):
        prepare(stack, recipe(), Reporter())


def test_a_single_slice_is_refused():
    with pytest.raises(InputError, match="at least 2"):
        prepare(make_stack([0.0]), recipe(), Reporter())


@pytest.mark.parametrize(
    ("options", "pixel", "factor", "count", "step"),
    [
        ({"scale": 3}, (1.0, 1.0), 3, 16, GAP / 3),
        ({"scale": 1}, (1.0, 1.0), 1, 6, GAP),
        ({"spacing_mm": 0.9}, (1.0, 1.0), 4, 21, 1.0),
        ({}, (1.0, 1.0), 4, 21, 1.0),
        ({}, (2.1, 1.9), 2, 11, 2.0),
        ({}, (0.25, 0.25), 8, 41, 0.5),
    ],
)
def test_grid_of_a_regular_stack(options, pixel, factor, count, step):
    found, grid = choose_grid(make_stack(pixel=pixel), recipe(**options))
    assert found == factor and len(grid) == count and grid.spacing_mm == pytest.approx(step)
    assert grid.acquired.tolist() == [k * factor for k in range(6)]


def test_a_result_that_cannot_fit_into_memory_is_refused_before_the_work(monkeypatch):
    stack = make_stack()
    prepare(stack, recipe(scale=1), Reporter())
    monkeypatch.setattr(memory, "total_bytes", lambda: 10**6)
    with pytest.raises(ResourceError, match="million voxels, for which .* GB of memory"):
        prepare(stack, recipe(scale=8), Reporter())


def test_a_missing_slice_leaves_the_other_planes_on_the_grid():
    positions = [0.0, 4.0, 12.0, 16.0, 20.0]
    prepared = prepare(make_stack(positions), recipe(scale=2), Reporter())
    assert prepared.grid.acquired.tolist() == [0, 2, 6, 8, 10]
    assert len(prepared.grid) == 11 and prepared.step_mm == pytest.approx(2.0)
    np.testing.assert_allclose(prepared.targets.coordinates, [0, 1, 2, 4, 6, 7, 8, 9, 10])
    assert np.flatnonzero(prepared.targets.acquired).tolist() == [0, 2, 4, 6, 8]


def test_jittered_slices_keep_their_own_positions():
    positions = np.array([0.0, 3.7, 8.4, 12.1, 15.7, 20.3])
    stack = make_stack(positions)
    prepared = prepare(stack, recipe(scale=2), Reporter())
    median = float(np.median(np.diff(positions)))
    assert prepared.step_mm == pytest.approx(median / 2)
    np.testing.assert_allclose(prepared.targets.coordinates[::2] * prepared.step_mm, positions, atol=1e-9)
    np.testing.assert_allclose(prepared.targets.values[::2, 0], prepared.slices, atol=1e-6)
    assert prepared.grid.acquired[0] == 0 and (prepared.grid.acquired[1:] == -1).any()
    np.testing.assert_allclose(np.diff(prepared.grid.positions_mm), median / 2)


@pytest.mark.parametrize(
    ("thickness", "wanted", "scale", "expected"),
    [
        (None, "auto", 4, ("point", 0.0)),
        (4.0, "auto", 4, ("box", 1.0)),
        (6.0, "auto", 4, ("box", 1.5)),
        (4.0, "gaussian", 4, ("gaussian", 1.0)),
        (4.0, "point", 4, ("point", 0.0)),
        (4.0, "auto", 1, ("point", 0.0)),
        (1.0, "auto", 4, ("point", 0.0)),
        (1.2, "auto", 4, ("box", 0.3)),
    ],
)
def test_slices_average_over_their_known_thickness(thickness, wanted, scale, expected):
    stack = make_stack(thickness=thickness)
    config = recipe(scale=scale, slice_profile=wanted)
    profile = slice_profile(stack, config, scale)
    assert (profile.kind, profile.width) == (expected[0], pytest.approx(expected[1]))
    assert slice_profile(replace(stack, image=None), config, scale).kind == "point"


def test_a_profile_without_a_thickness_is_refused():
    with pytest.raises(InputError, match="slice thickness"):
        slice_profile(make_stack(), recipe(slice_profile="box"), 4)


def test_thick_slices_are_reproduced_by_the_prior_not_repeated_in_it():
    stack = make_stack(thickness=GAP)
    prepared = prepare(stack, recipe(scale=4), Reporter())
    assert prepared.report["profile"].items() >= {"kind": "box", "width_in_gaps": 1.0}.items()
    assert prepared.report["profile"]["doubtful"] in (False, True, None) and prepared.report["profile"]["reason"].endswith(".")
    offsets, weights = prepared.profile.weights(4)
    inner = [np.tensordot(weights, prepared.prior.image[k * 4 + offsets], axes=1) for k in range(1, 5)]
    assert np.abs(np.array(inner) - prepared.slices[1:5]).mean() < 0.25 * np.abs(prepared.prior.image[4:20:4] - prepared.slices[1:5]).mean()
    assert (prepared.targets.weights[:, 0] == 1.0).all()


@pytest.mark.parametrize(("asked", "share"), [("auto", 0.5), ("box", 1.0)])
def test_a_thickness_that_the_slices_contradict_is_narrowed_unless_asked_for_by_name(asked, share):
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(80, 40, 44)), 1.5)
    stack = replace(make_stack(np.arange(20) * GAP), image=noise[::4].astype(np.float32), occupancy=None, slice_thickness_mm=2 * GAP)
    messages = []
    reporter = Reporter(lambda event: messages.append(event.message))
    prepared = prepare(stack, recipe(mode="image", scale=3, slice_profile=asked), reporter)
    profile = prepared.report["profile"]
    assert profile["doubtful"] and profile["width_in_gaps"] == 2.0
    assert prepared.profile.width == profile["used_width_in_gaps"] == 2.0 * share
    assert any(profile["reason"] in (message or "") and thickness_decision(profile) in message for message in messages)


def test_a_header_with_an_impossible_thickness_is_not_believed_and_one_that_was_given_is_refused():
    told = make_stack(thickness=10 * GAP)
    header = replace(told, meta={"slice_thickness_mm": f"{10 * GAP:g}"})
    prepared = prepare(header, recipe(scale=3), Reporter())
    profile = prepared.report["profile"]
    assert prepared.profile.kind == "point" and (profile["width_in_gaps"], profile["used_width_in_gaps"]) == (10.0, 0.0)
    assert profile["doubtful"] and "10 slice gaps" in profile["reason"] and "thin" in thickness_decision(profile)
    assert "doubtful" not in prepare(header, recipe(scale=1), Reporter()).report["profile"]
    for stack, asked in ((told, "auto"), (header, "box"), (replace(told, meta={"slice_thickness_mm": "3 mm"}), "auto")):
        with pytest.raises(InputError, match="--slice-profile point"):
            prepare(stack, recipe(scale=3, slice_profile=asked), Reporter())


def partly_filled_stack(*, thickness=GAP, mode="mask") -> SliceStack:
    """The ball of :func:`make_stack` on anisotropic pixels, its mask the share of each slab that it fills."""
    stack = make_stack(pixel=(1.4, 0.9), thickness=thickness)
    y, x = np.meshgrid(np.arange(HEIGHT) * 1.4, np.arange(WIDTH) * 0.9, indexing="ij")
    across = 64.0 - (x - 12.4) ** 2 - (y - 10.3) ** 2
    half = np.sqrt(np.maximum(across, 0.0))
    z = stack.positions_mm[:, None, None]
    upper, lower = np.minimum(z + GAP / 2, 9.1 + half), np.maximum(z - GAP / 2, 9.1 - half)
    shares = np.where(across > 0, np.maximum(upper - lower, 0.0) / GAP, 0.0).astype(np.float32)
    return replace(stack, occupancy=shares[None], image=None if mode == "mask" else stack.image)


@pytest.mark.parametrize("mode", ["mask", "joint"])
def test_partial_volume_masks_of_thick_slices_are_averages(mode):
    config = recipe(mode=mode, scale=4, slice_profile="box")
    stack = partly_filled_stack(mode=mode)
    averaged = prepare(stack, config, Reporter())
    sampled = prepare(stack, recipe(mode=mode, scale=4, slice_profile="point"), Reporter())
    assert averaged.report["mask_prior"]["label 1"]["read_as"] == "average over the slice thickness"
    assert sampled.report["mask_prior"]["label 1"]["read_as"] == "sample of the centre plane"
    truth = 4.0 / 3.0 * np.pi * 8.0**3
    assert (averaged.distances > 0).sum() * 1.4 * 0.9 * GAP / 4 == pytest.approx(truth, rel=0.01)
    offsets, weights = averaged.profile.weights(4) if mode == "joint" else (np.arange(-2, 3), np.array([1, 2, 2, 2, 1]) / 8)
    off = []
    for found in (averaged, sampled):
        filled = np.clip(0.5 + found.distances[0] / 2.0, 0.0, 1.0)
        slabs = np.array([np.tensordot(weights, filled[4 * k + offsets], axes=1) for k in range(1, 5)])
        off.append(np.abs(slabs - stack.occupancy[0, 1:5]).mean())
    assert off[0] < 0.5 * off[1], off


def test_other_masks_stay_samples_of_the_centre_plane():
    stack = partly_filled_stack()
    binary = replace(stack, occupancy=(stack.occupancy >= 0.5).astype(np.float32))
    for wanted in ("auto", "box"):
        thick = prepare(binary, recipe(mode="mask", scale=4, slice_profile=wanted), Reporter())
        thin = prepare(replace(binary, slice_thickness_mm=None), recipe(mode="mask", scale=4, slice_profile=wanted), Reporter())
        np.testing.assert_array_equal(thick.distances, thin.distances)
        assert thick.report["mask_prior"]["label 1"]["read_as"] == "sample of the centre plane"
    unknown = prepare(replace(stack, slice_thickness_mm=None), recipe(mode="mask", scale=4), Reporter())
    assert unknown.report["mask_prior"]["label 1"]["read_as"] == "sample of the centre plane"


def test_acquired_slices_weigh_one_and_those_in_between_their_share():
    config = recipe(scale=3, pseudo_image_weight=0.3, pseudo_mask_weight=0.2)
    annotated = [True, True, False, True, True, True]
    targets = prepare(make_stack(annotated=annotated), config, Reporter()).targets
    acquired = np.arange(16) % 3 == 0
    np.testing.assert_allclose(targets.weights[:, 0], np.where(acquired, 1.0, 0.3), rtol=1e-6)
    believed = np.isin(np.arange(16), [0, 3, 9, 12, 15])
    np.testing.assert_allclose(targets.weights[:, 1], np.where(believed, 1.0, 0.2), rtol=1e-6)
    assert targets.has_image and targets.channels == 2


def test_targets_on_acquired_slices_are_the_input():
    stack = make_stack(labels=2)
    prepared = prepare(stack, recipe(scale=2), Reporter())
    np.testing.assert_allclose(prepared.targets.values[::2, 0], prepared.slices, atol=1e-6)
    for label in range(2):
        field = prepared.targets.values[::2, 1 + label]
        np.testing.assert_array_equal(field > 0.5, stack.occupancy[label] > 0.5)
    assert prepared.distances.shape == (2, 11, HEIGHT, WIDTH)
    assert set(prepared.report["mask_prior"]) == {"label 1", "label 2"}


@pytest.mark.parametrize(("mode", "heads", "has_image"), [("joint", 2, True), ("image", 1, True), ("mask", 1, False)])
def test_a_mode_uses_its_parts_only(mode, heads, has_image):
    prepared = prepare(make_stack(), recipe(mode=mode, scale=2), Reporter())
    assert (prepared.targets.channels, prepared.targets.has_image) == (heads, has_image)
    assert (prepared.prior is None) == (prepared.window is None) == (prepared.stack.image is None) == (not has_image)
    assert (prepared.distances is None) == (mode == "image")
    if mode == "image":
        assert prepared.stack.labels == () and prepared.stack.annotated.all()


@pytest.mark.parametrize(("mode", "missing"), [("joint", "image"), ("joint", "occupancy"), ("image", "image"), ("mask", "occupancy")])
def test_a_mode_without_its_parts_is_refused(mode, missing):
    with pytest.raises(InputError, match=f"'{mode}' needs"):
        prepare(replace(make_stack(), **{missing: None}), recipe(mode=mode), Reporter())


def test_sparse_masks_on_a_dense_image_get_their_own_recipe():
    annotated = np.zeros(11, bool)
    annotated[::5] = True
    sparse = make_stack(np.arange(11) * 2.0, annotated=annotated)
    config = recipe(scale=1)
    training = prepare(sparse, config, Reporter()).training
    assert training.spread == pytest.approx(SPARSE_MASK_SPREAD * 5)
    assert training.pseudo_mask_weight < config.training.pseudo_mask_weight and training.iterations <= config.training.iterations
    assert prepare(replace(sparse, annotated=np.ones(11, bool)), config, Reporter()).training == config.training
    assert prepare(sparse, recipe(scale=2), Reporter()).training == recipe(scale=2).training


def test_a_given_window_is_taken():
    prepared = prepare(make_stack(), recipe(scale=2), Reporter(), window=(0.0, 200.0))
    assert prepared.window == (0.0, 200.0)
    np.testing.assert_allclose(prepared.slices * 200.0, prepared.stack.image, rtol=1e-5)


def test_a_trained_prior_is_taken_from_the_checkpoint(tmp_path):
    config = recipe("learned", scale=2, mode="image")
    stages = []
    first = prepare(make_stack(), config, Reporter(), CheckpointStore(tmp_path, "run"))
    reporter = Reporter(lambda event: stages.append((event.stage, event.total)))
    second = prepare(make_stack(), config, reporter, CheckpointStore(tmp_path, "run"))
    assert first.report["image_prior"]["method"] == "learned"
    assert (tmp_path / "prior.safetensors").is_file()
    assert not any(total == 7 for _, total in stages), stages
    np.testing.assert_allclose(second.prior.image, first.prior.image, atol=1e-6)


def test_segments_of_one_name_are_told_apart():
    stack = make_stack(labels=2)
    stack = replace(stack, labels=(Label(1, "Left Lung"), Label(2, "left_lung")))
    names = [label.name for label in prepare(stack, recipe(scale=2), Reporter()).stack.labels]
    assert names == ["Left Lung", "left_lung (2)"]
