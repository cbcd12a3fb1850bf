"""The result folder and the command line round it: which files, where in the patient, in which type, and what is refused how."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedGSLib.cli.main import main
from MedGSLib.config import InputOptions, preset_config
from MedGSLib.errors import InputError, ResourceError
from MedGSLib.io import atomic
from MedGSLib.io.meshes import read_mesh
from MedGSLib.metrics_surface import topology, volume_mm3
from MedGSLib.model_file import load_model
from MedGSLib.prior.image_config import PriorConfig
from MedGSLib.progress import ProgressEvent
from MedGSLib.reconstruct import reconstruct_files

ROOT = Path(__file__).resolve().parents[2]
SPACING, ORIGIN = (0.8, 1.0, 4.0), (11.0, -22.0, 33.0)
ANGLE = 0.4
DIRECTION = (np.cos(ANGLE), -np.sin(ANGLE), 0.0, np.sin(ANGLE), np.cos(ANGLE), 0.0, 0.0, 0.0, 1.0)
SHAPE = (7, 22, 24)
ALWAYS = {"model.medgs", "gaussians.ply", "preview.png", "report.json"}
IMAGE_FILES = {"volume.nrrd", "uncertainty.nrrd"}
MASK_FILES = {"occupancy.nrrd", "segmentation.nrrd", "mesh.vtp", "mesh.stl", "mesh.ply"}


def write(path: Path, voxels: np.ndarray, origin=ORIGIN) -> Path:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(SPACING)
    image.SetOrigin(origin)
    image.SetDirection(DIRECTION)
    sitk.WriteImage(image, str(path))
    return path


def labels_array() -> np.ndarray:
    """A ball of radius 7 mm, its half in the direction of i labelled 3, the other 1."""
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, reversed(SPACING), strict=True)), indexing="ij")
    inside = (x - 9.3) ** 2 + (y - 10.4) ** 2 + (z - 11.8) ** 2 < 49.0
    return np.where(inside, np.where(x > 9.3, 3, 1), 0).astype(np.uint8)


@pytest.fixture
def case(tmp_path) -> tuple[Path, Path]:
    labels = labels_array()
    image = 200.0 * (labels > 0) - 50.0 + np.random.default_rng(0).normal(0.0, 8.0, SHAPE)
    return write(tmp_path / "image.nrrd", image.astype(np.int16)), write(tmp_path / "mask.nrrd", (labels > 0).astype(np.uint8))


def quick(**overrides: object):
    options = {"scale": 4, "iterations": 40, "gaussians": 800, "threads": 1, "device": "cpu"} | overrides
    return replace(preset_config("fast", **options), prior=PriorConfig(method="linear"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("mode", "files"), [("joint", IMAGE_FILES | MASK_FILES), ("image", IMAGE_FILES), ("mask", MASK_FILES)])
def test_a_mode_writes_its_files_and_nothing_else(case, tmp_path, mode, files):
    out = tmp_path / "deep" / "out"
    report = reconstruct_files(*case, out, quick(mode=mode, iterations=5))
    assert names(out) == files | ALWAYS
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(report))
    assert set(report["files"]) == files | ALWAYS - {"report.json"}
    assert report["inputs"] == {"image": "image.nrrd", "mask": "mask.nrrd", "study_date": None}


def test_dense_files_lie_where_the_input_lies(case, tmp_path):
    reconstruct_files(*case, tmp_path / "out", quick(), InputOptions(margin_mm=2.0))
    source = sitk.ReadImage(str(case[0]))
    inside = np.argwhere(labels_array() > 0)
    low = np.maximum(inside.min(axis=0) - [1, 2, 3], 0)
    high = np.minimum(inside.max(axis=0) + [1, 2, 3], np.array(SHAPE) - 1)
    count = high - low + 1
    for name in ("volume.nrrd", "occupancy.nrrd", "segmentation.nrrd", "uncertainty.nrrd"):
        image = sitk.ReadImage(str(tmp_path / "out" / name))
        assert image.GetSize() == (int(count[2]), int(count[1]), int((count[0] - 1) * 4 + 1)), name
        np.testing.assert_allclose(image.GetSpacing(), (SPACING[0], SPACING[1], 1.0))
        np.testing.assert_allclose(image.GetDirection(), DIRECTION, atol=1e-9)
        np.testing.assert_allclose(image.GetOrigin(), source.TransformIndexToPhysicalPoint([int(k) for k in low[::-1]]), atol=1e-6)
    volume = sitk.ReadImage(str(tmp_path / "out" / "volume.nrrd"))
    original = sitk.GetArrayFromImage(source)[low[0] : high[0] + 1, low[1] : high[1] + 1, low[2] : high[2] + 1]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume)[::4], original)


@pytest.mark.parametrize(
    ("thickness", "words"), [(None, "8 12"), (8.0, "(averages over 8 mm, which the average of the output reproduces)")]
)
def test_the_header_says_what_the_acquired_slices_are(case, tmp_path, thickness, words):
    config = replace(quick(mode="image", iterations=3), slice_profile="auto" if thickness is None else "box")
    reconstruct_files(case[0], None, tmp_path / "out", config, InputOptions(slice_thickness_mm=thickness))
    said = sitk.ReadImage(str(tmp_path / "out" / "volume.nrrd")).GetMetaData("medgs_interpolated")
    assert said.startswith("yes; acquired output slices: 0 4 8 12") and words in said and ("averages" in said) == (thickness is not None)


def test_meshes_lie_on_the_segmentation_in_lps(case, tmp_path):
    report = reconstruct_files(*case, tmp_path / "out", quick())
    assert "SPACE=LPS" in (tmp_path / "out" / "mesh.ply").read_bytes()[:500].decode("latin-1")
    middle_lps = sitk.ReadImage(str(case[0])).TransformContinuousIndexToPhysicalPoint((9.3 / 0.8, 10.4, 11.8 / 4.0))
    for suffix in ("vtp", "stl", "ply"):
        surface = read_mesh(tmp_path / "out" / f"mesh.{suffix}")
        center = np.array(surface.GetBounds()).reshape(3, 2).mean(axis=1)
        np.testing.assert_allclose(center * (-1, -1, 1), middle_lps, atol=0.5)
        assert topology(surface).closed and topology(surface).manifold
        assert volume_mm3(surface) == pytest.approx(1000.0 * next(iter(report["segments"].values()))["volume_cm3"], rel=1e-3)
    assert read_mesh(tmp_path / "out" / "mesh.vtp").GetPointData().GetArray("PositionUncertaintyMm").GetNumberOfTuples() > 100


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_the_volume_has_the_type_of_the_input(tmp_path, dtype):
    voxels = np.clip(labels_array() * 60.0 + np.random.default_rng(0).normal(20.0, 9.0, SHAPE), 0, 255).astype(dtype)
    path = write(tmp_path / "image.nrrd", voxels)
    reconstruct_files(path, None, tmp_path / "out", quick(mode="image", iterations=3, scale=2))
    dense = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "volume.nrrd")))
    assert dense.dtype == dtype
    np.testing.assert_allclose(dense[::2].astype(float), voxels.astype(float), atol=0.0 if dtype != np.float32 else 1e-3)


def test_several_segments_get_files_of_their_own_and_one_of_all(case, tmp_path):
    mask = write(tmp_path / "labels.nrrd", labels_array())
    report = reconstruct_files(case[0], mask, tmp_path / "out", quick(iterations=60, gaussians=1500))
    first, second = sorted(report["segments"])
    of_each = [label.file_name for label in load_model(tmp_path / "out" / "model.medgs")[1].labels]
    several = {f"occupancy_{name}.nrrd" for name in of_each} | {f"mesh_{name}.vtp" for name in of_each}
    assert names(tmp_path / "out") == IMAGE_FILES | MASK_FILES | ALWAYS | several
    both = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "occupancy.nrrd")))
    segmentation = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "segmentation.nrrd")))
    assert segmentation.dtype == np.uint8 and set(np.unique(segmentation)) == {0, 1, 3}
    assert np.mean((both > 0.5) == (segmentation > 0)) > 0.995
    together = read_mesh(tmp_path / "out" / "mesh.vtp")
    assert volume_mm3(together) == pytest.approx(1000.0 * sum(report["segments"][name]["volume_cm3"] for name in (first, second)), rel=1e-3)


def test_files_of_an_earlier_run_do_not_stay_beside_those_of_a_later_one(case, tmp_path):
    out = tmp_path / "out"
    reconstruct_files(*case, out, quick(iterations=3))
    (out / "mesh_of_mine.vtp").write_text("kept")
    reconstruct_files(case[0], None, out, quick(mode="image", iterations=3))
    assert names(out) == IMAGE_FILES | ALWAYS | {"mesh_of_mine.vtp"}


@pytest.mark.parametrize("name", ["volume.nrrd", "segmentation.nrrd"])
def test_an_input_is_never_overwritten(case, tmp_path, name):
    place = 0 if name == "volume.nrrd" else 1
    inputs = list(case)
    inputs[place] = case[place].rename(tmp_path / name)
    before = inputs[place].read_bytes()
    with pytest.raises(InputError, match="overwrite"):
        reconstruct_files(*inputs, tmp_path / "x" / "..", quick(iterations=3))
    assert inputs[place].read_bytes() == before


def test_results_do_not_go_among_the_files_of_a_series(case, tmp_path):
    (tmp_path / "frames").mkdir()
    with pytest.raises(InputError, match="among the files of the input"):
        reconstruct_files(tmp_path / "frames", None, tmp_path / "frames", quick(mode="image"))
    assert not any((tmp_path / "frames").iterdir())


@pytest.mark.parametrize("successes", [0, 1, 4, 7, 9, 10])
def test_a_full_disk_leaves_no_half_file_and_no_report(case, tmp_path, monkeypatch, successes):
    out = tmp_path / "out"
    reconstruct_files(*case, out, quick(iterations=2))
    left = [successes]
    flush = os.fsync

    def full(descriptor: int) -> None:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        flush(descriptor)

    def fill_while_writing(event: ProgressEvent) -> None:
        if event.stage == "write":
            monkeypatch.setattr(atomic.os, "fsync", full)

    with pytest.raises(ResourceError, match="disk is full"):
        reconstruct_files(*case, out, quick(iterations=2, seed=1), progress=fill_while_writing)
    monkeypatch.undo()
    assert left == [0]
    assert "report.json" not in names(out)
    assert not any("partial" in name for name in names(out))
    for path in out.glob("*.nrrd"):
        sitk.ReadImage(str(path))
    load_model(out / "model.medgs")


def test_unfinished_work_is_kept_and_finished_work_leaves_no_checkpoint(case, tmp_path):
    out = tmp_path / "out"
    config = replace(quick(), checkpoint_interval_s=0.0)
    with pytest.raises(Exception, match="Cancelled"):
        reconstruct_files(*case, out, config, progress=lambda event: not (event.stage == "fit" and event.step >= 20))
    assert "checkpoint" in names(out) and "report.json" not in names(out)
    report = reconstruct_files(*case, out, config, resume=True)
    assert report["fit"]["resumed_from"] >= 20 and "checkpoint" not in names(out)
    again = reconstruct_files(*case, out, config)
    assert again["fit"]["resumed_from"] == 0


RUN_SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from MedGSLib.config import preset_config
from MedGSLib.prior.image_config import PriorConfig
from MedGSLib.reconstruct import reconstruct_files
config = preset_config("fast", scale=4, iterations=250, gaussians=800, threads=1, device="cpu")
config = replace(config, prior=PriorConfig(method="linear"), checkpoint_interval_s=0.05)
reconstruct_files(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), config)
"""


def test_a_run_killed_during_the_fit_resumes_to_the_same_result(case, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", RUN_SCRIPT, *map(str, case), str(out)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 120.0
        while not (out / "checkpoint" / "fit.safetensors").is_file():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL and "report.json" not in names(out)
    config = replace(quick(iterations=250), checkpoint_interval_s=0.05)
    report = reconstruct_files(*case, out, config, resume=True)
    assert 0 < report["fit"]["resumed_from"] < 250
    undisturbed = reconstruct_files(*case, tmp_path / "whole", config)
    assert undisturbed["fit"]["resumed_from"] == 0
    assert report["fit"]["loss"] == pytest.approx(undisturbed["fit"]["loss"], rel=1e-4)
    for name in ("occupancy.nrrd", "volume.nrrd"):
        first, second = (sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name))) for folder in (out, tmp_path / "whole"))
        np.testing.assert_allclose(first.astype(float), second.astype(float), atol=1.0 if name == "volume.nrrd" else 1e-3)


@pytest.mark.parametrize(
    ("problem", "hint"),
    [
        ("empty mask", "empty"),
        ("wrong label number", "9"),
        ("wrong label name", "liver"),
        ("mask elsewhere", "outside the image"),
        ("NaN voxels", "NaN"),
        ("one slice", "slice"),
        ("no volume", "read"),
        ("constant image", "same value"),
        ("foreign model", "not a MedGS model"),
    ],
)
def test_unusable_input_is_exit_code_2_and_one_sentence(case, tmp_path, capsys, problem, hint):
    image, mask = case
    extra: list[str] = []
    if problem == "empty mask":
        write(mask, np.zeros(SHAPE, np.uint8))
    elif problem == "wrong label number":
        extra = ["--label", "9"]
    elif problem == "wrong label name":
        extra = ["--label", "liver"]
    elif problem == "mask elsewhere":
        write(mask, (labels_array() > 0).astype(np.uint8), origin=(5000.0, 0.0, 0.0))
    elif problem == "NaN voxels":
        voxels = np.ones(SHAPE, np.float32)
        voxels[2, 3, 4] = np.nan
        write(image, voxels)
    elif problem == "one slice":
        write(image, np.random.default_rng(0).random((1, 22, 24)).astype(np.float32))
        write(mask, np.ones((1, 22, 24), np.uint8))
    elif problem == "no volume":
        image.write_bytes(b"NRRD0004\nthis is not a header")
    elif problem == "constant image":
        write(image, np.full(SHAPE, 5, np.int16))
    else:
        model = tmp_path / "model.bin"
        model.write_bytes(b"0" * 1000)
        extra, hint = ["--refine-mask", str(model)], "model.bin"
    arguments = ["--mask", str(mask), "-o", str(tmp_path / "out"), "--preset", "fast", "--device", "cpu", *extra]
    code = main(["reconstruct", str(image), *arguments])
    captured = capsys.readouterr()
    assert code == 2, captured.err
    sentences = [line for line in captured.err.splitlines() if line.strip()]
    assert len(sentences) == 1 and hint.lower() in sentences[0].lower(), captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "out" / "report.json").exists()


def test_the_command_does_the_same_as_the_library(case, tmp_path, capsys):
    options = ["--preset", "fast", "--device", "cpu", "--threads", "1", "--iterations", "40", "--gaussians", "800", "--scale", "4"]
    assert main(["reconstruct", "--mask", str(case[1]), "-o", str(tmp_path / "cli"), "--quiet", *options]) == 0
    assert capsys.readouterr().err == ""
    reconstruct_files(None, case[1], tmp_path / "api", quick(mode="mask"))
    assert names(tmp_path / "cli") == names(tmp_path / "api") == MASK_FILES | ALWAYS
    first, second = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / kind / "occupancy.nrrd"))) for kind in ("cli", "api"))
    np.testing.assert_array_equal(first, second)
