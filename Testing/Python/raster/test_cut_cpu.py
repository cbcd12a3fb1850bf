"""The kernels that cut Gaussians through slices against the same formulas in torch, for more Gaussians than one job holds."""

from __future__ import annotations

import numba
import pytest
import torch

from MedGSLib import gaussians as module
from MedGSLib.gaussians import PARAMETER_NAMES, FoldedGaussians, FoldSettings
from MedGSLib.raster import cut_cpu

COUNT = 2 * cut_cpu.GAUSSIANS_PER_JOB + 7
T = torch.tensor([4.0, 1.5, 1.5, 90.0, 0.0])


def gaussians(dtype: torch.dtype, **settings) -> FoldedGaussians:
    chosen = FoldSettings(**settings)
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    position = 6 * torch.rand(COUNT, generator=generator, dtype=torch.float64)
    drift = 0.1 * normal(COUNT, chosen.degree, 2)
    tensors = (20 * normal(COUNT, 2), 0.3 * normal(COUNT, 2), normal(COUNT), position, 0.2 * normal(COUNT), drift, normal(COUNT))
    return FoldedGaussians(*tensors, normal(COUNT, 3), settings=chosen).to(dtype)


def cut_and_gradients(model: FoldedGaussians) -> dict[str, torch.Tensor]:
    """Everything a cut gives, and what a random linear loss of it pulls at."""
    sliced = model.at(T)
    generator = torch.Generator().manual_seed(5)
    found = {name: getattr(sliced, name) for name in ("center", "conic", "weight", "values")}
    pulls = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in found.values()]
    sum((value * pull).sum() for value, pull in zip(found.values(), pulls, strict=True)).backward()
    gradients = {f"to {name}": getattr(model, name).grad for name in PARAMETER_NAMES}
    return {name: value.detach().double() for name, value in (found | gradients).items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize(
    "settings", [{}, {"degree": 7, "fold": "shrink", "blending": "alpha"}, {"degree": 0, "blending": "alpha"}], ids=str
)
def test_the_kernels_agree_with_torch(settings, dtype, tolerance, monkeypatch):
    found = cut_and_gradients(gaussians(dtype, **settings))
    monkeypatch.setattr(module, "HAS_NUMBA", False)
    expected = cut_and_gradients(gaussians(torch.float64, **settings))
    assert found["weight"].numel() > COUNT
    for name, value in expected.items():
        largest = float(value.abs().max()) if value.numel() else 0.0
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance * (1 + largest))


def test_the_number_of_threads_changes_nothing():
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = cut_and_gradients(gaussians(torch.float32, degree=2))
        numba.set_num_threads(before)
        together = cut_and_gradients(gaussians(torch.float32, degree=2))
    finally:
        numba.set_num_threads(before)
    for name, value in alone.items():
        assert torch.equal(value, together[name]), name
