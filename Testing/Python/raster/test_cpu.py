"""The CPU rasterizer against the reference: values and gradients."""

from __future__ import annotations

from dataclasses import replace

import numba
import pytest
import torch

from MedGSLib.errors import BackendError, InputError
from MedGSLib.gaussians import FoldedGaussians, FoldSettings
from MedGSLib.raster import render_slices
from MedGSLib.raster.cpu import CpuRasterizer
from MedGSLib.raster.reference import ReferenceRasterizer

BLENDINGS = ("normalized", "alpha", "alpha_normalized")


@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8])
def test_channels(scene, matches_reference, blending, channels):
    matches_reference(CpuRasterizer(), scene([60, 45], 21, 37, channels), blending)


@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 33), (29, 1), (17, 16), (15, 47), (70, 3)])
def test_image_sizes(scene, matches_reference, blending, height, width):
    matches_reference(CpuRasterizer(), scene([25, 30], height, width, 2), blending)


@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.parametrize("slices", [1, 7, 64])
def test_slices_some_of_them_empty(scene, matches_reference, blending, slices):
    counts = [0 if s % 3 == 1 or slices == 7 and s == 6 else 6 for s in range(slices)]
    matches_reference(CpuRasterizer(), scene(counts, 19, 23, 2), blending)


@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.parametrize(
    ("scale", "anisotropy"), [((0.05, 0.3), 1.5), ((0.4, 0.8), 30.0), ((6.0, 12.0), 4.0), ((40.0, 90.0), 2.0)], ids=str
)
def test_tiny_needle_and_wide_gaussians(scene, matches_reference, blending, scale, anisotropy):
    matches_reference(CpuRasterizer(), scene([20, 12], 41, 53, 2, scale=scale, anisotropy=anisotropy), blending)


@pytest.mark.parametrize("blending", ["alpha", "alpha_normalized"])
def test_crowded_pixels_close(scene, matches_reference, blending):
    crowded = scene([250], 11, 19, 1, scale=(2.0, 5.0), opacity=(0.3, 1.2))
    _, weight = ReferenceRasterizer().rasterize(crowded.sliced, 11, 19, blending=blending, epsilon=1e-3, background=0.0)
    assert float(weight.max()) > 0.999
    matches_reference(CpuRasterizer(), crowded, blending)


@pytest.mark.parametrize("blending", BLENDINGS)
def test_without_any_pair_only_the_background_is_left(scene, blending):
    empty = scene([0, 0, 0], 9, 14, 2)
    features, weight = CpuRasterizer().rasterize(empty.sliced, 9, 14, blending=blending, epsilon=1e-3, background=0.25)
    assert torch.allclose(features, torch.full((3, 9, 14, 2), 0.25))
    assert torch.equal(weight, torch.zeros(3, 9, 14))


@pytest.mark.parametrize("blending", BLENDINGS)
def test_gaussians_outside_the_image_do_nothing(scene, blending):
    inside = scene([10], 20, 20, 1, scale=(0.5, 1.5))
    sliced = replace(inside.sliced, center=inside.sliced.center + 300.0)
    sliced.center.requires_grad_()
    features, weight = CpuRasterizer().rasterize(sliced, 20, 20, blending=blending, epsilon=1e-3, background=0.0)
    (features.sum() + weight.sum()).backward()
    assert not features.any()
    assert not weight.any()
    assert not sliced.center.grad.any()


@pytest.mark.parametrize("blending", BLENDINGS)
def test_degenerate_and_lost_gaussians_stay_inside_the_memory(scene, blending):
    broken = scene([30], 18, 31, 2)
    sliced = broken.sliced
    sliced.center[0] = torch.nan
    sliced.center[1] = 1e30
    sliced.conic[2] = torch.tensor([1.0, 1.0, 1.0])
    sliced.conic[3] = 0.0
    sliced.conic[4] = torch.tensor([1e-30, 0.0, 1e-30])
    sliced.conic[5] = torch.tensor([1e12, 0.0, 1e12])
    _, weight = CpuRasterizer().rasterize(sliced, 18, 31, blending=blending, epsilon=1e-3, background=0.0)
    assert weight.shape == (1, 18, 31)


@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="numba was started with one thread")
def test_threads_do_not_change_a_bit(scene, blending):
    many = scene([300, 200, 400], 90, 110, 2)
    results = []
    for threads in (1, 2):
        center = many.sliced.center.clone().requires_grad_()
        features, weight = CpuRasterizer(threads).rasterize(
            replace(many.sliced, center=center), 90, 110, blending=blending, epsilon=1e-3, background=0.0
        )
        (features.square().sum() + weight.sum()).backward()
        results.append((features.detach(), weight.detach(), center.grad))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_starting_the_kernels_leaves_the_threads_of_torch_alone():
    before = torch.get_num_threads()
    CpuRasterizer(1)
    assert torch.get_num_threads() == before


def test_gradients_reach_every_parameter_of_folded_gaussians():
    generator = torch.Generator().manual_seed(3)
    count = 80
    gaussians = FoldedGaussians(
        center=torch.rand(count, 2, generator=generator) * torch.tensor([30.0, 22.0]),
        log_scale=0.4 * torch.randn(count, 2, generator=generator) + 0.5,
        angle=3 * torch.rand(count, generator=generator),
        position=4 * torch.rand(count, generator=generator),
        log_spread=0.2 * torch.randn(count, generator=generator),
        drift=0.3 * torch.randn(count, 2, 2, generator=generator),
        log_weight=0.5 * torch.randn(count, generator=generator),
        values=torch.rand(count, 2, generator=generator),
        settings=FoldSettings(degree=2),
    )
    t = torch.tensor([0.5, 3.0, 1.25])
    gradients = []
    for rasterizer in (CpuRasterizer(), ReferenceRasterizer()):
        gaussians.zero_grad()
        features, _ = render_slices(gaussians, t, 22, 30, rasterizer)
        assert features.shape == (3, 22, 30, 2)
        features.square().sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in gaussians.named_parameters()})
    for name, gradient in gradients[1].items():
        assert float(gradient.abs().max()) > 0
        assert torch.allclose(gradients[0][name], gradient, atol=2e-3 * float(gradient.abs().max())), name


def test_refusals(scene):
    pairs = scene([3], 5, 5, 1).sliced
    with pytest.raises(InputError, match="0 by 5 pixels"):
        CpuRasterizer().rasterize(pairs, 0, 5, blending="alpha", epsilon=1e-3, background=0.0)
    with pytest.raises(InputError, match="additive"):
        CpuRasterizer().rasterize(pairs, 5, 5, blending="additive", epsilon=1e-3, background=0.0)
    elsewhere = replace(pairs, center=pairs.center.to("meta"))
    with pytest.raises(BackendError, match="on the device meta"):
        CpuRasterizer().rasterize(elsewhere, 5, 5, blending="alpha", epsilon=1e-3, background=0.0)
