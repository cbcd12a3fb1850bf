from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from MedGSLib.errors import InputError
from MedGSLib.metrics import dice
from MedGSLib.prior.mask_distance import slice_signed_distances
from MedGSLib.prior.mask_shape import Gap, row_fields, slice_field_of_gap
from MedGSLib.prior.shape_network import (
    WEIGHTS_PATH,
    RowNetwork,
    SliceNetwork,
    between,
    load_networks,
    row_signed_distance,
    save_networks,
)
from MedGSLib.prior.shape_synthesis import SIDE, THIN_FAMILIES, make_shapes
from MedGSLib.prior.train_shape_network import TrainingPlan, row_loss, slice_loss, train, train_networks

HELD_OUT_SEED = 987_654


def ignore(units: int) -> None:
    """Progress that nobody watches."""


def test_row_distance_is_to_the_crossing_in_the_row_alone() -> None:
    rows = np.array([[-1.5, -0.5, 0.5, 1.5, 0.25, -0.75], [3, 3, 3, 3, 3, 3], [-9, -9, -9, -9, -9, -9]], np.float32)
    found = row_signed_distance(rows)
    assert found[0] == pytest.approx([-1.5, -0.5, 0.5, 1.25, 0.25, -0.75])
    assert np.all(found[1] == 8.0) and np.all(found[2] == -8.0)


def test_a_gap_meets_its_slices_and_without_coefficients_is_linear() -> None:
    rng = torch.Generator().manual_seed(0)
    before, after, coefficients = (torch.randn(shape, generator=rng) for shape in ((2, 5, 6), (2, 5, 6), (2, 4, 5, 6)))
    ends = between(before, after, coefficients, torch.tensor([0.0, 1.0]))
    assert torch.allclose(ends[:, 0], before) and torch.allclose(ends[:, 1], after)
    middle = between(before, after, torch.zeros_like(coefficients), torch.tensor([0.25]))
    assert torch.allclose(middle[:, 0], 0.75 * before + 0.25 * after)


def test_gaps_may_have_positions_of_their_own() -> None:
    rng = torch.Generator().manual_seed(0)
    before, after, coefficients = (torch.randn(shape, generator=rng) for shape in ((2, 5), (2, 5), (2, 4, 5)))
    places = torch.tensor([[0.2, 0.5, 0.9], [0.1, 0.3, 0.7]])
    together = between(before, after, coefficients, places)
    for number, own in enumerate(places):
        alone = between(before[[number]], after[[number]], coefficients[[number]], own)
        assert torch.allclose(together[number], alone[0])


def test_untrained_networks_are_linear() -> None:
    assert not SliceNetwork(8)(torch.randn(2, 4, 12, 16), torch.tensor([2.0, 5.0])).any()
    coefficients = RowNetwork(8, 4, 1)(torch.randn(3, 3, 6, 20), torch.tensor([2.0, 2.0, 2.0]))
    assert coefficients.shape == (3, 4, 5, 20) and not coefficients.any()


def stack_of(shape: np.ndarray, start: int, gap: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances (4, H, W) of slices ``gap`` apart, and what is between the middle two (gap - 1, H, W)."""
    slices = shape[start : start + 3 * gap + 1 : gap]
    return slice_signed_distances(slices), shape[start + gap + 1 : start + 2 * gap]


def test_a_stack_turned_upside_down_gives_the_field_upside_down() -> None:
    networks = load_networks()
    stack = torch.from_numpy(stack_of(make_shapes(1, 5).draw(np.random.default_rng(0)), 20, 4)[0][:, :41, :38])
    gap = Gap(1, np.array([0, 1]), np.array([0.25, 0.75], np.float32))
    with torch.inference_mode():
        fields, turned = (slice_field_of_gap(networks[0], seen, torch.tensor(4.0), gap) for seen in (stack, stack.flip(0)))
        assert torch.allclose(fields, turned.flip(0), atol=1e-4)
        turns = stack, stack.flip(0, 1, 2)
        rows, turned_rows = (row_fields(networks[1], seen, torch.full((3,), 4.0), [gap], ignore)[0] for seen in turns)
        assert torch.allclose(rows.clamp(-8, 8), turned_rows.flip(0, 1, 2).clamp(-8, 8), atol=0.1)


def test_shapes_are_repeatable_and_teach_something() -> None:
    first, second, other = make_shapes(6, 3), make_shapes(6, 3), make_shapes(6, 4)
    assert np.array_equal(first.packed, second.packed) and not np.array_equal(first.packed, other.packed)
    for number in range(8):
        drawn = first.draw(np.random.default_rng(number))
        assert drawn.shape == (SIDE, SIDE, SIDE) and drawn.dtype == bool
        assert 0.01 <= drawn.mean() <= 0.7
    thin = make_shapes(6, 3, THIN_FAMILIES)
    assert np.array_equal(thin.packed, make_shapes(6, 3, THIN_FAMILIES).packed) and not np.array_equal(thin.packed, first.packed)
    poses = {first.draw(np.random.default_rng(number)).tobytes() for number in range(40)}
    assert len(poses) > 30


def test_shipped_networks_beat_linear_interpolation_on_unseen_shapes() -> None:
    slices, rows = load_networks()
    shapes, rng = make_shapes(24, HELD_OUT_SEED), np.random.default_rng(1)
    scores: dict[str, list[float]] = {"linear": [], "slices": [], "rows": []}
    with torch.inference_mode():
        while len(scores["rows"]) < 24:
            span = int(rng.integers(3, 10))
            distances, truth = stack_of(shapes.draw(rng), int(rng.integers(0, SIDE - 3 * span)), span)
            if not truth.any() or not (distances[1:3] > 0).any():
                continue
            stack, fractions = torch.from_numpy(distances), np.arange(1, span, dtype=np.float32) / span
            gap = Gap(1, np.arange(span - 1), fractions)
            fields = {
                "linear": between(stack[1][None], stack[2][None], torch.zeros(1, 4, SIDE, SIDE), torch.from_numpy(fractions))[0],
                "slices": slice_field_of_gap(slices, stack, torch.tensor(float(span)), gap).clamp(-8, 8),
                "rows": row_fields(rows, stack, torch.full((3,), float(span)), [gap], ignore)[0].clamp(-8, 8),
            }
            for name, field in fields.items():
                scores[name].append(dice(field.numpy() > 0, truth))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    assert 1 - means["slices"] < 0.75 * (1 - means["linear"])
    assert 1 - means["rows"] < 0.75 * (1 - means["linear"])


def test_shipped_weights_are_small_and_say_where_they_come_from() -> None:
    assert WEIGHTS_PATH.stat().st_size < 1_500_000
    with safe_open(WEIGHTS_PATH, framework="pt") as file:
        provenance = json.loads(file.metadata()["provenance"])
    assert provenance["data"] == "synthetic shapes only"
    assert provenance["training"]["seed"] == TrainingPlan().seed


def test_saved_networks_are_read_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    slices, rows = SliceNetwork(8), RowNetwork(8, 4, 1)
    for parameter in (*slices.parameters(), *rows.parameters()):
        torch.nn.init.normal_(parameter, std=0.1)
    save_networks(slices, rows, tmp_path / "weights.safetensors", {})
    loaded = load_networks(tmp_path / "weights.safetensors")
    sample = torch.randn(1, 4, 8, 8)
    assert torch.allclose(loaded[0](sample, torch.tensor([3.0])), slices(sample, torch.tensor([3.0])), rtol=0.05, atol=0.05)
    planes = torch.randn(2, 3, 5, 9)
    assert torch.allclose(loaded[1](planes, torch.tensor([3.0, 4.0])), rows(planes, torch.tensor([3.0, 4.0])), rtol=0.05, atol=0.05)


def test_damaged_weights_are_refused_with_a_sentence(tmp_path: Path) -> None:
    damaged = tmp_path / "weights.safetensors"
    damaged.write_bytes(WEIGHTS_PATH.read_bytes()[:5000])
    for path in (damaged, tmp_path / "absent.safetensors"):
        with pytest.raises(InputError, match="reinstall"):
            load_networks(path)


def test_training_is_repeatable_and_learns() -> None:
    plan = TrainingPlan(
        shapes=12,
        thin_shapes=4,
        slice_channels=8,
        row_channels=8,
        row_depth=4,
        row_context=1,
        slice_iterations=3,
        row_iterations=3,
        row_refining=2,
        slice_batch=4,
        row_batch=4,
    )
    threads = torch.get_num_threads()
    first, second = train_networks(plan), train_networks(plan)
    torch.set_num_threads(threads)
    for one, other in zip(first, second):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))
    shapes = make_shapes(6, 1)

    def mean_loss(network: torch.nn.Module, loss: Callable[..., torch.Tensor]) -> float:
        rng = np.random.default_rng(9)
        with torch.inference_mode():
            return float(np.mean([float(loss(network, shapes, plan, rng)) for _ in range(8)]))

    for made, loss in ((lambda: SliceNetwork(8), slice_loss), (lambda: RowNetwork(8, 4, 1), row_loss)):
        rng = np.random.default_rng(2)
        trained = train(made(), lambda net, loss=loss, rng=rng: loss(net, shapes, plan, rng), 150, 6e-3)
        assert mean_loss(trained, loss) < 0.97 * mean_loss(made(), loss)
