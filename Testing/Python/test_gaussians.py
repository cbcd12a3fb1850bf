"""Folded Gaussians: culling, drift, fold and weights against the formulas, written out one pair at a time."""

from __future__ import annotations

import math

import pytest
import torch

from MedGSLib import gaussians as module
from MedGSLib.errors import InputError
from MedGSLib.gaussians import PARAMETER_NAMES, FoldedGaussians, FoldSettings


def make(count: int = 40, heads: int = 2, depth: float = 8.0, seed: int = 0, **settings) -> FoldedGaussians:
    """Seeded Gaussians in float64."""
    chosen = FoldSettings(**settings)
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return FoldedGaussians(
        center=10 * normal(count, 2),
        log_scale=0.4 * normal(count, 2),
        angle=normal(count),
        position=depth * torch.rand(count, generator=generator, dtype=torch.float64),
        log_spread=0.3 * normal(count),
        drift=0.2 * normal(count, chosen.degree, 2),
        log_weight=normal(count),
        values=normal(count, heads),
        settings=chosen,
    )


@pytest.fixture(autouse=True, params=["kernel", "torch"])
def way(request, monkeypatch):
    """Both ways of cutting."""
    monkeypatch.setattr(module, "HAS_NUMBA", request.param == "kernel")


T = torch.tensor([3.0, 0.25, 3.0, 7.5, 40.0], dtype=torch.float64)


@pytest.mark.parametrize(("fold", "reach"), [("amplitude", 3.0), ("shrink", math.sqrt(2 * math.log(10)))])
def test_pairs_are_those_within_reach_by_slice_and_gaussian(fold, reach):
    model = make(fold=fold)
    sliced = model.at(T)
    expected = [
        (s, i)
        for s, t in enumerate(T.tolist())
        for i in range(len(model))
        if abs(t - model.position[i].item()) < reach * math.exp(model.log_spread[i].item())
    ]
    assert list(zip(sliced.slice_index.tolist(), sliced.gaussian_index.tolist(), strict=True)) == expected
    counts = [sum(1 for pair in expected if pair[0] == s) for s in range(5)]
    assert sliced.slice_start.tolist() == [sum(counts[:s]) for s in range(6)]
    assert counts[4] == 0
    assert sliced.slices == 5


def test_culling_in_portions_finds_the_same_pairs(monkeypatch):
    model = make(count=60)
    whole = model.at(T)
    monkeypatch.setattr(module, "_CULL_ELEMENTS", 130)
    portions = model.at(T)
    assert torch.equal(whole.slice_index, portions.slice_index)
    assert torch.equal(whole.gaussian_index, portions.gaussian_index)
    assert torch.equal(whole.slice_start, portions.slice_start)


@pytest.mark.parametrize("degree", range(8))
def test_drift_polynomial(degree):
    model = make(degree=degree)
    sliced = model.at(T)
    assert sliced.center.shape[0] > 20
    for pair, (s, i) in enumerate(zip(sliced.slice_index.tolist(), sliced.gaussian_index.tolist(), strict=True)):
        d = model.position[i].item() - T[s].item()
        for axis in range(2):
            expected = model.center[i, axis].item() + sum(model.drift[i, k - 1, axis].item() * d**k for k in range(1, degree + 1))
            assert sliced.center[pair, axis].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("fold", ["amplitude", "shrink"])
@pytest.mark.parametrize("blending", ["normalized", "alpha", "alpha_normalized"])
def test_weight_conic_and_values(fold, blending):
    model = make(fold=fold, blending=blending)
    sliced = model.at(T)
    for pair, (s, i) in enumerate(zip(sliced.slice_index.tolist(), sliced.gaussian_index.tolist(), strict=True)):
        d = model.position[i].item() - T[s].item()
        delta = math.exp(-0.5 * d * d / math.exp(2 * model.log_spread[i].item()))
        logit = model.log_weight[i].item()
        weight = math.exp(logit) if blending == "normalized" else 1 / (1 + math.exp(-logit))
        assert sliced.weight[pair].item() == pytest.approx(weight * (delta if fold == "amplitude" else 1.0), rel=1e-9)
        turn = torch.tensor(
            [
                [math.cos(model.angle[i].item()), -math.sin(model.angle[i].item())],
                [math.sin(model.angle[i].item()), math.cos(model.angle[i].item())],
            ]
        )
        scales = torch.exp(model.log_scale[i].detach()) * (delta if fold == "shrink" else 1.0)
        inverse = torch.linalg.inv(turn.double() @ torch.diag(scales**2) @ turn.double().T)
        expected = torch.stack((inverse[0, 0], inverse[0, 1], inverse[1, 1]))
        assert torch.allclose(sliced.conic[pair].detach(), expected, rtol=1e-5)
        assert torch.equal(sliced.values[pair], model.values[i])
        if fold == "shrink":
            assert delta > 0.1


def test_degree_one_with_the_amplitude_fold_is_a_slice_of_a_3d_gaussian():
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    covariance = root @ root.T + 0.3 * torch.eye(3, dtype=torch.float64)
    mean = torch.tensor([4.0, -2.0, 3.5], dtype=torch.float64)
    slope = covariance[:2, 2] / covariance[2, 2]
    in_plane = covariance[:2, :2] - torch.outer(covariance[:2, 2], covariance[2, :2]) / covariance[2, 2]
    variances, axes = torch.linalg.eigh(in_plane)
    model = FoldedGaussians(
        center=mean[None, :2],
        log_scale=0.5 * torch.log(variances)[None],
        angle=torch.atan2(axes[1, 0], axes[0, 0])[None],
        position=mean[2:],
        log_spread=0.5 * torch.log(covariance[2, 2])[None],
        drift=-slope[None, None, :],
        log_weight=torch.zeros(1, dtype=torch.float64),
        values=torch.ones(1, 1, dtype=torch.float64),
    )
    precision = torch.linalg.inv(covariance)
    for t in (2.6, 3.5, 4.9):
        sliced = model.at(torch.tensor([t]))
        t = float(torch.tensor([t]).double())
        for point in torch.randn(20, 2, generator=generator, dtype=torch.float64) * 2 + mean[:2]:
            offset = torch.cat((point, torch.tensor([t], dtype=torch.float64))) - mean
            expected = torch.exp(-0.5 * offset @ precision @ offset)
            dx, dy = (point - sliced.center[0]).unbind()
            a, b, c = sliced.conic[0]
            found = sliced.weight[0] * torch.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy))
            assert found.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("fold", "blending", "degree"), [("amplitude", "normalized", 2), ("shrink", "alpha", 1), ("amplitude", "alpha", 0)]
)
def test_gradients_by_differences(fold, blending, degree):
    model = make(count=4, depth=3.0, fold=fold, blending=blending, degree=degree)
    t = torch.tensor([0.5, 2.0], dtype=torch.float64)

    def cut(*tensors):
        copy = make(count=4, depth=3.0, fold=fold, blending=blending, degree=degree)
        for name, tensor in zip(PARAMETER_NAMES, tensors, strict=True):
            del copy._parameters[name]
            setattr(copy, name, tensor)
        sliced = copy.at(t)
        return sliced.center, sliced.conic, sliced.weight, sliced.values

    assert len(model.at(t).slice_index) > 3
    tensors = [getattr(model, name).detach().clone().requires_grad_() for name in PARAMETER_NAMES]
    assert torch.autograd.gradcheck(cut, tensors)


def test_no_gaussians_and_no_slices_in_reach():
    empty = make().subset(torch.zeros(40, dtype=torch.bool))
    assert len(empty) == 0
    assert empty.at(T).slice_start.tolist() == [0] * 6
    far = make().at(torch.tensor([500.0]))
    assert far.center.shape == (0, 2)
    assert far.values.shape == (0, 2)


def test_subset_and_cat_keep_the_rows():
    model = make(degree=2)
    keep = torch.arange(40) % 3 == 0
    rest = model.subset(~keep)
    joined = FoldedGaussians.cat([model.subset(keep), rest])
    order = torch.cat((keep.nonzero()[:, 0], (~keep).nonzero()[:, 0]))
    assert len(joined) == 40
    assert joined.settings == model.settings
    for name in PARAMETER_NAMES:
        assert torch.equal(getattr(joined, name), getattr(model, name)[order])
        assert getattr(joined, name).requires_grad


def test_state_round_trip_and_its_refusals():
    model = make(degree=3)
    state = model.state_dict()
    restored = FoldedGaussians.from_state(state, model.settings)
    for name in PARAMETER_NAMES:
        assert torch.equal(getattr(restored, name), getattr(model, name))
    with pytest.raises(InputError, match="drift has the shape"):
        FoldedGaussians.from_state(state, FoldSettings(degree=2))
    del state["angle"]
    with pytest.raises(InputError, match="angle is missing"):
        FoldedGaussians.from_state(state, model.settings)


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"degree": 8}, "between 0 and 7, not 8"),
        ({"degree": -1}, "not -1"),
        ({"fold": "bend"}, "not 'bend'"),
        ({"blending": "additive"}, "not 'additive'"),
        ({"epsilon": 0.0}, "above zero"),
        ({"cutoff": -1.0}, "above zero"),
    ],
)
def test_settings_out_of_range(setting, match):
    with pytest.raises(InputError, match=match):
        FoldSettings(**setting)
