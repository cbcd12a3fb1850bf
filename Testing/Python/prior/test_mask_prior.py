from __future__ import annotations

import numpy as np
import pytest

from MedGSLib.errors import Cancelled, InputError
from MedGSLib.metrics import dice
from MedGSLib.prior.mask import dense_coordinates, mask_prior
from MedGSLib.prior.mask_distance import slice_signed_distances
from MedGSLib.progress import ProgressEvent, Reporter


def swinging_tube(positions: np.ndarray, size: int = 60) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(float)
    return np.stack([11.0 - np.hypot(y - 30, x - 30 - 8 * np.sin(t / 1.5)) for t in positions])


def picture(depth: np.ndarray) -> np.ndarray:
    ground = 0.3 + 0.1 * np.sin(np.arange(depth.shape[2]) / 3.0) * np.cos(np.arange(depth.shape[1]) / 4.0)[:, None]
    return (-200.0 + 900.0 * (ground + 0.4 / (1 + np.exp(-2 * depth)))).astype(np.float32)


def test_dense_coordinates_subdivide_every_gap() -> None:
    assert dense_coordinates(np.array([0.0, 1.0, 3.0]), 4) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3])
    assert dense_coordinates(np.arange(3.0), 1) == pytest.approx([0, 1, 2])


def test_a_fully_annotated_stack_keeps_its_slices_and_fills_the_gaps() -> None:
    positions = np.arange(8.0)
    occupancy = swinging_tube(positions) > 0
    prior = mask_prior(occupancy, np.ones(8, bool), 3, (4.0, 4.0))
    assert prior.signed_distance.shape == (22, 60, 60) and prior.signed_distance.dtype == np.float32
    assert np.array_equal(prior.signed_distance[::3], slice_signed_distances(occupancy))
    truth = swinging_tube(dense_coordinates(positions, 3)) > 0
    assert dice(prior.signed_distance > 0, truth) > 0.97
    assert prior.report == {"annotated_slices": 8, "continued_slices": 0, "between": "shape"}


def test_a_dense_image_guides_slices_without_annotation() -> None:
    positions = np.arange(17.0)
    depth = swinging_tube(positions)
    annotated = np.zeros(17, bool)
    annotated[::4] = True
    occupancy = np.where(annotated[:, None, None], depth > 0, 0)
    alone = mask_prior(occupancy, annotated, 1, (2.0, 2.0))
    guided = mask_prior(occupancy, annotated, 1, (2.0, 2.0), image=picture(depth))
    left_out = ~annotated
    assert dice(alone.signed_distance[left_out] > 0, depth[left_out] > 0) < 0.93
    assert dice(guided.signed_distance[left_out] > 0, depth[left_out] > 0) > 0.96
    assert guided.report["guided_slices"] == 12 and guided.report["guided_by"] in ("fused", "flow")
    dense = mask_prior(occupancy, annotated, 2, (2.0, 2.0), image=picture(depth)).signed_distance
    assert np.array_equal(dense[::2], guided.signed_distance)
    assert dice(dense[1::2] > 0, swinging_tube(positions[:-1] + 0.5) > 0) > 0.95


def test_an_image_that_shows_nothing_is_left_aside() -> None:
    depth = swinging_tube(np.arange(17.0))
    annotated = np.arange(17) % 2 == 0
    noise = np.random.default_rng(0).random(depth.shape).astype(np.float32)
    tried = mask_prior(depth > 0, annotated, 1, (2.0, 2.0), image=noise)
    assert tried.report["guided_by"] == "none" and tried.report["guided_slices"] == 0
    assert np.array_equal(tried.signed_distance, mask_prior(depth > 0, annotated, 1, (2.0, 2.0)).signed_distance)


def test_without_an_image_only_annotated_slices_count_at_their_true_distance() -> None:
    positions = np.array([0.0, 1.0, 2.0, 3.0, 5.0, 6.0])
    annotated = np.array([False, True, True, False, True, True])
    occupancy = swinging_tube(positions) > 0
    occupancy[~annotated] = True
    prior = mask_prior(occupancy, annotated, 2, (4.0, 4.0), coordinates=positions)
    assert np.array_equal(prior.signed_distance[0], prior.signed_distance[2])
    assert dice(prior.signed_distance[6] > 0, swinging_tube(np.array([3.0]))[0] > 0) > 0.9
    assert prior.report["continued_slices"] == 1


@pytest.mark.parametrize("between", ["linear", "cubic"])
def test_plain_interpolation_stays_available(between: str) -> None:
    occupancy = swinging_tube(np.arange(5.0)) > 0
    prior = mask_prior(occupancy, np.ones(5, bool), 2, (4.0, 4.0), between=between)  # type: ignore[arg-type]
    assert np.array_equal(prior.signed_distance[::2] > 0, occupancy)
    assert prior.report["between"] == between


def test_empty_annotated_slices_give_an_empty_mask() -> None:
    prior = mask_prior(np.zeros((4, 20, 20)), np.ones(4, bool), 2, (3.0, 3.0), image=np.zeros((4, 20, 20), np.float32))
    assert prior.signed_distance.shape == (7, 20, 20) and np.all(prior.signed_distance < 0)


def test_nothing_annotated_is_refused() -> None:
    with pytest.raises(InputError, match="annotated"):
        mask_prior(np.ones((4, 20, 20)), np.zeros(4, bool), 2, (3.0, 3.0))


def test_the_caller_may_cancel_and_sees_the_stages() -> None:
    stages: list[str] = []

    def watch(event: ProgressEvent) -> bool:
        stages.append(event.stage)
        return event.stage != "shape"

    depth = swinging_tube(np.arange(9.0))
    with pytest.raises(Cancelled):
        mask_prior(depth > 0, np.arange(9) % 2 == 0, 2, (2.0, 2.0), image=picture(depth), reporter=Reporter(watch))
    assert stages[0] == "motion" and stages[-1] == "shape"
