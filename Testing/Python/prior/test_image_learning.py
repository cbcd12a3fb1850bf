"""The parts of learning: patches, optimizer, and the planes beside each slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from MedGSLib.prior.general_network import CONTEXT
from MedGSLib.prior.image_apply import neighbouring_planes, predict
from MedGSLib.prior.image_config import PriorConfig, Sampling
from MedGSLib.prior.image_learning import affordable_iterations
from MedGSLib.prior.image_optimizer import one_cycle, orthogonalised
from MedGSLib.prior.image_training import RowPlanes, TrainedPrior, knows_anatomy, new_network, row_planes, trainable
from MedGSLib.prior.network import Precision
from MedGSLib.prior.profile import SliceProfile
from MedGSLib.progress import Reporter

CPU = torch.device("cpu")
POINT = Sampling(3, (3.0, 3.0))
THICK = Sampling(4, (4.0, 4.0), SliceProfile("box", 1.0))
CONFIG = PriorConfig(channels=8, depth=4)


def untrained(sampling: Sampling, context: int = 0) -> TrainedPrior:
    precision = Precision(CPU, reduced=False)
    network = new_network(sampling, CONFIG, precision, context)
    with torch.no_grad():
        network.head.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    return TrainedPrior(network.eval(), precision, 0.0)


@pytest.fixture
def slices() -> np.ndarray:
    return np.random.default_rng(4).random((5, 30, 34)).astype(np.float32)


@pytest.mark.parametrize("sampling", [POINT, THICK])
def test_patches_of_a_ramp_hold_the_rows_that_were_removed(sampling):
    ramp = np.broadcast_to(np.arange(60, dtype=np.float32)[None, None, :, None], (2, 5, 60, 40))
    inputs, targets = RowPlanes(ramp, sampling, CPU).draw(16, torch.Generator().manual_seed(0))
    factor = sampling.factor
    assert inputs.shape[:2] == (16, 5)
    step = inputs[:, 2, 2, 0] - inputs[:, 2, 1, 0]
    assert set(step.abs().tolist()) == {float(factor)}
    offsets = torch.arange(factor) - factor // 2 if sampling.averaged else torch.arange(1, factor)
    expected = inputs[:, 2, 1, 0, None] + offsets * torch.sign(step)[:, None]
    torch.testing.assert_close(targets[:, :, 1, 0], expected)


def test_rows_are_resampled_to_the_sub_slice_spacing():
    stack = np.zeros((2, 1, 60, 80), np.float32)
    planes = row_planes((stack, stack), Sampling(3, (1.5, 6.0)), CPU)
    assert [plane._targets.shape for plane in planes] == [(2, 120, 80), (2, 40, 60)]


@pytest.mark.parametrize(("shape", "expected"), [((3, 10, 8), True), ((3, 9, 9), False), ((3, 100, 7), False), ((3, 7, 100), False)])
def test_trainable(shape, expected):
    assert trainable(shape, POINT) is expected


@pytest.mark.parametrize("sampling", [POINT, THICK])
@pytest.mark.parametrize("axis", [1, 2])
def test_planes_beside_a_slice_do_not_leak_the_rows_to_be_learnt(sampling, axis, slices):
    trained, chosen, offsets = untrained(sampling), np.arange(5), np.array([-0.3, 0.0, 0.4])
    before = neighbouring_planes(trained, slices, axis, chosen, offsets)
    changed = slices.copy()
    np.moveaxis(changed, axis, 0)[10] += 1
    after = neighbouring_planes(trained, changed, axis, chosen, offsets)
    touched = np.flatnonzero(np.abs(np.moveaxis(after - before, axis + 1, 0)).reshape(slices.shape[axis], -1).max(1) > 1e-6)
    np.testing.assert_array_equal(touched, [10])


def test_planes_beside_a_slice_lie_where_they_should(slices):
    trained = untrained(POINT)
    beside = neighbouring_planes(trained, slices, 1, np.array([0, 2]), np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_allclose(beside[1], slices[1:4], atol=1e-6)
    np.testing.assert_allclose(beside[0], slices[[1, 0, 1]], atol=1e-6)


def test_network_with_context_starts_as_the_draft(slices):
    draft, wide = untrained(POINT), untrained(POINT, context=2)
    wide.network.start_from(draft.network)
    silent = Reporter()
    np.testing.assert_allclose(predict(wide, slices, silent).image, predict(draft, slices, silent).image, atol=1e-5)


def test_prediction_does_not_depend_on_the_chunks(slices, monkeypatch):
    trained = untrained(THICK, context=1)
    whole = predict(trained, slices, Reporter())
    monkeypatch.setattr("MedGSLib.prior.image_apply.CHUNK_BYTES", 1)
    pieces = predict(trained, slices, Reporter())
    np.testing.assert_allclose(pieces.image, whole.image, atol=1e-5)
    np.testing.assert_allclose(pieces.spread, whole.spread, atol=1e-3)


def test_prediction_turns_with_the_patient(slices):
    trained = untrained(POINT, context=1)
    turned = predict(trained, np.ascontiguousarray(slices[::-1].transpose(0, 2, 1)), Reporter()).image
    np.testing.assert_allclose(turned[::-1].transpose(0, 2, 1), predict(trained, slices, Reporter()).image, atol=1e-5)


def test_turned_views_make_the_prediction_blind_to_a_half_turn(slices):
    trained = untrained(POINT, context=1)
    plain = predict(trained, slices, Reporter()).image
    both = predict(trained, slices, Reporter(), turned=True)
    turned = predict(trained, np.ascontiguousarray(slices[:, ::-1, ::-1]), Reporter(), turned=True)
    np.testing.assert_allclose(turned.image[:, ::-1, ::-1], both.image, atol=1e-5)
    assert np.abs(both.image - plain).max() > 1e-3
    np.testing.assert_array_equal(both.image[::3], slices)
    np.testing.assert_array_equal(both.spread[::3], 0)


def test_small_stacks_are_not_learnt_by_heart():
    shipped = PriorConfig(iterations=1000)
    small, middling, large = (4, 50, 50), (15, 100, 100), (10, 1000, 1000)
    assert [affordable_iterations(shape, POINT, shipped) for shape in (small, middling, large)] == [250, 500, 1000]
    assert affordable_iterations(large, POINT, replace(shipped, iterations=60)) == 60
    assert affordable_iterations(large, replace(POINT, stack_ratio=2.5), shipped) == 250
    assert affordable_iterations(large, replace(POINT, gap_over_pixel=(20.0, 20.0)), shipped) == 250
    assert affordable_iterations((4, 7, 7), POINT, shipped) == 0
    assert affordable_iterations(small, POINT, replace(shipped, general=False)) == 1000


@pytest.mark.parametrize("sampling", [POINT, THICK])
def test_a_network_starts_from_the_general_one_where_it_fits(sampling):
    shipped = PriorConfig()
    precision, planes = Precision(CPU, reduced=False), torch.rand(2, 1, 6, 20, generator=torch.Generator().manual_seed(0))
    alone, wide = (new_network(sampling, shipped, precision, context) for context in (0, CONTEXT))
    with torch.no_grad():
        torch.testing.assert_close(alone(planes), wide(planes.expand(-1, 2 * CONTEXT + 1, -1, -1)), atol=1e-5, rtol=1e-4)
    assert wide.head.weight.any()
    further = new_network(replace(sampling, gap_over_pixel=(6.0, 6.0)), shipped, precision, CONTEXT)
    assert not torch.equal(further.head.weight, wide.head.weight)
    strangers = (replace(shipped, general=False), CONTEXT), (replace(shipped, channels=8), CONTEXT), (shipped, 1)
    for config, context in strangers:
        assert not knows_anatomy(config, context)
        assert not new_network(sampling, config, precision, context).head.weight.any()


@pytest.mark.parametrize("shape", [(16, 8, 3, 5), (64, 4, 3, 3)])
def test_updates_are_nearly_orthogonal(shape):
    update = orthogonalised(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    assert update.shape == shape
    values = torch.linalg.svdvals(update.reshape(shape[0], -1))
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


def test_one_cycle_rises_and_falls_to_zero():
    rates = [one_cycle(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0) and rates[100] == pytest.approx(0.0)
    assert all(b <= a for a, b in zip(rates[10:], rates[11:], strict=False))
