"""Folders of picture frames as stacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.io.frames import read_frames
from MedGSLib.io.stack import load_stack


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 6, 8)).astype(np.uint8)


@pytest.fixture
def dataset(tmp_path: Path, frames: np.ndarray) -> Path:
    for number, frame in enumerate(frames):
        save(tmp_path / "original" / f"{number:04d}.png", frame)
    return tmp_path


def test_frames_become_slices_in_the_order_of_their_numbers(tmp_path: Path, frames: np.ndarray) -> None:
    for number, frame in enumerate(frames):
        save(tmp_path / f"frame{number}.png", frame)
    stack = read_frames(tmp_path, spacing_mm=(0.5, 0.7, 4.0))
    assert np.array_equal(stack.image, frames)
    assert stack.occupancy is None
    assert stack.gap_mm == 4.0 and stack.pixel_mm == pytest.approx((0.7, 0.5))
    point = geometry.transform_points(stack.plane_to_ras, np.array([2.0, 3.0, 8.0]))
    assert np.allclose(point, [-1.0, -2.1, 8.0])


def test_sixteen_bits_are_kept_and_colour_becomes_grey(tmp_path: Path) -> None:
    deep = np.array([[0, 700], [40000, 65535]], dtype=np.uint16)
    for number in range(2):
        save(tmp_path / "deep" / f"{number}.png", deep)
        save(tmp_path / "colour" / f"{number}.png", np.full((4, 5, 3), (200, 200, 200), np.uint8))
    assert np.array_equal(read_frames(tmp_path / "deep").image[0], deep)
    colour = read_frames(tmp_path / "colour").image
    assert colour.shape == (2, 4, 5) and (colour == 200).all()


@pytest.mark.parametrize("folder", ["masks", "mask"])
@pytest.mark.parametrize("bright", [1, 255])
def test_masks_lie_beside_the_frames(dataset: Path, folder: str, bright: int) -> None:
    for number in (0, 3, 6, 9):
        mask = np.zeros((6, 8), np.uint8)
        mask[1:4, 2:5] = bright if number else 0
        save(dataset / folder / f"{number:04d}.png", mask)
    stack = read_frames(dataset)
    assert np.flatnonzero(stack.annotated).tolist() == [0, 3, 6, 9]
    assert stack.occupancy is not None and stack.occupancy.shape == (1, 12, 6, 8)
    assert stack.occupancy.sum(axis=(0, 2, 3)).tolist() == [0, 0, 0, 9, 0, 0, 9, 0, 0, 9, 0, 0]
    assert stack.labels[0].name == "mask"
    assert read_frames(dataset, with_masks=False).occupancy is None


def test_masks_by_ending(tmp_path: Path, frames: np.ndarray) -> None:
    for number in range(3):
        save(tmp_path / f"{number:04d}.png", frames[number])
        save(tmp_path / f"{number:04d}_mask.png", np.eye(6, 8, dtype=np.uint8) * 255)
    stack = read_frames(tmp_path)
    assert stack.image is not None and stack.image.shape[0] == 3
    assert stack.annotated.all()
    assert stack.occupancy is not None and np.array_equal(stack.occupancy[0, 1], np.eye(6, 8))


def test_folders_of_frames_are_volumes_for_the_main_job_too(dataset: Path, frames: np.ndarray) -> None:
    for number in range(12):
        save(dataset / "masks" / f"{number:04d}.png", (frames[number] > 200).astype(np.uint8) * 255)
    stack = load_stack(dataset, dataset / "masks", margin_mm=None)
    assert np.array_equal(stack.image, frames)
    assert stack.occupancy is not None and np.array_equal(stack.occupancy[0], frames > 200)


def test_what_cannot_be_used_is_told_in_one_sentence(tmp_path: Path, dataset: Path, frames: np.ndarray) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_frames(tmp_path / "nowhere")
    with pytest.raises(InputError, match="spacing of frames must be positive"):
        read_frames(dataset, spacing_mm=(1.0, 0.0, 1.0))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no frames"):
        read_frames(tmp_path / "none")
    save(tmp_path / "one" / "0.png", frames[0])
    with pytest.raises(InputError, match="1 slice along k"):
        read_frames(tmp_path / "one")
    save(dataset / "masks" / "0000.png", np.ones((3, 3), np.uint8))
    with pytest.raises(InputError, match="masks in .* differ in size"):
        read_frames(dataset)
    save(dataset / "original" / "0004.png", np.ones((3, 3), np.uint8))
    with pytest.raises(InputError, match="0004.png has 3 x 3 pixels, and 0000.png has 8 x 6"):
        read_frames(dataset)
    path = dataset / "original" / "0005.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="0005.png cannot be read"):
        read_frames(dataset)


def test_empty_masks_are_refused(dataset: Path) -> None:
    save(dataset / "masks" / "0000.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(InputError, match="mask is empty"):
        read_frames(dataset)


def test_sparse_masks_stay_with_their_frames_in_the_main_job_too(dataset: Path, frames: np.ndarray) -> None:
    for number in (0, 3, 6, 9):
        save(dataset / "drawn" / f"{number:04d}.png", (frames[number] > 200).astype(np.uint8) * 255)
    stack = load_stack(dataset, dataset / "drawn", margin_mm=None)
    assert np.flatnonzero(stack.annotated).tolist() == [0, 3, 6, 9]
    assert stack.occupancy is not None
    for number in (0, 3, 6, 9):
        assert np.array_equal(stack.occupancy[0, number], frames[number] > 200)
    assert stack.occupancy[0, [1, 2, 4, 5, 7, 8, 10, 11]].sum() == 0


@pytest.mark.parametrize("name", ["{:04d}_mask.png", "mask_{:d}.png", "{:04d}.bmp"])
def test_masks_are_known_by_name_or_number(dataset: Path, frames: np.ndarray, name: str) -> None:
    for number in (1, 5):
        save(dataset / "masks" / name.format(number), (frames[number] > 200).astype(np.uint8) * 255)
    for stack in (read_frames(dataset), load_stack(dataset, dataset / "masks", margin_mm=None)):
        assert np.flatnonzero(stack.annotated).tolist() == [1, 5]
        assert stack.occupancy is not None and np.array_equal(stack.occupancy[0, 5], frames[5] > 200)


@pytest.mark.parametrize(
    ("names", "words"), [(["0099.png"], "belongs to no frame"), (["0003.png", "3.png"], "to the same frame as 0003.png")]
)
def test_masks_of_no_frame_are_named(dataset: Path, names: list[str], words: str) -> None:
    for name in names:
        save(dataset / "masks" / name, np.full((6, 8), 255, np.uint8))
    for read in (lambda: read_frames(dataset), lambda: load_stack(dataset, dataset / "masks")):
        with pytest.raises(InputError, match=words):
            read()


def test_masks_as_pictures_of_a_volume_lie_on_its_slices(tmp_path: Path, frames: np.ndarray, plain) -> None:
    matrix = np.diag([-0.5, 0.7, 3.0, 1.0])
    matrix[:3, 3] = 40.0, -900.0, 70.0
    image = plain(tmp_path / "a.nrrd", frames, matrix)
    for number, frame in enumerate(frames):
        save(tmp_path / "masks" / f"{number}.png", (frame > 200).astype(np.uint8) * 255)
    stack = load_stack(image, tmp_path / "masks", margin_mm=None)
    assert stack.occupancy is not None and np.array_equal(stack.occupancy[0], frames > 200)
    (tmp_path / "masks" / "11.png").unlink()
    with pytest.raises(InputError, match="11 masks, and the image 12 slices"):
        load_stack(image, tmp_path / "masks")


def test_hidden_files_are_no_frames(dataset: Path, frames: np.ndarray) -> None:
    (dataset / "original" / "._0003.png").write_bytes(b"resource fork")
    assert np.array_equal(read_frames(dataset).image, frames)


def test_masks_of_several_labels_are_reported(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2:5], mask[4, 6] = 2, 1
    save(dataset / "masks" / "0000.png", mask)
    assert read_frames(dataset).occupancy.sum() == 9
    assert "hold the values 1, 2" in caplog.text
