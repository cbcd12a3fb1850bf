"""A thickness told much too large is noticed; true ones, and what cannot be tested, are not accused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from MedGSLib.io.stack import build_stack
from MedGSLib.phantom import make_aneurysm
from MedGSLib.preparation import gap_over_pixel
from MedGSLib.prior.profile import SliceProfile
from MedGSLib.prior.thickness_check import (
    abruptness_excess,
    detail_correlation,
    overlap_correlation,
    supported_profile,
    thickness_doubt,
)

GAP_PX = 4


def texture(stretch: tuple[float, float, float] = (1.0, 1.0, 1.0), seed: int = 0) -> np.ndarray:
    """Blobs of every size, 0 to 1, on (80, 64, 60) voxels."""
    noise = np.random.default_rng(seed).normal(size=(80, 64, 60))
    volume = sum(scale**2 * ndimage.gaussian_filter(noise, [scale * s for s in stretch]) for scale in (1.0, 2.0, 4.0))
    low, high = np.percentile(volume, [0.1, 99.9])
    return ((volume - low) / (high - low)).astype(np.float32)


def thick(volume: np.ndarray, width: int = GAP_PX) -> np.ndarray:
    """Averages of ``width`` thin slices every :data:`GAP_PX`."""
    return np.stack([volume[start : start + width].mean(axis=0) for start in range(0, len(volume) - width + 1, GAP_PX)])


def doubt(slices: np.ndarray, told: float, gap: tuple[float, float] = (GAP_PX, GAP_PX)) -> dict:
    return thickness_doubt(slices, np.arange(len(slices), dtype=float), gap, SliceProfile("box", told))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("width", "told", "doubtful"), [(4, 1.0, False), (4, 0.5, False), (4, 1.75, True), (1, 2.0, True), (8, 2.0, False)]
)
def test_only_a_thickness_far_above_the_true_one_is_doubtful(width, told, doubtful, seed):
    found = doubt(thick(texture(seed=seed), width), told)
    assert found["doubtful"] is doubtful, found
    assert found["reason"].endswith(".") and found["reason"].count(".") == 1


@pytest.mark.parametrize(("width", "told", "expected"), [(4, 1.75, 1.0), (4, 2.5, 1.25), (1, 2.0, 1.0)])
def test_instead_of_a_doubtful_thickness_one_near_the_true_one_is_taken(width, told, expected):
    """Down to half of what was told, which is as far as a mistake is taken to go."""
    arguments = (np.arange(len(thick(texture(), width)), dtype=float), (GAP_PX, GAP_PX))
    found = supported_profile(thick(texture(), width), *arguments, SliceProfile("box", told))
    assert found.kind == "box" and found.width == pytest.approx(expected, abs=0.2)


def test_anatomy_that_is_coarser_along_the_stack_does_not_hide_a_wrong_thickness():
    slices = thick(texture(stretch=(1.3, 1.0, 1.0)))
    assert not doubt(slices, 1.0)["doubtful"] and doubt(slices, 2.0)["doubtful"]


def test_noise_of_the_scanner_does_not_accuse_a_true_thickness():
    slices = thick(texture()) + np.random.default_rng(3).normal(0.0, 0.05, (20, 64, 60)).astype(np.float32)
    assert not doubt(slices, 1.0)["doubtful"]


@pytest.mark.parametrize(
    ("kind", "width", "expected"), [("box", 1.0, 0.0), ("box", 0.5, 0.0), ("box", 1.5, 1 / 3), ("box", 2.0, 0.5), ("gaussian", 1.0, 0.24)]
)
def test_overlapping_slices_share_noise_as_their_profiles_overlap(kind, width, expected):
    assert overlap_correlation(SliceProfile(kind, width)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("width", "expected"), [(4, 0.0), (6, 1 / 3), (8, 0.5)])
def test_the_correlation_of_noise_is_measured(width, expected):
    thin = np.random.default_rng(5).normal(0.5, 0.1, (80, 64, 60)).astype(np.float32)
    assert detail_correlation(thick(thin, width)) == pytest.approx(expected, abs=0.02)
    assert detail_correlation(thick(thin)[:, :20, :10]) is None


@pytest.mark.parametrize(("width", "doubtful"), [(4, True), (6, False)])
def test_a_slightly_abrupt_change_is_doubtful_where_noise_shows_no_overlap(width, doubtful):
    """Strong noise hides a wrong thickness from the abruptness alone."""
    thin = 0.6 * texture() + 0.2 + np.random.default_rng(7).normal(0.0, 0.08, (80, 64, 60)).astype(np.float32)
    found = doubt(thick(thin, width), 1.5)
    assert found["doubtful"] is doubtful and found["abruptness_excess"] < 0.22, found


def test_the_excess_is_blind_to_contrast():
    slices = thick(texture())
    arguments = (np.arange(20.0), (GAP_PX, GAP_PX), SliceProfile("box", 1.0))
    assert abruptness_excess(0.5 * slices, *arguments) == pytest.approx(abruptness_excess(slices, *arguments), abs=0.01)


@pytest.mark.parametrize("case", ["few slices", "coarse pixels", "uneven", "small", "constant"])
def test_what_cannot_be_tested_is_said(case):
    slices, coordinates, gap = thick(texture()), np.arange(20.0), (GAP_PX, GAP_PX)
    if case == "few slices":
        slices, coordinates = slices[:4], coordinates[:4]
    elif case == "coarse pixels":
        gap = (1.2, 1.0)
    elif case == "uneven":
        coordinates[7:] += 0.5
    elif case == "small":
        slices = slices[:, :12, :12]
    else:
        slices = np.full_like(slices, 0.3)
    found = thickness_doubt(slices, coordinates, gap, SliceProfile("box", 1.0))
    assert found["doubtful"] is None and "test" in found["reason"]


def test_one_fine_axis_is_enough():
    assert doubt(thick(texture()), 2.0, (GAP_PX, 1.0))["doubtful"]


@pytest.mark.parametrize(("told", "doubtful"), [(1.0, False), (1.5, True)])
def test_a_vessel_along_the_stack_changes_little_from_slice_to_slice_but_noise_does_not(told: float, doubtful: bool) -> None:
    phantom = make_aneurysm()
    stack = build_stack(phantom.image, phantom.labels, phantom.segments, slice_thickness_mm=float(phantom.image.meta["slice_thickness_mm"]))
    assert stack.image is not None and stack.slice_thickness_mm == pytest.approx(stack.gap_mm)
    low, high = np.percentile(stack.image, (0.5, 99.5))
    slices = ((stack.image - low) / (high - low)).astype(np.float32)
    assert thickness_doubt(slices, stack.coordinates, gap_over_pixel(stack), SliceProfile("box", told))["doubtful"] is doubtful
