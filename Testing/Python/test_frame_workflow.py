"""``medgs train | render | mesh`` on a small folder of frames: a tilted tube of known size."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from MedGSLib import raster
from MedGSLib.cli.main import main
from MedGSLib.cli.train import DETAILS
from MedGSLib.frame_workflow.model_folder import ModelFolder
from MedGSLib.geometry import flip_ras_lps
from MedGSLib.io.frame_files import frame_matrix
from MedGSLib.io.images import write_image
from MedGSLib.io.meshes import read_mesh
from MedGSLib.metrics_surface import roughness_deg, topology, triangles_of, volume_mm3
from MedGSLib.model_file import load_model, save_model
from MedGSLib.raster.gsplat_cuda import GsplatRasterizer
from MedGSLib.volume import Label, Volume

FRAMES, HEIGHT, WIDTH, RADIUS = 7, 36, 44, 9.0
SMALL = ["--threads", "1", "--device", "cpu", "--quiet"]
RECIPE = [*SMALL, "--preset", "fast", "--iterations", "40", "--gaussians", "700", "--interp", "2"]


def tube_centre(frame: float) -> tuple[float, float]:
    """Row and column of the tube's centre."""
    return 17.0, 18.0 + 1.2 * frame


def tube(frame: float) -> np.ndarray:
    """1 inside, 0 outside, with a soft edge of one pixel."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    row, column = tube_centre(frame)
    return np.clip(RADIUS + 0.5 - np.hypot(rows - row, columns - column), 0.0, 1.0)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tube")
    for frame in range(FRAMES):
        save(folder / "original" / f"{frame:04d}.png", np.rint(40 + 150 * tube(frame)).astype(np.uint8))
        save(folder / "masks" / f"{frame:04d}.png", (255 * (tube(frame) > 0.5)).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def joint(dataset, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    saving = ["--test_iterations", "10", "40", "--save_iterations", "20", "--checkpoint_iterations", "20", "--save_xyz", "20"]
    assert main(["train", "-s", str(dataset), "-m", str(folder), "--pipeline", "joint", *RECIPE, *saving]) == 0
    return folder


@pytest.fixture(scope="module")
def image_only(dataset, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("img")
    assert main(["train", "-s", str(dataset), "-m", str(folder), "--pipeline", "img", *RECIPE, "--checkpoint_iterations", "40"]) == 0
    return folder


def state(model: Path) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in load_model(model)[0].state_dict().items()}


def test_training_saves_what_was_asked_for(joint):
    assert ModelFolder(joint).iterations() == [20, 40]
    assert (joint / "point_cloud" / "iteration_40" / "point_cloud.ply").read_bytes().startswith(b"ply\n")
    assert [path.name for path in (joint / "checkpoints").iterdir()] == ["iteration_20.safetensors"]
    assert "checkpoints/iteration_N.safetensors" in DETAILS
    positions = np.load(joint / "xyz" / "iteration_40.npy", allow_pickle=False)
    assert positions.shape == (700, 3) and -1 < positions[:, 2].min() < 1 and FRAMES - 2 < positions[:, 2].max() < FRAMES
    with (joint / "test_metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["iteration"] for row in rows] == ["10", "40"]
    assert float(rows[1]["psnr_db"]) > max(25.0, float(rows[0]["psnr_db"])) and float(rows[1]["dice"]) > 0.95
    assert json.loads((joint / "settings.json").read_text())["pixel_maximum"] == 255


def test_frames_are_rendered_at_and_between_the_trained_ones(joint, tmp_path):
    assert main(["render", "-m", str(joint), "--interp", "3", "--chunk", "2", "-o", str(tmp_path), *SMALL]) == 0
    names = sorted(path.name for path in (tmp_path / "render_img").iterdir())
    assert names[:4] == ["00000_0.png", "00000_1.png", "00000_2.png", "00001_0.png"] and names[-1] == f"{FRAMES - 1:05d}_0.png"
    assert len(names) == 3 * (FRAMES - 1) + 1
    assert names == sorted(path.name for path in (tmp_path / "render_mask").iterdir())
    between = np.asarray(Image.open(tmp_path / "render_img" / "00002_1.png")).astype(float)
    expected = 40 + 150 * tube(2 + 1 / 3)
    assert between.shape == (HEIGHT, WIDTH) and np.abs(between - expected).mean() < 4.0
    mask = np.asarray(Image.open(tmp_path / "render_mask" / "00002_1.png")) > 127
    assert 2 * (mask & (tube(2 + 1 / 3) > 0.5)).sum() / (mask.sum() + (tube(2 + 1 / 3) > 0.5).sum()) > 0.95


def test_the_latest_model_is_that_of_the_latest_training(dataset, tmp_path, capsys):
    again = ["train", "-s", str(dataset), "-m", str(tmp_path), "--pipeline", "img", *RECIPE, "--iterations"]
    for iterations in ("12", "4"):
        assert main([*again, iterations]) == 0
    folder = ModelFolder(tmp_path)
    assert folder.model_path().parent.name == "iteration_4" and folder.iterations() == [4, 12]
    assert folder.model_path("12").parent.name == "iteration_12"
    settings = json.loads(folder.settings_path.read_text())
    folder.write_settings({"pixel_maximum": 255})
    assert main(["render", "-m", str(tmp_path), *SMALL]) == 2
    assert "--iteration: 4, 12" in capsys.readouterr().err
    del settings["latest_iteration"]
    folder.settings_path.write_text(json.dumps(settings))
    assert folder.model_path().parent.name == "iteration_12", "folders of earlier versions do not name it"


def test_one_head_another_extension_and_an_earlier_iteration(joint, tmp_path):
    line = ["render", "-m", str(joint), "--iteration", "20", "--render", "mask", "--extension", ".TIF", "-o", str(tmp_path), *SMALL]
    assert main(line) == 0
    assert not (tmp_path / "render_img").exists()
    assert len(list((tmp_path / "render_mask").glob("*_0.tif"))) == FRAMES


def test_the_mesh_has_the_tube_s_place_and_size(joint, tmp_path):
    path = tmp_path / "tube.ply"
    assert main(["mesh", "-m", str(joint), "--interp", "2", "--spacing", "0.5", "0.5", "2", "-o", str(path), *SMALL]) == 0
    surface = read_mesh(path)
    shape = topology(surface)
    assert shape.closed and shape.manifold
    # The surface is closed half a rendered slice beyond the first and the last frame.
    assert volume_mm3(surface) == pytest.approx(np.pi * (0.5 * RADIUS) ** 2 * ((FRAMES - 1) * 2 + 1), rel=0.05)
    points = flip_ras_lps(triangles_of(surface)[0])
    middle = tube_centre((FRAMES - 1) / 2)
    assert points.mean(axis=0) == pytest.approx([0.5 * middle[1], 0.5 * middle[0], FRAMES - 1], abs=0.6)


def test_the_spacing_may_come_from_a_volume(joint, tmp_path):
    reference = tmp_path / "scan.nii.gz"
    write_image(reference, Volume(np.zeros((FRAMES, HEIGHT, WIDTH), np.int16), frame_matrix((0.5, 0.5, 2.0))))
    outputs = [tmp_path / "a.ply", tmp_path / "b.ply"]
    for output, spacing in zip(outputs, (["--spacing", "0.5", "0.5", "2"], ["--spacing-from", str(reference)])):
        assert main(["mesh", "-m", str(joint), *spacing, "-o", str(output), *SMALL]) == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_another_spacing_keeps_origin_and_directions(joint, tmp_path):
    gaussians, header = load_model(ModelFolder(joint).model_path())
    turned = np.array([[0.0, 0.0, 1.0, 50.0], [-1.0, 0.0, 0.0, -60.0], [0.0, 1.0, 0.0, 700.0], [0.0, 0.0, 0.0, 1.0]])
    save_model(tmp_path / "model.medgs", gaussians, replace(header, plane_to_ras=turned.tolist()))
    gap = float(np.median(np.diff(header.acquired_mm)))
    spacings = [], ["--spacing", "1", "1", str(gap)], ["--spacing", "0.5", "0.5", str(0.5 * gap)]
    meshes = []
    for number, spacing in enumerate(spacings):
        path = tmp_path / f"{number}.vtp"
        assert main(["mesh", "-m", str(tmp_path / "model.medgs"), "--interp", "2", *spacing, "-o", str(path), *SMALL]) == 0
        meshes.append(triangles_of(read_mesh(path))[0])
    np.testing.assert_allclose(meshes[1], meshes[0], atol=1e-3)
    np.testing.assert_allclose(meshes[2], turned[:3, 3] + 0.5 * (meshes[0] - turned[:3, 3]), atol=1e-3)


@pytest.mark.parametrize(
    ("value", "extension", "fits"), [(1004, "png", True), (1004, "jpg", False), (70000, "png", False), (7, "bmp", True)]
)
def test_a_model_file_is_rendered_beside_itself_with_the_values_of_its_segments(value, extension, fits, joint, tmp_path, capsys):
    gaussians, header = load_model(ModelFolder(joint).model_path())
    two_masks = replace(header, window=None, labels=(Label(3, "a"), Label(value, "b")))
    save_model(tmp_path / "model.medgs", gaussians, two_masks)
    assert main(["render", "-m", str(tmp_path / "model.medgs"), "--extension", extension, *SMALL]) == (0 if fits else 2)
    if fits:
        assert value in np.asarray(Image.open(tmp_path / "render_mask" / f"00003_0.{extension}"))
    else:
        assert f"{value}, and {extension} files" in capsys.readouterr().err and not (tmp_path / "render_mask").exists()


def test_smoothing_keeps_the_volume_and_lessens_the_roughness(joint, tmp_path):
    surfaces = []
    for passes in ("0", "20"):
        path = tmp_path / f"{passes}.ply"
        assert main(["mesh", "-m", str(joint), "--interp", "2", "--smooth", passes, "-o", str(path), *SMALL]) == 0
        surfaces.append(read_mesh(path))
    assert volume_mm3(surfaces[1]) == pytest.approx(volume_mm3(surfaces[0]), rel=0.02)
    assert roughness_deg(surfaces[1]) < roughness_deg(surfaces[0])


def test_a_higher_threshold_gives_a_smaller_mesh(joint, tmp_path):
    volumes = []
    for threshold in ("0.3", "0.7"):
        path = tmp_path / f"{threshold}.vtp"
        assert main(["mesh", "-m", str(joint), "--threshold", threshold, "-o", str(path), *SMALL]) == 0
        volumes.append(volume_mm3(read_mesh(path)))
    assert volumes[1] < 0.98 * volumes[0]


def test_a_checkpoint_continues_to_the_same_result(joint, dataset, tmp_path):
    checkpoint = joint / "checkpoints" / "iteration_20.safetensors"
    assert main(["train", "-s", str(dataset), "-m", str(tmp_path), *RECIPE, "--start_checkpoint", str(checkpoint)]) == 0
    straight, continued = (state(ModelFolder(folder).model_path()) for folder in (joint, tmp_path))
    for name, values in straight.items():
        np.testing.assert_allclose(continued[name], values, atol=1e-4, err_msg=name)


class UnusedGpu(GsplatRasterizer):
    """A GPU that is there, and whose kernels must not be asked for anything."""

    def __init__(self, blending: str | None = None) -> None:
        super().__init__(kernels=SimpleNamespace(), device="cpu", blending=blending)


def test_a_model_made_on_a_cpu_is_used_on_the_cpu_of_a_machine_with_a_gpu(joint, dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(raster, "GsplatRasterizer", UnusedGpu)
    auto = ["--threads", "1", "--device", "auto"]
    checkpoint = ["--start_checkpoint", str(joint / "checkpoints" / "iteration_20.safetensors")]
    again = ["train", "-s", str(dataset), "-m", str(tmp_path), *RECIPE, *checkpoint, "--iterations", "21"]
    for line in (["render", "-m", str(joint), "-o", str(tmp_path)], ["mesh", "-m", str(joint), "-o", str(tmp_path / "a.ply")], again):
        assert main([*line, *auto]) == 0, capsys.readouterr().err
    assert main(["render", "-m", str(joint), "-o", str(tmp_path), "--device", "cuda"]) != 0
    assert "the CPU can" in capsys.readouterr().err


def test_an_image_only_checkpoint_starts_a_joint_run(image_only, dataset, tmp_path):
    checkpoint = image_only / "checkpoints" / "iteration_40.safetensors"
    assert main(["train", "-s", str(dataset), "-m", str(tmp_path), *RECIPE, "--start_checkpoint", str(checkpoint)]) == 0
    gaussians, header = load_model(ModelFolder(tmp_path).model_path())
    assert gaussians.channels == 2 and header.has_image and [label.name for label in header.labels] == ["mask"]


def test_the_mask_head_alone_leaves_the_geometry_as_it_is(image_only, dataset, tmp_path):
    start = ModelFolder(image_only).model_path()
    line = ["train", "-s", str(dataset), "-m", str(tmp_path), "--pipeline", "seg", "--mask_only", "--start_checkpoint", str(start), *RECIPE]
    assert main([*line, "--test_iterations", "40"]) == 0
    before, after = state(start), state(ModelFolder(tmp_path).model_path())
    for name in before:
        if name != "values":
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    np.testing.assert_array_equal(after["values"][:, 0], before["values"][:, 0])
    with (tmp_path / "test_metrics.csv").open() as stream:
        assert float(next(csv.DictReader(stream))["dice"]) > 0.9


def test_masks_alone_and_frames_without_a_mask(dataset, tmp_path):
    sparse = tmp_path / "sparse"
    for path in (dataset / "original").iterdir():
        save(sparse / "original" / path.name, np.asarray(Image.open(path)))
    for frame in (0, 2, 4, 6):
        save(sparse / "mask" / f"{frame:04d}.png", (tube(frame) > 0.5).astype(np.uint8))
    assert main(["train", "-s", str(sparse), "-m", str(tmp_path / "seg"), "--pipeline", "seg", *RECIPE]) == 0
    settings = json.loads((tmp_path / "seg" / "settings.json").read_text())
    assert settings["frames"] == FRAMES and settings["annotated"] == 4
    assert main(["render", "-m", str(tmp_path / "seg"), *SMALL]) == 0
    mask = np.asarray(Image.open(tmp_path / "seg" / "render_mask" / "00003_0.png")) > 127
    truth = tube(3) > 0.5
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9
    assert not (tmp_path / "seg" / "render_img").exists()


def test_the_published_recipe_and_its_options_arrive(dataset, tmp_path):
    recipe = ["--preset", "paper", "--iterations", "30", "--gaussians", "400", "--poly_degree", "2", "--batch_size", "3"]
    line = ["train", "-s", str(dataset), "-m", str(tmp_path), *recipe, "--random_background", "--lambda_img", "0.5", "--lambda_seg", "2"]
    assert main([*line, *SMALL]) == 0
    header = load_model(ModelFolder(tmp_path).model_path())[1]
    assert (header.preset, header.fold.degree, header.fold.fold, header.fold.blending) == ("paper", 2, "shrink", "alpha")
    training = json.loads((tmp_path / "settings.json").read_text())["training"]
    assert (training["slices_per_step"], training["random_background"], training["initialization"]) == (3, True, "random")
    assert (training["image_loss_weight"], training["mask_loss_weight"], training["blends"]["first_iteration"]) == (0.5, 2.0, 10)


def test_sixteen_bit_frames_keep_their_depth(tmp_path):
    source = tmp_path / "data"
    for frame in range(3):
        save(source / "original" / f"{frame}.png", np.rint(1000 + 30000 * tube(frame)).astype(np.uint16))
    assert main(["train", "-s", str(source), "-m", str(tmp_path / "m"), "--pipeline", "img", *RECIPE]) == 0
    assert main(["render", "-m", str(tmp_path / "m"), *SMALL]) == 0
    rendered = np.asarray(Image.open(tmp_path / "m" / "render_img" / "00001_0.png")).astype(float)
    assert np.abs(rendered - (1000 + 30000 * tube(1))).mean() < 1500


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["train", "-s", "{data}", "-m", "{tmp}", "--mask_only"], "start_checkpoint"),
        (["train", "-s", "{data}", "-m", "{tmp}", "--start_checkpoint", "{data}/masks/0000.png"], "0000.png"),
        (
            [
                "train",
                "-s",
                "{data}",
                "-m",
                "{tmp}",
                "--start_checkpoint",
                "{joint}/checkpoints/iteration_20.safetensors",
                "--interp",
                "2",
                "--iterations",
                "20",
                "--preset",
                "fast",
            ],
            "iteration 20",
        ),
        (
            [
                "train",
                "-s",
                "{data}",
                "-m",
                "{tmp}",
                "--start_checkpoint",
                "{joint}/checkpoints/iteration_20.safetensors",
                "--interp",
                "1",
                "--preset",
                "fast",
            ],
            "--interp",
        ),
        (["train", "-s", "{data}/masks", "-m", "{tmp}", "--pipeline", "joint"], "no masks"),
        (["train", "-s", "{tmp}", "-m", "{tmp}", "--pipeline", "img"], "no frames"),
        (["render", "-m", "{tmp}"], "no trained model"),
        (["render", "-m", "{joint}", "--iteration", "7"], "saved: 20, 40"),
        (["render", "-m", "{img}", "--render", "mask"], "no mask head"),
        (["mesh", "-m", "{img}", "-o", "{tmp}/a.ply"], "no mask head"),
        (["mesh", "-m", "{joint}", "-o", "{tmp}/a.obj"], ".ply"),
        (["mesh", "-m", "{joint}", "--label", "aorta", "-o", "{tmp}/a.ply"], "no mask 'aorta'"),
        (["mesh", "-m", "{joint}", "--spacing-from", "{data}/original/0000.png", "-o", "{tmp}/a.ply"], ""),
    ],
)
def test_mistakes_are_one_sentence(command, sentence, dataset, joint, image_only, tmp_path, capsys):
    places = {"data": str(dataset), "joint": str(joint), "img": str(image_only), "tmp": str(tmp_path)}
    assert main([part.format(**places) for part in command]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("medgs: ") == 1 and "Traceback" not in err
