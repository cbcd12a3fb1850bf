"""The image prior: ahead of what it is built from, exact on acquired slices, repeatable, and sane where there is little to learn from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import gaussian_filter1d

from MedGSLib.baselines.images import INTERPOLATORS
from MedGSLib.errors import Cancelled, InputError
from MedGSLib.prior.flow import SlicePair
from MedGSLib.prior.image import ImagePrior, PriorConfig, Sampling, image_prior
from MedGSLib.prior.image_blend import BlendedMotion, default_general_share, leave_one_out
from MedGSLib.prior.image_config import DEFAULT_FLOW_SHARE
from MedGSLib.prior.network import Precision
from MedGSLib.prior.profile import SliceProfile
from MedGSLib.progress import Reporter

SMALL = PriorConfig(channels=16, depth=4, iterations=100, draft_iterations=60, learning_rate=0.02, flow_share=0.25)
TINY = PriorConfig(channels=8, depth=3, iterations=4, draft_iterations=3, flow_share=0.25)


def psnr(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((predicted - truth) ** 2)))


@pytest.fixture(scope="session")
def brain(shared_data) -> np.ndarray:
    """61 x 96 x 96 of a T1 head at 0.88 mm, in stack order along z, 0..1."""
    image = sitk.DICOMOrient(sitk.ReadImage(str(shared_data / "mr_t1_niivue" / "image.nii.gz")), "LPS")
    voxels = sitk.GetArrayFromImage(image)[70:131, 70:166, 46:142].astype(np.float32)
    low, high = np.percentile(voxels, (0.5, 99.5))
    return ((voxels - low) / (high - low)).astype(np.float32)


def waves(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    z, y, x = np.mgrid[:count, :height, :width].astype(np.float32)
    noise = np.random.default_rng(seed).normal(0, 0.02, z.shape)
    return (0.5 + 0.25 * np.sin(y / 3 + z / 2) + 0.25 * np.cos(x / 4 - z / 3) + noise).astype(np.float32)


def test_ahead_of_linear_cubic_and_flow_on_left_out_slices(brain):
    acquired = brain[::3]
    prior = image_prior(acquired, 3, (3.0, 3.0), SMALL)
    left_out = np.arange(61) % 3 != 0
    wanted = np.arange(61) / 3
    scores = {name: psnr(f(acquired, np.arange(21.0), wanted)[left_out], brain[left_out]) for name, f in INTERPOLATORS.items()}
    assert psnr(prior.image[left_out], brain[left_out]) > max(scores.values()) + 0.3
    np.testing.assert_array_equal(prior.image[::3], acquired)
    np.testing.assert_array_equal(prior.disagreement[::3], 0)
    errors = np.abs(prior.image - brain)[left_out]
    assert np.corrcoef(errors.ravel(), prior.disagreement[left_out].ravel())[0, 1] > 0.2


def test_a_stack_of_overlapping_slices_is_not_given_detail_it_lacks(brain):
    overlapping = gaussian_filter1d(brain, 0.9, axis=0)
    acquired = overlapping[::2]
    prior = image_prior(acquired, 2, (2.0, 2.0), SMALL)
    wanted = np.arange(61) / 2
    left_out = np.arange(61) % 2 != 0
    scores = {name: psnr(f(acquired, np.arange(31.0), wanted)[left_out], overlapping[left_out]) for name, f in INTERPOLATORS.items()}
    assert psnr(prior.image[left_out], overlapping[left_out]) > max(scores.values()) + 0.3
    assert prior.report["stack_smoothness"] > 2.2
    assert prior.report["flow_share"] == 0.0


def test_same_seed_same_result_and_state_replaces_training():
    slices = waves(5, 40, 36)
    first, second = (image_prior(slices, 2, (2.0, 2.0), TINY) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    resumed = image_prior(slices, 2, (2.0, 2.0), replace(TINY, seed=9), state=first.state)
    np.testing.assert_array_equal(first.image, resumed.image)
    other = image_prior(slices, 2, (2.0, 2.0), replace(TINY, seed=9))
    assert np.any(other.image != first.image)


def test_state_of_another_network_is_refused():
    slices = waves(4, 40, 36)
    state = image_prior(slices, 2, (2.0, 2.0), TINY).state
    with pytest.raises(InputError, match="other settings"):
        image_prior(slices, 3, (3.0, 3.0), TINY, state=state)


@pytest.mark.parametrize(
    ("shape", "factor", "ratio", "method"),
    [
        ((2, 40, 40), 3, (3.0, 3.0), "learned"),
        ((3, 8, 60), 2, (2.0, 2.0), "learned"),
        ((4, 70, 33), 5, (4.1, 8.3), "learned"),
        ((5, 64, 20), 4, (9.0, 2.5), "learned"),
        ((3, 17, 17), 8, (8.0, 8.0), "flow"),
        ((3, 5, 7), 4, (4.0, 4.0), "linear"),
        ((2, 1, 1), 2, (2.0, 2.0), "linear"),
    ],
)
def test_small_stacks(shape, factor, ratio, method):
    slices = waves(*shape)
    prior = image_prior(slices, factor, ratio, TINY)
    assert prior.report["method"] == method, prior.report
    assert prior.report["reason"]
    assert prior.image.shape == ((shape[0] - 1) * factor + 1, *shape[1:])
    assert np.isfinite(prior.image).all() and np.isfinite(prior.disagreement).all()
    np.testing.assert_array_equal(prior.image[::factor], slices)


def test_slices_too_small_to_learn_from_get_the_general_network_as_it_is():
    slices = waves(3, 17, 17)
    prior, other_seed = (image_prior(slices, 8, (8.0, 8.0), PriorConfig(flow_share=0.0, seed=seed)) for seed in (0, 1))
    assert prior.report["method"] == "learned" and prior.report["iterations"] == 0 and "as it is" in prior.report["reason"]
    np.testing.assert_array_equal(prior.image, other_seed.image)
    np.testing.assert_array_equal(prior.image[::8], slices)


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_in_between(count):
    slices = waves(count, 20, 20)
    prior = image_prior(slices, 1 if count > 1 else 4, (1.0, 1.0))
    np.testing.assert_array_equal(prior.image, slices)


@pytest.mark.parametrize("method", ["flow", "linear", "none"])
def test_other_methods(method):
    slices = waves(4, 30, 30)
    prior = image_prior(slices, 3, (3.0, 3.0), PriorConfig(method=method))
    assert prior.report["method"] == method
    np.testing.assert_allclose(prior.image[::3], slices, atol=1e-6)


def test_near_binary_and_noisy_images_do_not_diverge():
    z, y, x = np.mgrid[:9, :48, :48]
    disk = (np.hypot(y - 24 - z / 2, x - 24) < 12).astype(np.float32)
    noise = np.random.default_rng(1).normal(0.5, 0.5, (9, 48, 48)).astype(np.float32)
    for truth in (disk, noise):
        prior = image_prior(truth[::2], 2, (2.0, 2.0), replace(SMALL, iterations=60))
        linear = 0.5 * (truth[:-2:2] + truth[2::2])
        assert np.mean((prior.image[1::2] - truth[1::2]) ** 2) < 1.02 * np.mean((linear - truth[1::2]) ** 2)


def test_flow_share_is_decided_by_left_out_slices_but_stays_near_the_default():
    slices = waves(44, 40, 40)[::4]
    prior = image_prior(slices, 2, (2.0, 2.0), replace(TINY, flow_share=None))
    assert prior.report["left_out_slices"] == 5
    assert 0 < abs(prior.report["flow_share"] - DEFAULT_FLOW_SHARE) < 0.15
    few = image_prior(slices[:4], 2, (2.0, 2.0), replace(TINY, flow_share=None))
    assert few.report["flow_share"] == DEFAULT_FLOW_SHARE and "left_out_slices" not in few.report


def test_the_middle_of_large_slices_decides_the_flow_share():
    slices = waves(14, 210, 40)[::2]
    elsewhere = slices.copy()
    elsewhere[:, :9], elsewhere[:, -9:] = 0.0, 1.0
    judged = [leave_one_out(stack, Sampling(2, (2.0, 2.0)), Precision(torch.device("cpu"), reduced=False)) for stack in (slices, elsewhere)]
    assert judged[0] == judged[1]
    elsewhere[:, 30:60] = 0.0
    assert leave_one_out(elsewhere, Sampling(2, (2.0, 2.0)), Precision(torch.device("cpu"), reduced=False)) != judged[0]


def test_large_stacks_get_the_quick_kind_of_motion():
    first, second = waves(2, 40, 40)
    single = [SlicePair(first, second, method).at(0.3) for method in ("dis", "tvl1")]
    np.testing.assert_allclose(BlendedMotion(first, second, 1000).at(0.3), np.mean(single, axis=0), atol=1e-6)
    np.testing.assert_array_equal(BlendedMotion(first, second, 10**7).at(0.3), single[0])


def test_the_general_network_has_the_more_say_the_wider_the_gap():
    shares = [default_general_share(10**7, Sampling(4, (gap, gap))) for gap in (5.0, 6.0, 8.0, 10.0, 40.0)]
    assert shares[0] == 0.0
    assert shares == sorted(shares)
    assert shares[-2] == shares[-1] == default_general_share(0, Sampling(4, (6.0, 6.0))) == pytest.approx(0.5)
    assert default_general_share(10**7, Sampling(4, (40.0, 40.0), SliceProfile("box", 1.0))) == 0.0


def test_the_general_network_has_a_say_where_there_is_little_to_learn_from():
    near = Sampling(3, (3.0, 3.0))
    assert default_general_share(10**7, near) == default_general_share(200_000, near) == 0.0
    assert default_general_share(50_000, near) == default_general_share(0, near) == pytest.approx(0.5)
    slices = waves(5, 40, 36)
    own, mixed, general = (image_prior(slices, 3, (3.0, 3.0), replace(TINY, general_share=share)) for share in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(mixed.image, (own.image + general.image) / 2, atol=1e-5)
    np.testing.assert_array_equal(general.image[::3], slices)
    assert mixed.disagreement.mean() > own.disagreement.mean()
    assert image_prior(slices, 3, (3.0, 3.0), TINY).report["general_share"] == default_general_share(slices.size, near)
    retrained = image_prior(slices, 3, (3.0, 3.0), replace(TINY, general_share=1.0, seed=4, iterations=9))
    np.testing.assert_allclose(retrained.image, general.image, atol=1e-6)


def test_thick_slices_start_from_the_general_network_of_averages():
    slices, profile = waves(4, 40, 36), SliceProfile("box", 1.0)
    untouched = PriorConfig(iterations=0, general_share=0.0)
    points, averages = (image_prior(slices, 3, (3.0, 3.0), untouched, given) for given in (SliceProfile(), profile))
    assert points.report["starts_from"] == averages.report["starts_from"] == "synthetic anatomy"
    np.testing.assert_allclose(averages.image[2:-2].reshape(2, 3, 40, 36).mean(axis=1), slices[1:-1], atol=1e-5)
    assert np.abs(averages.image[3] - slices[1]).max() > 1e-3
    own, mixed = (image_prior(slices, 3, (3.0, 3.0), replace(TINY, general_share=share), profile) for share in (0.0, 0.5))
    assert mixed.disagreement.mean() > own.disagreement.mean()


def test_progress_and_cancelling():
    events = []
    image_prior(waves(4, 40, 40), 2, (2.0, 2.0), TINY, reporter=Reporter(events.append))
    assert {event.stage for event in events} == {"prior"}
    assert any(event.loss is not None for event in events)
    with pytest.raises(Cancelled):
        image_prior(waves(4, 40, 40), 2, (2.0, 2.0), TINY, reporter=Reporter(lambda event: event.step < 2))


def test_irregular_gaps_are_reported():
    prior: ImagePrior = image_prior(waves(5, 40, 40), 2, (2.0, 2.0), TINY, coordinates=np.array([0.0, 1.0, 2.0, 4.0, 5.0]))
    assert prior.report["wide_gaps"] == 1


@pytest.mark.parametrize("slices", [np.zeros((0, 8, 8), np.float32), np.zeros((8, 8), np.float32)])
def test_bad_input_is_refused(slices):
    with pytest.raises(InputError):
        image_prior(slices, 2, (1.0, 1.0))
