"""Seeded slices of Gaussians and the comparison of a backend with the reference on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from MedGSLib.gaussians import SlicedGaussians
from MedGSLib.raster.interface import ALPHA_MIN, TRANSMITTANCE_MIN, TRUNCATION, Rasterizer
from MedGSLib.raster.reference import ReferenceRasterizer

LEARNED = ("center", "conic", "weight", "values")


@dataclass(frozen=True)
class Scene:
    """Pairs in float32 and the size of their images."""

    sliced: SlicedGaussians
    height: int
    width: int


def make_scene(
    counts: list[int],
    height: int,
    width: int,
    channels: int,
    *,
    scale: tuple[float, float] = (0.6, 4.0),
    anisotropy: float = 3.0,
    opacity: tuple[float, float] = (0.02, 0.9),
    seed: int = 0,
) -> Scene:
    """``counts[s]`` random Gaussians in slice s, a tenth of the image size beyond its borders included.

    :param scale: range of the smaller in-plane scale, px.
    :param anisotropy: highest ratio of the two scales.
    :param opacity: range of the weights.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    total = sum(counts)
    center = uniform(total, 2, low=-0.1, high=1.1) * torch.tensor([width, height])
    small = uniform(total, low=scale[0], high=scale[1])
    large = small * uniform(total, low=1.0, high=anisotropy)
    angle = uniform(total, low=0.0, high=3.1)
    first, second, cosine, sine = small**-2, large**-2, angle.cos(), angle.sin()
    conic = torch.stack(
        (cosine**2 * first + sine**2 * second, cosine * sine * (first - second), sine**2 * first + cosine**2 * second), dim=1
    )
    slices = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
    sliced = SlicedGaussians(
        slice_start=torch.tensor([0, *torch.tensor(counts, dtype=torch.int64).cumsum(0).tolist()]),
        slice_index=slices,
        gaussian_index=torch.arange(total),
        center=center,
        conic=conic,
        weight=uniform(total, low=opacity[0], high=opacity[1]),
        values=uniform(total, channels, low=-0.5, high=1.0),
    )
    return Scene(sliced, height, width)


def clear_pixels(scene: Scene) -> Tensor:
    """Pixels (S, H, W) where no Gaussian is within rounding of its truncation, of the lowest alpha or of closing the pixel."""
    sliced = scene.sliced
    rows, columns = torch.meshgrid(torch.arange(scene.height), torch.arange(scene.width), indexing="ij")
    clear = torch.ones(sliced.slices, scene.height, scene.width, dtype=torch.bool)
    light = torch.ones(sliced.slices, scene.height, scene.width, dtype=torch.float64)
    for pair, s in enumerate(sliced.slice_index.tolist()):
        dx, dy = columns - sliced.center[pair, 0].double(), rows - sliced.center[pair, 1].double()
        a, b, c = sliced.conic[pair].double()
        q = a * dx * dx + 2 * b * dx * dy + c * dy * dy
        alpha = (sliced.weight[pair].double() * torch.exp(-0.5 * q)).clamp(max=0.999)
        alpha = torch.where((q < TRUNCATION) & (alpha >= ALPHA_MIN), alpha, 0.0)
        light[s] *= 1 - alpha
        raw = sliced.weight[pair].double() * torch.exp(-0.5 * q)
        clear[s] &= (q - TRUNCATION).abs() > 1e-3
        clear[s] &= (raw / ALPHA_MIN - 1).abs() > 1e-3
        clear[s] &= (raw - 0.999).abs() > 1e-4
        clear[s] &= (light[s] / TRANSMITTANCE_MIN - 1).abs() > 1e-2
    return clear


def run(rasterizer: Rasterizer, scene: Scene, blending: str, clear: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Features and weight on the clear pixels, and the gradients of a seeded weighted sum of both."""
    leaves = {name: getattr(scene.sliced, name).to(dtype, copy=True).requires_grad_() for name in LEARNED}
    features, weight = rasterizer.rasterize(
        replace(scene.sliced, **leaves), scene.height, scene.width, blending=blending, epsilon=1e-3, background=0.25
    )
    generator = torch.Generator().manual_seed(1)
    pull = torch.randn(features.shape, generator=generator).to(dtype) * clear[..., None]
    weight_pull = torch.randn(weight.shape, generator=generator).to(dtype) * clear
    ((features * pull).sum() + (weight * weight_pull).sum()).backward()
    gradients = {f"gradient of {name}": leaf.grad for name, leaf in leaves.items()}
    return {"features": features.detach() * clear[..., None], "accumulated weight": weight.detach() * clear, **gradients}


def check_against_reference(rasterizer: Rasterizer, scene: Scene, blending: str) -> None:
    """Float32 values within 1e-5 of their largest and gradients within 1e-4 of their largest, of the float64 reference."""
    clear = clear_pixels(scene)
    assert clear.double().mean() > 0.5
    found = run(rasterizer, scene, blending, clear, torch.float32)
    expected = run(ReferenceRasterizer(), scene, blending, clear, torch.float64)
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert torch.isfinite(found[name]).all()
        tolerance = (1e-4 if name.startswith("gradient") else 1e-5) * max(1.0, float(value.abs().max()) if value.numel() else 0.0)
        worst = float((found[name] - value).abs().max()) if value.numel() else 0.0
        assert worst <= tolerance, f"{name} of {blending} is off by {worst:.2e} where {tolerance:.2e} is allowed"


@pytest.fixture
def scene() -> Callable[..., Scene]:
    """Maker of seeded scenes."""
    return make_scene


@pytest.fixture
def matches_reference() -> Callable[[Rasterizer, Scene, str], None]:
    """Comparison of a backend with the reference, values and gradients."""
    return check_against_reference
