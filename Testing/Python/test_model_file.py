"""The saved model: what is written comes back, what is damaged or foreign is refused, and the export is the same Gaussians in 3-D."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation

from MedGSLib import model_file as module
from MedGSLib.errors import ModelFileError, ResourceError
from MedGSLib.gaussians import FoldedGaussians, FoldSettings
from MedGSLib.model_file import ModelHeader, export_ply, load_model, save_model
from MedGSLib.volume import Label


def make_gaussians(count: int = 12, heads: int = 2, **settings) -> FoldedGaussians:
    fold = FoldSettings(**settings)
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return FoldedGaussians(
        center=20 + 5 * normal(count, 2),
        log_scale=0.5 * normal(count, 2),
        angle=normal(count),
        position=10 * torch.rand(count, generator=generator),
        log_spread=0.3 * normal(count),
        drift=0.4 * normal(count, fold.degree, 2),
        log_weight=normal(count),
        values=normal(count, heads),
        settings=fold,
    )


def make_header(**changes) -> ModelHeader:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix() @ np.diag([0.7, 0.9, -1.0])
    matrix[:3, 3] = (-31.0, 12.5, 103.0)
    header = ModelHeader(
        plane_to_ras=matrix.tolist(),
        step_mm=1.25,
        size=(40, 44),
        acquired_mm=[0.0, 5.0, 10.0],
        window=(-100.5, 312.25),
        labels=(Label(7, "Äorta"),),
        axis=1,
        preset="standard",
        seed=11,
        fold=FoldSettings(),
    )
    return replace(header, **changes)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.medgs"
    save_model(path, make_gaussians(), make_header())
    return path


def refusal(path) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and caught.value.exit_code == 2
    return sentence


def write_raw(path, header: dict | str | None, **tensors) -> None:
    state = make_gaussians().state_dict() | tensors
    text = header if isinstance(header, str) or header is None else json.dumps(header)
    save_file({name: value for name, value in state.items() if value is not None}, str(path), None if text is None else {"medgs": text})


@pytest.mark.parametrize(
    ("heads", "changes", "settings"),
    [
        (2, {}, {}),
        (1, {"window": None}, {"degree": 0, "blending": "alpha_normalized", "background": 0.25}),
        (1, {"labels": ()}, {"degree": 7, "fold": "shrink", "blending": "alpha", "cutoff": 2.5, "epsilon": 1e-4}),
    ],
)
def test_a_model_comes_back_as_it_was_saved(tmp_path, heads, changes, settings):
    gaussians, header = make_gaussians(heads=heads, **settings), make_header(fold=FoldSettings(**settings), **changes)
    save_model(tmp_path / "model.medgs", gaussians, header)
    loaded, found = load_model(tmp_path / "model.medgs")
    assert found == header
    assert loaded.settings == gaussians.settings
    for name, value in gaussians.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_truncated_files_are_refused(saved):
    content = saved.read_bytes()
    for share in range(10):
        saved.write_bytes(content[: len(content) * share // 10])
        assert "truncated" in refusal(saved)
    saved.write_bytes(content[:-1])
    assert "truncated" in refusal(saved)


def test_flipped_bytes_never_end_in_another_error(saved):
    content = bytearray(saved.read_bytes())
    generator = np.random.default_rng(0)
    length = 8 + int.from_bytes(content[:8], "little")
    for place in generator.integers(0, length, 150):
        damaged = content.copy()
        damaged[place] ^= 1 << int(generator.integers(8))
        saved.write_bytes(damaged)
        try:
            load_model(saved)
        except ModelFileError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"ply\nformat ascii 1.0\n", bytes(range(256)) * 40, b"\xff" * 4096])
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "model.medgs"
    path.write_bytes(content)
    assert "model.medgs" in refusal(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    assert "no model file" in refusal(tmp_path / "model.medgs")
    assert "no model file" in refusal(tmp_path)


def test_safetensors_of_another_program_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"layer": torch.zeros(3)}, str(path), {"format": "pt"})
    assert refusal(path) == "weights.safetensors is not a MedGS model."
    write_raw(path, None)
    assert refusal(path) == "weights.safetensors is not a MedGS model."


def test_a_newer_schema_is_named(tmp_path):
    path = tmp_path / "model.medgs"
    write_raw(path, {"schema_version": module.SCHEMA_VERSION + 1, "unheard": "of"})
    assert f"schema {module.SCHEMA_VERSION + 1}" in refusal(path)


@pytest.mark.parametrize(
    "change",
    [
        {"plane_to_ras": [[1.0, 0.0], [0.0, 1.0]]},
        {"plane_to_ras": np.full((4, 4), np.nan).tolist()},
        {"step_mm": 0.0},
        {"step_mm": "wide"},
        {"fold": {"degree": 99}},
        {"fold": {"degree": "one"}},
        {"labels": [{"value": 1}]},
        {"window": 3},
        {"size": None},
        {"schema_version": "new"},
        {"surplus": 1},
    ],
    ids=str,
)
def test_damaged_headers_are_refused(tmp_path, change):
    path = tmp_path / "model.medgs"
    write_raw(path, asdict(make_header()) | change)
    assert "header" in refusal(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "{}", "[" * 100_000])
def test_headers_that_are_no_object_are_refused(tmp_path, text):
    path = tmp_path / "model.medgs"
    write_raw(path, text)
    assert "header" in refusal(path)


@pytest.mark.parametrize(
    ("tensors", "hint"),
    [
        ({"angle": torch.full((12,), math.nan)}, "not numbers"),
        ({"drift": torch.full((12, 1, 2), math.inf)}, "not numbers"),
        ({"values": torch.zeros(12, 3)}, "3 heads"),
        ({"values": torch.zeros(12)}, "damaged"),
        ({"position": torch.tensor(1.0)}, "damaged"),
        ({"center": torch.zeros(11, 2)}, "center"),
        ({"drift": torch.zeros(12, 4, 2)}, "drift"),
        ({"log_weight": None}, "log_weight"),
        ({"center": torch.zeros(12, 2, dtype=torch.complex64)}, "damaged"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_unfit_tensors_are_refused(tmp_path, tensors, hint):
    path = tmp_path / "model.medgs"
    write_raw(path, asdict(make_header()), **tensors)
    assert hint in refusal(path)


def test_a_full_disk_leaves_the_earlier_model(saved, monkeypatch):
    before = saved.read_bytes()

    def full(tensors, path, metadata):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(ResourceError):
        save_model(saved, make_gaussians(5), make_header())
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["model.medgs"]


def read_ply(path) -> dict[str, np.ndarray]:
    """A plain reader of binary vertices of floats."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = next(int(line.split()[-1]) for line in lines if line.startswith("element vertex"))
    names = [line.split()[-1] for line in lines if line.startswith("property")]
    assert all(line.split()[1] == "float" for line in lines if line.startswith("property"))
    table = np.frombuffer(body, "<f4").reshape(count, len(names))
    return {name: table[:, k].astype(np.float64) for k, name in enumerate(names)}


def covariance_of(table: dict[str, np.ndarray]) -> np.ndarray:
    """Sigma = R S^2 R' from the attributes of 3-D Gaussian splatting, quaternion (w, x, y, z)."""
    quaternions = np.stack([table[f"rot_{k}"] for k in range(4)], axis=1)
    turn = Rotation.from_quat(quaternions[:, [1, 2, 3, 0]]).as_matrix()
    scale = np.exp(np.stack([table[f"scale_{k}"] for k in range(3)], axis=1))
    return turn @ (scale[:, :, None] ** 2 * turn.transpose(0, 2, 1))


def one_gaussian(**changes) -> FoldedGaussians:
    parameters = {
        "center": torch.tensor([[10.0, 20.0]]),
        "log_scale": torch.tensor([[2.0, 0.5]]).log(),
        "angle": torch.zeros(1),
        "position": torch.tensor([4.0]),
        "log_spread": torch.tensor([3.0]).log(),
        "drift": torch.zeros(1, 1, 2),
        "log_weight": torch.tensor([-0.75]),
        "values": torch.tensor([[0.5 + 0.28209479177387814 * 1.5, 0.2]]),
    }
    return FoldedGaussians(**(parameters | changes), settings=FoldSettings())


def test_an_axis_aligned_gaussian_is_exported_by_hand(tmp_path):
    plane_to_ras = np.diag([0.5, 2.0, 1.0, 1.0])
    plane_to_ras[:3, 3] = (100.0, 200.0, 300.0)
    path = tmp_path / "g.ply"
    export_ply(path, one_gaussian(), make_header(plane_to_ras=plane_to_ras.tolist(), step_mm=1.5))
    table = read_ply(path)
    assert [float(table[name][0]) for name in "xyz"] == pytest.approx([-105.0, -240.0, 306.0])
    np.testing.assert_allclose(covariance_of(table)[0], np.diag([1.0**2, 1.0**2, 4.5**2]), atol=1e-4)
    assert float(table["opacity"][0]) == pytest.approx(-0.75)
    assert [float(table[f"f_dc_{k}"][0]) for k in range(3)] == pytest.approx([1.5] * 3, rel=1e-5)
    assert float(table["head_1"][0]) == pytest.approx(0.2)
    assert not table["nx"].any()


def test_drift_is_a_shear_along_the_stack(tmp_path):
    """With centre c + w (m - t) at t, moving one unit up the stack moves the Gaussian by -w in its plane."""
    path = tmp_path / "g.ply"
    drift = torch.tensor([[[0.6, -0.2]]])
    export_ply(path, one_gaussian(drift=drift), make_header(plane_to_ras=np.eye(4).tolist(), step_mm=1.0))
    shear = np.array([-0.6, 0.2])
    expected = np.zeros((3, 3))
    expected[:2, :2] = np.diag([4.0, 0.25]) + 9.0 * np.outer(shear, shear)
    expected[:2, 2] = expected[2, :2] = 9.0 * shear
    expected[2, 2] = 9.0
    flip = np.diag([-1.0, -1.0, 1.0])
    np.testing.assert_allclose(covariance_of(read_ply(path))[0], flip @ expected @ flip, atol=1e-4)


def test_the_export_has_the_density_of_the_folded_gaussians_in_an_oblique_frame(tmp_path):
    """exp(-q/2) of the exported 3-D Gaussian equals the stack factor times the 2-D Gaussian of the slice, at random points."""
    gaussians, header = make_gaussians(), make_header()
    path = tmp_path / "g.ply"
    export_ply(path, gaussians, header)
    table = read_ply(path)
    precision = np.linalg.inv(covariance_of(table))
    generator = np.random.default_rng(3)
    state = {name: value.double().numpy() for name, value in gaussians.state_dict().items()}
    for i in range(len(gaussians)):
        t = state["position"][i] + generator.uniform(-2.0, 2.0) * np.exp(state["log_spread"][i])
        pixel = state["center"][i] + generator.normal(size=2)
        with torch.no_grad():
            sliced = gaussians.subset(torch.tensor([i])).at(torch.tensor([t]))
        dx, dy = pixel - sliced.center[0].double().numpy()
        a, b, c = sliced.conic[0].double().numpy()
        factor = float(sliced.weight[0]) / math.exp(state["log_weight"][i])
        expected = factor * math.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy))
        ras = header.matrix @ [pixel[0], pixel[1], t * header.step_mm, 1.0]
        offset = ras[:3] * (-1, -1, 1) - [table[name][i] for name in "xyz"]
        assert math.exp(-0.5 * offset @ precision[i] @ offset) == pytest.approx(expected, rel=2e-3, abs=1e-6)


def test_higher_degrees_and_degree_zero_can_be_exported(tmp_path):
    for degree in (0, 3):
        path = tmp_path / f"{degree}.ply"
        export_ply(path, make_gaussians(degree=degree), make_header(fold=FoldSettings(degree=degree)))
        assert all(np.isfinite(column).all() for column in read_ply(path).values())
