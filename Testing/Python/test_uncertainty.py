"""Bands: zero where the input is known, calibrated where the self-check measured, and on the surface in mm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from vtkmodules.util.numpy_support import vtk_to_numpy

from MedGSLib.config import preset_config
from MedGSLib.mesh import polydata_from_arrays
from MedGSLib.preparation import prepare
from MedGSLib.prior.image_config import PriorConfig
from MedGSLib.progress import Reporter
from MedGSLib.reconstruct import reconstruct
from MedGSLib.self_check import SelfCheck
from MedGSLib.uncertainty import (
    NOISE_Q90,
    PIXEL_SHARE,
    POSITION_ARRAY,
    POSITION_SHARE,
    UNCHECKED_DOUBT_FACTOR,
    UNCHECKED_POSITION_SHARE,
    USUAL_SIGNAL_SHARE,
    add_position_band,
    image_band,
    position_error_mm,
    signal_share,
)
from MedGSLib.volume import Label, SliceStack

GAP = 3.0
MATRIX = np.array([[0.0, -0.8, 0.0, 12.0], [0.7, 0.0, 0.0, -3.0], [0.0, 0.0, -1.0, 50.0], [0.0, 0.0, 0.0, 1.0]])


def prepared_stack(annotated=None, thickness=None, scale: int = 4):
    occupancy = np.zeros((1, 6, 20, 22), np.float32)
    occupancy[:, :, 5:15, 6:16] = 1.0
    image = 50.0 * occupancy[0] + np.random.default_rng(0).normal(0.0, 2.0, occupancy.shape[1:])
    stack = SliceStack(
        image.astype(np.float32),
        occupancy,
        (Label(1, "box"),),
        np.ones(6, bool) if annotated is None else np.asarray(annotated, bool),
        np.arange(6) * GAP,
        MATRIX,
        slice_thickness_mm=thickness,
    )
    config = replace(preset_config("fast", scale=scale), prior=PriorConfig(method="linear"))
    return prepare(stack, config, Reporter())


def test_without_a_check_the_band_is_the_doubt_on_the_way_between_slices():
    prepared = prepared_stack()
    doubt = np.full((21, 20, 22), 0.2, np.float32)
    band = image_band(doubt, prepared, None)
    assert band.dtype == np.float32
    np.testing.assert_allclose(band[::4], 0.0)
    np.testing.assert_allclose(band[2::4], UNCHECKED_DOUBT_FACTOR * 0.2, rtol=1e-6)
    np.testing.assert_allclose(band[1::4], UNCHECKED_DOUBT_FACTOR * 0.2 * np.sqrt(0.75), rtol=1e-6)
    np.testing.assert_array_equal(image_band(doubt, prepared, SelfCheck(3)), band)


def test_a_check_maps_the_rank_of_the_doubt_to_measured_errors():
    prepared = prepared_stack()
    clean = replace(prepared, slices=np.zeros_like(prepared.slices))
    check = SelfCheck(3, doubt_bins=(10.0, 30.0), error_bins=(0.05, 0.25))
    doubt = np.broadcast_to(np.linspace(0.0, 0.4, 22, dtype=np.float32), (21, 20, 22))
    band = image_band(doubt, clean, check)
    np.testing.assert_allclose(
        band[2][:, [0, 21]], np.broadcast_to([USUAL_SIGNAL_SHARE * 0.05, USUAL_SIGNAL_SHARE * 0.25], (20, 2)), rtol=1e-5
    )
    np.testing.assert_allclose(band[2][:, 10:12].mean(), USUAL_SIGNAL_SHARE * 0.15, rtol=0.05)
    assert not band[4].any()


def test_noise_does_not_shrink_with_the_distance_of_slices():
    prepared = prepared_stack()
    noisy = replace(prepared, slices=(0.5 + np.random.default_rng(0).normal(0.0, 0.05, prepared.slices.shape)).astype(np.float32))
    doubt = np.random.default_rng(1).random((21, 20, 22)).astype(np.float32)
    level = NOISE_Q90 * 0.05
    band = image_band(doubt, noisy, SelfCheck(3, doubt_bins=(0.2, 0.8), error_bins=(level, level)))
    np.testing.assert_allclose(band[2], level, rtol=0.08)
    band = image_band(doubt, noisy, SelfCheck(3, doubt_bins=(0.2, 0.8), error_bins=(10 * level, 10 * level)))
    np.testing.assert_allclose(band[2], 10 * USUAL_SIGNAL_SHARE * level, rtol=0.05)


def test_across_wide_gaps_the_distance_matters_half_as_much():
    near = prepared_stack()
    clean = replace(near, slices=np.zeros_like(near.slices))
    far = replace(clean, stack=replace(near.stack, plane_to_ras=near.stack.plane_to_ras @ np.diag([0.1, 0.1, 1.0, 1.0])))
    doubt = np.random.default_rng(1).random((21, 20, 22)).astype(np.float32)
    check = SelfCheck(3, doubt_bins=(0.2, 0.8), error_bins=(0.1, 0.1))
    np.testing.assert_allclose(image_band(doubt, clean, check)[2], 0.1 * USUAL_SIGNAL_SHARE, rtol=1e-5)
    np.testing.assert_allclose(image_band(doubt, far, check)[2], 0.1 * (1 + USUAL_SIGNAL_SHARE) / 2, rtol=1e-5)


@pytest.mark.parametrize(("period", "share"), [(3.0, 0.7), (4.0, 0.325), (40.0, 0.23)])
def test_the_error_grows_with_the_distance_only_while_slices_have_something_in_common(period, share):
    """Of a wave of few slices all of the error is left at half the distance; of one of many slices, a sixteenth of its square."""
    angle = 2 * np.pi / period * np.arange(40)[:, None, None] + np.random.default_rng(0).uniform(0, 2 * np.pi, (1, 24, 24))
    smooth = (0.5 + 0.4 * np.sin(angle)).astype(np.float32).repeat(4, axis=1).repeat(4, axis=2)
    assert signal_share(smooth, np.arange(40.0)) == pytest.approx(share, abs=0.01)
    assert signal_share(smooth[:5], np.arange(5.0)) == USUAL_SIGNAL_SHARE
    assert signal_share(smooth, np.arange(40.0) ** 1.1) == USUAL_SIGNAL_SHARE


def test_thick_slices_are_uncertain_on_their_own_plane_too():
    band = image_band(np.full((21, 20, 22), 0.2, np.float32), prepared_stack(thickness=GAP), None)
    np.testing.assert_allclose(band, UNCHECKED_DOUBT_FACTOR * 0.2, rtol=1e-6)


@pytest.mark.parametrize(
    ("check", "annotated", "expected"),
    [
        (None, None, UNCHECKED_POSITION_SHARE * GAP),
        (None, [1, 0, 1, 0, 0, 1], UNCHECKED_POSITION_SHARE * 2.5 * GAP),
        (None, [0, 0, 1, 0, 0, 0], 0.0),
        (SelfCheck(2, masks={"box": {"contour_error_q90_mm": 1.5}}), None, POSITION_SHARE * np.sqrt(1.5 * 0.8)),
        (SelfCheck(2, masks={"box": {"contour_error_q90_mm": float("nan")}}), None, UNCHECKED_POSITION_SHARE * GAP),
        (SelfCheck(2, masks={"other": {"contour_error_q90_mm": 9.0}}), None, UNCHECKED_POSITION_SHARE * GAP),
    ],
)
def test_the_position_error_is_measured_or_a_share_of_the_gap(check, annotated, expected):
    assert position_error_mm(prepared_stack(annotated, scale=1), "box", check) == pytest.approx(expected)


def test_vertices_carry_the_band_of_their_place_along_the_stack():
    prepared = prepared_stack()
    along = GAP * np.array([0.0, 0.5, 1.0, 1.25, 5.0, 5.5])
    index = np.column_stack([np.arange(6.0), np.arange(6.0), along, np.ones(6)])
    surface = polydata_from_arrays((index @ MATRIX.T)[:, :3], np.array([[0, 1, 2], [3, 4, 5]]))
    values = add_position_band(surface, prepared, "box", None)
    floor, full = PIXEL_SHARE * 0.8, UNCHECKED_POSITION_SHARE * GAP
    way = np.array([0.0, 1.0, 0.0, np.sqrt(0.75), 0.0, 1.0])
    np.testing.assert_allclose(values, np.hypot(floor, full * way), rtol=1e-4)
    stored = vtk_to_numpy(surface.GetPointData().GetArray(POSITION_ARRAY))
    np.testing.assert_allclose(stored, values, rtol=1e-6)


def test_nine_of_ten_true_values_lie_in_the_band_of_a_checked_run():
    """A smooth volume in noise whose truth between the slices is known."""
    t = np.arange(49) / 4.0
    z, y, x = np.meshgrid(t, np.arange(24.0), np.arange(26.0), indexing="ij")
    clean = 100.0 + 60.0 * np.sin(x / 3.0 + 0.4 * z) * np.cos(y / 4.0 - 0.3 * z) + 80.0 * ((x - 6 - z) ** 2 + (y - 12) ** 2 < 30)
    truth = clean + np.random.default_rng(0).normal(0.0, 3.0, clean.shape)
    stack = SliceStack(truth[::4].astype(np.float32), None, (), np.ones(13, bool), np.arange(13) * 3.0, np.eye(4))
    options = {"mode": "image", "scale": 4, "iterations": 60, "gaussians": 1500, "threads": 1, "device": "cpu"}
    config = replace(preset_config("fast", **options), prior=PriorConfig(method="flow"), self_check=True)
    result = reconstruct(stack, config)
    between = np.arange(49) % 4 == 2
    covered = np.abs(result.image - truth)[between] <= result.uncertainty[between]
    assert 0.8 < covered.mean() < 0.98, covered.mean()
