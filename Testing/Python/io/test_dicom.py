"""DICOM series: positions from the headers, and one sentence for what is no single stack."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np
import pytest

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.io import dicom
from MedGSLib.io.stack import load_stack
from MedGSLib.io.volumes import read_volume

pytest.importorskip("pydicom")
Series = Callable[..., tuple[Path, np.ndarray, np.ndarray]]


def test_slices_are_sorted_by_position_and_placed(dicom_series: Series) -> None:
    folder, pixels, origins = dicom_series([0.0, 3.0, 6.0, 9.0, 12.0])
    volume = read_volume(folder)
    assert np.array_equal(volume.voxels, pixels)
    assert volume.positions_mm is None
    assert np.allclose(geometry.spacing(volume.ijk_to_ras), [0.75, 1.5, 3.0], atol=1e-4)
    for k, origin in enumerate(origins):
        assert np.allclose(geometry.flip_ras_lps(geometry.transform_points(volume.ijk_to_ras, np.array([0, 0, k]))), origin, atol=1e-3)
    expected = {"slice_thickness_mm": "2.5", "study_date": "20240131", "modality": "CT", "patient_id": "P7"}
    assert expected.items() <= volume.meta.items()


def test_slices_in_descending_order_end_up_ascending_along_the_normal(dicom_series: Series) -> None:
    folder, pixels, origins = dicom_series([0.0, -3.0, -6.0])
    volume = read_volume(folder)
    assert np.array_equal(volume.voxels, pixels[::-1])
    assert np.allclose(geometry.flip_ras_lps(volume.ijk_to_ras[:3, 3]), origins[-1], atol=1e-3)


def test_irregular_positions_are_kept_and_reported(dicom_series: Series, caplog: pytest.LogCaptureFixture) -> None:
    positions = [0.0, 3.0, 6.0, 10.5, 13.5, 16.5]
    folder, pixels, origins = dicom_series(positions)
    volume = read_volume(folder)
    assert np.allclose(volume.positions_mm, positions, atol=1e-3)
    assert "spaced irregularly (3 to 4.5 mm)" in caplog.text
    stack = load_stack(folder, None)
    assert stack.slice_thickness_mm == 2.5
    assert stack.image is not None and np.array_equal(stack.image, pixels)
    for s, origin in enumerate(origins):
        place = geometry.transform_points(stack.plane_to_ras, np.array([0.0, 0.0, stack.positions_mm[s]]))
        assert np.allclose(geometry.flip_ras_lps(place), origin, atol=1e-3)


def test_rounded_positions_count_as_regular(dicom_series: Series) -> None:
    folder, *_ = dicom_series([0.0, 3.001, 5.999, 9.0])
    assert read_volume(folder).positions_mm is None


def test_irregular_slices_cannot_be_stacked_along_another_axis(dicom_series: Series) -> None:
    folder, *_ = dicom_series([0.0, 3.0, 6.0, 10.5])
    with pytest.raises(InputError, match="cannot be stacked along 'i'"):
        load_stack(folder, None, axis="i")


def test_several_series_are_listed_and_one_file_picks_its_own(dicom_series: Series) -> None:
    folder, pixels, _ = dicom_series([0.0, 3.0, 6.0])
    dicom_series([0.0, 5.0], series="2")
    with pytest.raises(InputError, match="2 DICOM series .*'series 1' with 3 images.*'series 2' with 2 images.*name one file"):
        read_volume(folder)
    assert np.array_equal(read_volume(folder / "1_0.dcm").voxels, pixels)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="holds no DICOM images"):
        read_volume(tmp_path)


def test_two_images_at_one_position(dicom_series: Series) -> None:
    folder, *_ = dicom_series([0.0, 3.0, 3.0, 6.0])
    with pytest.raises(InputError, match="several images at the same position"):
        read_volume(folder)


def test_a_tilted_gantry(dicom_series: Series) -> None:
    normal = np.array([0.0, 0.3, 1.0]) / np.hypot(0.3, 1.0)
    folder, *_ = dicom_series([0.0, 3.0, 6.0], direction=np.eye(3), tilt=normal)
    with pytest.raises(InputError, match="tilted gantry"):
        read_volume(folder)


def test_a_localizer_among_the_slices(dicom_series: Series) -> None:
    folder, *_ = dicom_series([0.0, 3.0, 6.0], direction=np.eye(3))
    (folder / "1_0.dcm").unlink()
    from_other = np.eye(3)[:, [1, 2, 0]]
    moved, *_ = dicom_series([40.0], direction=from_other)
    assert moved == folder
    with pytest.raises(InputError, match="differ in direction"):
        read_volume(folder)


def test_images_of_several_sizes(dicom_series: Series) -> None:
    folder, *_ = dicom_series([0.0, 3.0, 6.0])
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.dcmread(folder / "1_1.dcm")
    data.Rows, data.PixelData = 3, data.PixelData[: 3 * 8 * 2]
    data.save_as(folder / "1_1.dcm")
    with pytest.raises(InputError, match="differ in size"):
        read_volume(folder)


def test_a_damaged_image_is_reported_and_leaves_its_gap(dicom_series: Series, caplog: pytest.LogCaptureFixture) -> None:
    folder, *_ = dicom_series([0.0, 3.0, 6.0, 9.0])
    names = [name for name in sorted(folder.iterdir()) if b"1.2.826.0.1.3680043.8.498.1.2" in name.read_bytes()]
    names[0].write_bytes(names[0].read_bytes()[:-60])
    volume = read_volume(folder)
    assert np.allclose(volume.positions_mm, [0.0, 6.0, 9.0], atol=1e-3)
    assert f"1 DICOM files in {folder} are damaged" in caplog.text and names[0].name in caplog.text


def test_a_single_damaged_file(dicom_series: Series) -> None:
    folder, *_ = dicom_series([0.0])
    path = folder / "1_0.dcm"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match="1_0.dcm cannot be read"):
        read_volume(path)


def test_a_series_of_one_image_is_a_single_slice(dicom_series: Series) -> None:
    folder, *_ = dicom_series([0.0])
    with pytest.raises(InputError, match="single slice"):
        load_stack(folder, None)


def placed_exactly(folder: Path, origins: np.ndarray) -> None:
    stack = load_stack(folder, None, axis="k")
    for s, origin in enumerate(origins):
        place = geometry.transform_points(stack.plane_to_ras, np.array([0.0, 0.0, stack.positions_mm[s]]))
        assert np.allclose(geometry.flip_ras_lps(place), origin, atol=1e-3)


@pytest.mark.parametrize("degrees", [0.1, 0.55])
def test_a_slight_tilt_moves_no_slice(dicom_series: Series, degrees: float) -> None:
    tilt = np.array([0.0, np.sin(np.radians(degrees)), np.cos(np.radians(degrees))])
    folder, pixels, origins = dicom_series(list(np.arange(40) * 3.0), direction=np.eye(3), tilt=tilt)
    placed_exactly(folder, origins)
    assert np.array_equal(read_volume(folder).voxels, pixels)


def test_slices_shifted_sideways_are_refused() -> None:
    slices = []
    for sideways, along in [(0.0, 0.0), (0.0, 3.0), (0.7, 6.0), (0.0, 9.0), (0.0, 12.0)]:
        matrix = np.eye(4)
        matrix[:3, 3] = sideways, 0.0, along
        slices.append(dicom.Slice(np.zeros((1, 4, 5)), matrix, {}))
    with pytest.raises(InputError, match="sideways against each other by 0.7 mm"):
        dicom.stack_slices(slices, Path("series"))


def test_copies_of_an_image_are_left_out(dicom_series: Series, caplog: pytest.LogCaptureFixture) -> None:
    folder, pixels, _ = dicom_series([0.0, 3.0, 6.0])
    (folder / "copy.dcm").write_bytes((folder / "1_1.dcm").read_bytes())
    assert np.array_equal(read_volume(folder).voxels, pixels)
    assert "Copies of other images" in caplog.text


def test_missing_slices_are_counted(dicom_series: Series, caplog: pytest.LogCaptureFixture) -> None:
    folder, _, origins = dicom_series([0.0, 3.0, 6.0, 15.0, 18.0])
    placed_exactly(folder, origins)
    assert "Slices seem to be missing" in caplog.text and ": 2 (gaps of 3 to 9 mm)" in caplog.text


@pytest.mark.parametrize(
    "positions", [[0.0, 3.0, 6.0, 9.0], [9.0, 6.0, 3.0, 0.0], [6.0, 0.0, 9.0, 3.0], [0.0, 3.0, 9.0, 12.0], [0.0, 3.0, 7.5, 9.0]]
)
@pytest.mark.parametrize("scaled", [False, True])
def test_the_frames_of_an_enhanced_file_lie_where_each_says(
    tmp_path: Path, enhanced_mr: Callable[..., None], positions: list[float], scaled: bool
) -> None:
    pixels = np.random.default_rng(1).integers(0, 4000, (len(positions), 6, 8))
    origins = np.array([10.0, -20.0, 30.0]) + np.outer(positions, [0.0, 0.0, 1.0])
    scaling = [(2.0 + number, -5.0 * number) if scaled else (1.0, 0.0) for number in range(len(positions))]
    enhanced_mr(tmp_path / "e.dcm", pixels, origins, scaling)
    order = np.argsort(positions)
    values = np.stack([frame * slope + intercept for frame, (slope, intercept) in zip(pixels, scaling, strict=True)])
    for path in (tmp_path, tmp_path / "e.dcm"):
        volume = read_volume(path)
        assert np.array_equal(volume.voxels, values[order])
        assert volume.meta["slice_thickness_mm"] == "2.5"
        placed_exactly(path, origins[order])


def test_an_enhanced_file_of_several_time_points(tmp_path: Path, enhanced_mr: Callable[..., None]) -> None:
    origins = np.outer([0.0, 3.0, 6.0, 0.0, 3.0, 6.0], [0.0, 0.0, 1.0])
    enhanced_mr(tmp_path / "e.dcm", np.arange(6 * 48).reshape(6, 6, 8), origins, [(1.0, 0.0)] * 6)
    with pytest.raises(InputError, match="several images at the same position"):
        read_volume(tmp_path)


def test_slices_that_a_mask_has_no_file_for_are_empty(
    dicom_series: Series, mask_series: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    image, *_ = dicom_series([3.0 * number for number in range(12)])
    mask = mask_series("mask", [9.0, 12.0, 15.0, 24.0, 27.0])
    stack = load_stack(image, mask, margin_mm=None)
    assert stack.occupancy is not None and np.flatnonzero(stack.occupancy[0].any(axis=(1, 2))).tolist() == [3, 4, 5, 8, 9]
    assert "no file for 2 of its slices" in caplog.text
    alone = load_stack(None, mask, margin_mm=None)
    assert alone.occupancy is not None and alone.occupancy[0].any(axis=(1, 2)).tolist() == [True] * 3 + [False] * 2 + [True] * 2
    assert np.allclose(alone.positions_mm, 3.0 * np.arange(7), atol=1e-3)


def test_an_irregular_mask_belongs_to_slices_at_the_same_places_only(dicom_series: Series, mask_series: Callable[..., Path]) -> None:
    places = [0.0, 3.0, 7.1, 11.3, 14.0]
    image, *_ = dicom_series(places)
    stack = load_stack(image, mask_series("mask", places), margin_mm=None)
    assert stack.occupancy is not None and stack.occupancy[0].any(axis=(1, 2)).all()
    with pytest.raises(InputError, match="are not those of the image"):
        load_stack(image, mask_series("other", [0.0, 3.0, 7.1, 12.9, 14.0]), margin_mm=None)
