"""What the protocols hide, and that it stays hidden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedGSLib.errors import InputError
from MedGSLib.evaluation.cases import Case
from MedGSLib.evaluation.protocols import pose
from MedGSLib.geometry import flip_ras_lps
from MedGSLib.volume import Label, SliceStack

OBLIQUE = np.array([[0.9, 0.1, 0.3, -20.0], [-0.2, 0.8, 0.4, 15.0], [0.1, -0.3, 0.866, 7.0], [0, 0, 0, 1]])


def case(slices: int = 16, side: int = 20, plane_to_ras: np.ndarray = OBLIQUE, gap_mm: float = 1.5) -> Case:
    """A disc that moves and grows along the stack, in an image that increases linearly along it."""
    z, y, x = np.mgrid[0:slices, 0:side, 0:side].astype(np.float32)
    mask = (y - side / 2) ** 2 + (x - side / 2 - 0.2 * z) ** 2 < (side / 5 + 0.1 * z) ** 2
    image = (z / slices + 0.02 * np.sin(x) * np.cos(y) + 0.1).astype(np.float32)
    matrix = plane_to_ras.copy()
    matrix[:3, 2] /= np.linalg.norm(matrix[:3, 2])
    stack = SliceStack(image, mask[None].astype(np.float32), (Label(1, "disc"),), np.ones(slices, bool), np.arange(slices) * gap_mm, matrix)
    return Case("disc", stack, "test")


@pytest.mark.parametrize("protocol", ["image", "mask", "sparse", "thick"])
@pytest.mark.parametrize("matrix", [OBLIQUE, flip_ras_lps(OBLIQUE), np.diag([-0.7, 0.7, 1.0, 1.0])])
@pytest.mark.parametrize("gap_mm", [1.5, 4.0])
def test_rows_of_the_truth_lie_where_the_answer_s_slices_do(protocol: str, matrix: np.ndarray, gap_mm: float) -> None:
    whole = case(plane_to_ras=matrix, gap_mm=gap_mm)
    for every in (2, 3, 5):
        problem = pose(whole, protocol, every)
        found = problem.index_to_ras @ np.stack(
            [3.0 + 0 * problem.wanted, 4.0 + 0 * problem.wanted, np.arange(problem.slices), problem.wanted**0]
        )
        wanted = whole.stack.index_to_ras(whole.stack.gap_mm) @ np.stack([np.full(16, 3.0), np.full(16, 4.0), np.arange(16.0), np.ones(16)])
        apart = np.linalg.norm(found[:3, problem.truth.rows][:, :, None] - wanted[:3][:, None, :], axis=0)
        count = len(problem.truth.rows)
        true = problem.truth_to_ras @ np.stack([np.full(count, 3.0), np.full(count, 4.0), np.arange(count), np.ones(count)])
        np.testing.assert_allclose(true, found[:, problem.truth.rows], atol=1e-9)
        nearest = apart.argmin(axis=1)
        assert apart.min(axis=1).max() < 1e-9
        if problem.truth.image is not None:
            np.testing.assert_array_equal(problem.truth.image, whole.stack.image[nearest])
        if problem.truth.mask is not None:
            np.testing.assert_array_equal(problem.truth.mask, whole.stack.occupancy[0, nearest] > 0.5)


@pytest.mark.parametrize("protocol", ["image", "mask", "sparse"])
def test_what_is_left_out_cannot_be_seen(protocol: str) -> None:
    whole = case()
    noise = np.random.default_rng(0)
    image, occupancy = whole.stack.image.copy(), whole.stack.occupancy.copy()
    hidden = np.arange(16) % 3 != 0
    if protocol != "mask":
        image[hidden] = noise.random(image[hidden].shape)
    occupancy[:, hidden] = noise.random(occupancy[:, hidden].shape) > 0.5
    other = replace(whole, stack=replace(whole.stack, image=image, occupancy=occupancy))
    first, second = pose(whole, protocol, 3), pose(other, protocol, 3)
    assert first.truth.scored.any()
    for name in ("image", "occupancy", "annotated", "positions_mm", "plane_to_ras"):
        np.testing.assert_array_equal(getattr(first.stack, name), getattr(second.stack, name))
    truths = [problem.truth.image if protocol == "image" else problem.truth.mask for problem in (first, second)]
    assert not np.array_equal(truths[0][first.truth.scored], truths[1][first.truth.scored])


def test_the_dense_image_stays_whole_and_only_the_mask_is_sparse() -> None:
    problem = pose(case(), "mask", 5)
    assert problem.scale == 1 and problem.slices == 16
    assert list(np.flatnonzero(problem.stack.annotated)) == [0, 5, 10, 15]
    assert not problem.stack.occupancy[0, ~problem.stack.annotated].any()
    assert list(problem.truth.scored[:6]) == [False, True, True, True, True, False]


@pytest.mark.parametrize("protocol", ["image", "sparse"])
def test_slices_far_apart_are_filled_in_as_by_default(protocol: str) -> None:
    problem = pose(case(plane_to_ras=np.diag([0.9, 0.9, 1.0, 1.0]), gap_mm=2.7), protocol, 2)
    assert problem.scale == 6 and list(problem.truth.rows[:3]) == [0, 3, 6]
    assert list(problem.truth.scored[:3]) == [False, True, False]


@pytest.mark.parametrize(("every", "kind"), [(2, "box"), (3, "box"), (5, "box"), (2, "gaussian"), (3, "gaussian")])
def test_thick_slices_of_a_ramp_are_its_values_at_their_centres(every: int, kind: str) -> None:
    z = np.arange(24, dtype=np.float32)[:, None, None] / 24 * np.ones((1, 12, 12), np.float32)
    stack = SliceStack(z, None, (), np.ones(24, bool), np.arange(24) * 2.0, np.eye(4))
    problem = pose(Case("ramp", stack), "thick", every, kind)
    centres_mm = problem.stack.positions_mm + problem.stack.plane_to_ras[2, 3]
    np.testing.assert_allclose(problem.stack.image[:, 0, 0], centres_mm / 2.0 / 24, atol=1e-6)
    assert problem.stack.slice_thickness_mm == pytest.approx(every * 2.0)
    assert problem.truth.scored.all() and len(problem.truth.rows) == (problem.stack.shape[0] - 1) * every + every % 2


def test_a_wrongly_told_thickness_changes_what_is_told_alone() -> None:
    right, wrong = pose(case(17), "thick", 4), pose(case(17), "thick", 4, "box taken 1.5x")
    np.testing.assert_array_equal(right.stack.image, wrong.stack.image)
    assert wrong.stack.slice_thickness_mm == pytest.approx(1.5 * right.stack.slice_thickness_mm)
    assert (right.profile.width, wrong.profile.width) == (1.0, 1.5)


def test_a_box_is_the_plain_mean_of_its_slices() -> None:
    whole = case(17)
    problem = pose(whole, "thick", 4, "box")
    np.testing.assert_allclose(problem.stack.image[1], whole.stack.image[4:8].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("protocol", "every", "message"), [("magic", 2, "protocol"), ("image", 1, "2nd"), ("image", 9, "too few"), ("thick", 7, "too few")]
)
def test_what_cannot_be_posed_is_one_sentence(protocol: str, every: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pose(case(), protocol, every)


def test_uneven_slices_are_refused() -> None:
    stack = case().stack
    with pytest.raises(InputError, match="evenly spaced"):
        Case("uneven", replace(stack, positions_mm=stack.positions_mm**1.1))
