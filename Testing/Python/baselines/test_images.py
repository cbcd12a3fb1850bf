"""Interpolation baselines: exact on acquired slices, right for irregular coordinates, and as good as on record."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from MedGSLib.baselines.images import INTERPOLATORS, cubic, cubic_back_projection, flow_back_projection, linear
from MedGSLib.prior.profile import SliceProfile
from MedGSLib.prior.thick import ProfileOperator

IRREGULAR = np.array([0.0, 1.0, 2.5, 3.0, 4.2])


@pytest.fixture
def blobs():
    return gaussian_filter(np.random.default_rng(3).random((5, 40, 44)), (0, 2, 2)).astype(np.float32)


@pytest.mark.parametrize("name", INTERPOLATORS)
def test_acquired_slices_are_kept_and_ends_repeated(name, blobs):
    dense = INTERPOLATORS[name](blobs, IRREGULAR, np.concatenate([[-2.0], IRREGULAR, [9.0]]))
    assert dense.dtype == np.float32
    np.testing.assert_allclose(dense, blobs[[0, 0, 1, 2, 3, 4, 4]], atol=2e-5)


@pytest.mark.parametrize("name", ["linear", "cubic"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_ramp_stays_a_ramp_at_irregular_coordinates(name, count):
    coordinates, wanted = IRREGULAR[:count], np.linspace(0, IRREGULAR[count - 1], 7)
    ramp = np.broadcast_to(coordinates[:, None, None], (count, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(INTERPOLATORS[name](ramp, coordinates, wanted)[:, 1, 2], wanted, atol=1e-5)


def test_single_slice_is_repeated(blobs):
    for function in (linear, cubic):
        np.testing.assert_array_equal(function(blobs[:1], np.zeros(1), np.array([0.0, 1.0])), blobs[[0, 0]])


def test_figures_on_record(shared_data):
    image = sitk.DICOMOrient(sitk.ReadImage(str(shared_data / "mr_t1_niivue" / "image.nii.gz")), "LPS")
    voxels = sitk.GetArrayFromImage(image)[70:131, 60:188, 30:158].astype(np.float32)
    low, high = np.percentile(voxels, (0.5, 99.5))
    truth = np.clip((voxels - low) / (high - low), 0, 1)
    left_out = np.arange(61)[np.arange(61) % 3 != 0]
    for name, expected in {"linear": 21.03, "cubic": 20.82, "sinc": 20.60, "flow_tvl1": 22.36, "flow_dis": 22.55}.items():
        dense = np.clip(INTERPOLATORS[name](truth[::3], np.arange(21.0), left_out / 3), 0, 1)
        psnr = np.mean([-10 * np.log10(np.mean((a - b) ** 2)) for a, b in zip(dense, truth[left_out], strict=True)])
        assert psnr == pytest.approx(expected, abs=0.05), name


@pytest.mark.parametrize("function", [cubic_back_projection, flow_back_projection])
@pytest.mark.parametrize(
    ("profile", "factor"), [(SliceProfile("box", 1.0), 3), (SliceProfile("box", 1.0), 4), (SliceProfile("gaussian", 1.0), 3)]
)
def test_back_projection_is_consistent_with_thick_slices(function, profile, factor, blobs):
    dense = function(blobs, factor, profile)
    assert dense.shape == (4 * factor + 1, 40, 44)
    residual = ProfileOperator(profile, 5, factor).average(dense) - blobs
    assert np.sqrt(np.mean(residual**2)) < 0.05 * blobs.std()
