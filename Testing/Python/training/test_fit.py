"""The fit: it learns, it repeats itself, and it survives being stopped at any iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from MedGSLib.errors import Cancelled, MedGSError
from MedGSLib.gaussians import FoldedGaussians, FoldSettings
from MedGSLib.progress import ProgressEvent, Reporter
from MedGSLib.raster import render_slices
from MedGSLib.training.checkpoint import CheckpointStore
from MedGSLib.training.config import paper_training
from MedGSLib.training.fit import fit
from MedGSLib.training.initialize import initialize

PAPER_FOLD = {"degree": 3, "fold": "shrink", "blending": "alpha"}


class Killed(Exception):
    """Stands for the end of the process."""


def kill_at(iteration: int) -> Callable[[int, FoldedGaussians], None]:
    def hook(done: int, _: FoldedGaussians) -> None:
        if done == iteration:
            raise Killed

    return hook


def same(first: FoldedGaussians, second: FoldedGaussians) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def error(gaussians: FoldedGaussians, targets, rasterizer) -> np.ndarray:
    """Root mean square error of each head."""
    with torch.no_grad():
        rendered, _ = render_slices(gaussians, torch.from_numpy(targets.coordinates).float(), *targets.size, rasterizer)
    return np.sqrt(((rendered.permute(0, 3, 1, 2).numpy() - targets.values) ** 2).mean(axis=(0, 2, 3)))


@pytest.fixture
def paper_config():
    """The paper's recipe with all of its events in 30 iterations, steep enough to change the number of Gaussians."""
    recipe = paper_training(iterations=30, gaussians=200)
    density = replace(recipe.density, start=2, interval=4, stop=24, opacity_reset_interval=9, clone_gradient=2e-5, max_gaussians=400)
    return replace(recipe, seed=3, density=density)


@pytest.fixture
def recipes(config, paper_config, start, targets):
    """name -> (config, maker of fresh Gaussians)"""
    return {
        "study": (config, start),
        "paper": (paper_config, lambda: initialize(targets, paper_config, FoldSettings(**PAPER_FOLD))),
    }


def test_both_heads_come_closer_to_their_targets(start, targets, config, rasterizer):
    before = error(start(), targets, rasterizer)
    losses = []
    gaussians, report = fit(
        start(),
        targets,
        replace(config, iterations=60),
        rasterizer,
        Reporter(lambda event: losses.append(event.loss)),
    )
    after = error(gaussians, targets, rasterizer)
    assert np.all(after < 0.4 * before), (before, after)
    reported = [loss for loss in losses if loss is not None]
    assert reported[-1] == pytest.approx(report.loss)
    assert (report.iterations, report.resumed_from, report.gaussians) == (60, 0, 150)


def test_the_paper_s_recipe_learns_adds_and_prunes(recipes, targets, rasterizer):
    config, make = recipes["paper"]
    longer = replace(config, iterations=60, density=replace(config.density, opacity_reset_interval=1000))
    counts = []
    before = error(make(), targets, rasterizer)
    gaussians, report = fit(make(), targets, longer, rasterizer, Reporter(), on_iteration=lambda _, current: counts.append(len(current)))
    assert 200 < max(counts) <= 400 and len(set(counts)) > 2
    assert counts[0] == 200 and counts[-1] == report.gaussians == len(gaussians)
    assert len(set(counts[24:])) == 1, counts
    assert error(gaussians, targets, rasterizer)[0] < 0.9 * before[0]


def test_there_are_never_more_gaussians_than_pixels(paper_config, targets, rasterizer):
    tiny = replace(targets, values=targets.values[:, :, 6:14, 8:16])
    greedy = replace(paper_config, density=replace(paper_config.density, clone_gradient=0.0, prune_opacity=1e-6, max_gaussians=100_000))
    _, report = fit(initialize(tiny, greedy, FoldSettings(**PAPER_FOLD)), tiny, greedy, rasterizer, Reporter())
    assert report.gaussians == len(tiny.used) * 8 * 8


@pytest.mark.parametrize("recipe", ["study", "paper"])
def test_the_same_seed_gives_the_same_gaussians_bit_for_bit(recipes, recipe, targets, rasterizer):
    config, make = recipes[recipe]
    one, _ = fit(make(), targets, config, rasterizer, Reporter())
    two, _ = fit(make(), targets, config, rasterizer, Reporter())
    assert same(one, two)
    other, _ = fit(make(), targets, replace(config, seed=4), rasterizer, Reporter())
    assert not same(one, other)


@pytest.mark.parametrize("recipe", ["study", "paper"])
def test_a_killed_fit_continues_as_if_nothing_had_happened(recipes, recipe, targets, rasterizer, tmp_path):
    config, make = recipes[recipe]
    undisturbed, expected = fit(make(), targets, config, rasterizer, Reporter())
    for stop_at in (7, 15):
        store = CheckpointStore(tmp_path, "run", interval_s=0.0)
        with pytest.raises(Killed):
            fit(make(), targets, config, rasterizer, Reporter(), checkpoints=store, on_iteration=kill_at(stop_at))
    store = CheckpointStore(tmp_path, "run", interval_s=1e6)
    continued, report = fit(make(), targets, config, rasterizer, Reporter(), checkpoints=store)
    assert report.resumed_from == 14
    assert same(undisturbed, continued)
    assert report.loss == pytest.approx(expected.loss, rel=1e-6)


def test_cancelling_writes_a_checkpoint_to_continue_from(start, targets, config, rasterizer, tmp_path):
    store = CheckpointStore(tmp_path, "run", interval_s=1e6)

    def stop(event: ProgressEvent) -> bool:
        return event.step < 10

    reporter = Reporter(stop)
    reporter.MIN_INTERVAL_S = 0.0
    with pytest.raises(Cancelled):
        fit(start(), targets, config, rasterizer, reporter, checkpoints=store)
    assert store.load("fit").facts["iteration"] == 10
    continued, report = fit(start(), targets, config, rasterizer, Reporter(), checkpoints=store)
    assert report.resumed_from == 10
    assert same(continued, fit(start(), targets, config, rasterizer, Reporter())[0])


def test_a_finished_fit_is_not_repeated(start, targets, config, rasterizer, tmp_path):
    store = CheckpointStore(tmp_path, "run", interval_s=0.0)
    done, _ = fit(start(), targets, config, rasterizer, Reporter(), checkpoints=store)
    called = []
    again, report = fit(start(), targets, config, rasterizer, Reporter(), checkpoints=store, on_iteration=lambda *_: called.append(1))
    assert called == [] and report.resumed_from == config.iterations
    assert same(done, again)


def test_refining_moves_nothing_but_the_mask_head(start, targets, config, rasterizer):
    gaussians = start()
    before = {name: value.clone() for name, value in gaussians.state_dict().items()}
    shifted = replace(targets, values=np.roll(targets.values, 3, axis=3))
    refined, _ = fit(gaussians, shifted, config, rasterizer, Reporter(), trainable=frozenset({"values"}), frozen_heads=1)
    after = refined.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name != "values")
    assert torch.equal(after["values"][:, 0], before["values"][:, 0])
    assert not torch.equal(after["values"][:, 1], before["values"][:, 1])


def test_refining_with_the_paper_s_recipe_neither_adds_nor_removes_nor_resets(recipes, targets, rasterizer):
    config, make = recipes["paper"]
    before = make().state_dict()
    refined, report = fit(make(), targets, config, rasterizer, Reporter(), trainable=frozenset({"values"}), frozen_heads=1)
    assert report.gaussians == 200
    assert all(torch.equal(value, before[name]) for name, value in refined.state_dict().items() if name != "values")


def test_weights_that_are_no_opacities_are_not_pruned(paper_config, targets, rasterizer):
    gaussians = initialize(targets, paper_config, FoldSettings(blending="normalized"))
    _, report = fit(gaussians, targets, paper_config, rasterizer, Reporter())
    assert report.gaussians == 200


def test_a_diverging_fit_ends_in_a_sentence_and_leaves_no_bad_checkpoint(start, targets, config, rasterizer, tmp_path):
    store = CheckpointStore(tmp_path, "run", interval_s=0.0)
    infinite = replace(targets, values=np.where(np.arange(9)[:, None, None, None] == 3, np.float32(np.inf), targets.values))
    with pytest.raises(MedGSError, match="diverged"):
        fit(start(), infinite, config, rasterizer, Reporter(), checkpoints=store)
    stored = store.load("fit")
    assert stored is None or all(bool(torch.isfinite(value).all()) for value in stored.tensors.values())


def test_slices_of_weight_zero_have_no_influence(start, targets, config, rasterizer):
    weights = targets.weights.copy()
    weights[1::2] = 0.0
    wrong = targets.values.copy()
    wrong[1::2] = 7.0
    one, _ = fit(start(), replace(targets, weights=weights), config, rasterizer, Reporter())
    two, _ = fit(start(), replace(targets, weights=weights, values=wrong), config, rasterizer, Reporter())
    assert same(one, two)


def test_every_slice_is_visited_equally_often(start, targets, config, rasterizer):
    visited = np.zeros(9, int)

    class Counting:
        name, device, blendings = rasterizer.name, rasterizer.device, rasterizer.blendings

        def rasterize(self, sliced, *arguments, **settings):
            return rasterizer.rasterize(sliced, *arguments, **settings)

    gaussians = start()
    original = type(gaussians).at

    def at(self, t):
        visited[t.long().numpy()] += 1
        return original(self, t)

    gaussians.at = at.__get__(gaussians)
    fit(gaussians, targets, replace(config, iterations=27, slices_per_step=3), Counting(), Reporter())
    assert visited.min() >= 8 and visited.max() <= 10


def test_linear_blends_pull_the_image_between_slices(targets, rasterizer):
    """Two blobs side by side in consecutive slices: only with blends is the slice between them half of each."""
    values = np.zeros((3, 1, 16, 24), np.float32)
    values[::2, 0, 4:12, 3:9] = 1.0
    values[1, 0, 4:12, 15:21] = 1.0
    coordinates = np.array([0.0, 4.0, 8.0])
    sparse = replace(targets, coordinates=coordinates, values=values, weights=np.ones((3, 1), np.float32), acquired=np.ones(3, bool))
    recipe = replace(paper_training(iterations=80, gaussians=150), density=None, spread_range=None, loss="l2", decay_center_only=False)
    recipe = replace(recipe, learning_rates=replace(recipe.learning_rates, values=0.05, log_weight=0.1, log_scale=0.03, center=0.1))
    found = {}
    for name, weight in (("with", 8.0), ("without", 0.0)):
        config = replace(recipe, blends=replace(recipe.blends, first_iteration=0, weight=weight))
        gaussians, _ = fit(initialize(sparse, config, FoldSettings(degree=0)), sparse, config, rasterizer, Reporter())
        with torch.no_grad():
            features, _ = render_slices(gaussians, torch.tensor([2.0, 6.0]), 16, 24, rasterizer)
        found[name] = float((features[..., 0] - torch.from_numpy(0.5 * (values[0, 0] + values[1, 0]))).abs().mean())
    assert found["with"] < 0.7 * found["without"], found
