"""Reading volumes: types, orientations, and one sentence for whatever cannot be used."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import SimpleITK as sitk

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.io.volumes import parse_positions, read_volume
from MedGSLib.volume import Volume

Plain = Callable[..., Path]
PLACE = np.diag([-1.0, -1.0, 3.0, 1.0])


def one_sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and ". " not in text.replace("e.g. ", "")
    assert error.value.exit_code == 2
    return text


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha", ".mhd"])
def test_values_and_places_survive_in_every_orientation(oriented: Volume, tmp_path: Path, plain: Plain, suffix: str) -> None:
    volume = read_volume(plain(tmp_path / f"a{suffix}", oriented.voxels, oriented.ijk_to_ras))
    assert volume.voxels.dtype == np.int16
    assert np.array_equal(volume.voxels, oriented.voxels)
    assert np.allclose(volume.ijk_to_ras, oriented.ijk_to_ras, atol=1e-4)
    assert volume.positions_mm is None


def test_nifti_places_agree_with_nibabel(oriented: Volume, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(oriented.voxels.transpose(2, 1, 0), oriented.ijk_to_ras), tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert np.array_equal(volume.voxels, oriented.voxels)
    assert np.allclose(volume.ijk_to_ras, oriented.ijk_to_ras, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_types_are_kept(tmp_path: Path, plain: Plain, dtype: type) -> None:
    voxels = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    volume = read_volume(plain(tmp_path / "a.nrrd", voxels, PLACE))
    assert volume.voxels.dtype == dtype
    assert np.array_equal(volume.voxels, voxels)


def test_an_nrrd_in_ras_space_with_thickness(tmp_path: Path) -> None:
    header = (
        "NRRD0004\ntype: uint8\ndimension: 3\nspace: right-anterior-superior\nsizes: 4 3 2\nspace directions: (2,0,0) (0,3,0) (0,0,4)\n"
        "thicknesses: nan nan 3.5\nencoding: raw\nspace origin: (5,6,7)\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + bytes(range(24)))
    volume = read_volume(tmp_path / "a.nrrd")
    assert np.array_equal(volume.ijk_to_ras, [[2, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    assert volume.meta["slice_thickness_mm"] == "3.5"


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((1, 3, 4, 5), np.int16), isVector=False), tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.nii").voxels.shape == (3, 4, 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("count", "words"), [(1, "1 voxel without"), (3, "3 voxels without")])
def test_voxels_that_are_not_finite_are_counted(tmp_path: Path, plain: Plain, bad: float, count: int, words: str) -> None:
    voxels = np.zeros((3, 4, 5), dtype=np.float32)
    voxels.ravel()[:count] = bad
    with pytest.raises(InputError, match=words) as error:
        read_volume(plain(tmp_path / "a.nrrd", voxels, PLACE))
    one_sentence(error)


def test_values_beyond_single_precision(tmp_path: Path, plain: Plain) -> None:
    with pytest.raises(InputError, match="too large to compute with") as error:
        read_volume(plain(tmp_path / "a.nrrd", np.full((3, 4, 5), -1e300), PLACE))
    one_sentence(error)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist") as error:
        read_volume(tmp_path / "nowhere.nrrd")
    one_sentence(error)


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii.gz", "a.txt"])
def test_a_file_that_is_no_volume(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"what is this")
    with pytest.raises(InputError, match="cannot be read") as error:
        read_volume(tmp_path / name)
    one_sentence(error)


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii", "a.nii.gz", "a.mha"])
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_truncated_file(tmp_path: Path, plain: Plain, name: str, kept: float) -> None:
    path = plain(tmp_path / name, np.random.default_rng(0).integers(0, 9999, (9, 30, 40)).astype(np.int16), PLACE)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match="damaged|incomplete") as error:
        read_volume(path)
    one_sentence(error)


def test_a_gzip_of_several_members_is_no_truncated_file(tmp_path: Path, plain: Plain) -> None:
    voxels = np.random.default_rng(0).integers(0, 9999, (4, 5, 6)).astype(np.int16)
    content = plain(tmp_path / "a.nii", voxels, PLACE).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz").voxels, voxels)


def test_a_big_endian_nifti_is_read_and_checked(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    voxels = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    image = nibabel.Nifti1Image(voxels, np.eye(4), nibabel.Nifti1Header(endianness=">"))
    nibabel.save(image, tmp_path / "a.nii")
    assert np.array_equal(read_volume(tmp_path / "a.nii").voxels.transpose(2, 1, 0), voxels)
    (tmp_path / "a.nii").write_bytes((tmp_path / "a.nii").read_bytes()[:-1])
    with pytest.raises(InputError, match="incomplete"):
        read_volume(tmp_path / "a.nii")


def test_a_nifti_that_contradicts_itself_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([1.0, 1.0, 3.0, 1.0]))
    nibabel.save(image, tmp_path / "a.nii.gz")
    read_volume(tmp_path / "a.nii.gz")
    assert not caplog.records
    moved = np.diag([1.0, 1.0, 3.0, 1.0])
    moved[2, 3] = 2.0
    image.set_qform(moved)
    nibabel.save(image, tmp_path / "a.nii.gz")
    read_volume(tmp_path / "a.nii.gz")
    assert "differ by up to 2 mm" in caplog.text


def test_a_nifti_whose_spacing_contradicts_its_matrix_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.set_sform(np.diag([1.0, 1.0, 3.0, 1.0]), 1)
    image.header["qform_code"] = 0
    nibabel.save(image, tmp_path / "a.nii")
    read_volume(tmp_path / "a.nii")
    assert "differ by up to 10 mm" in caplog.text


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_second_nifti_format_is_named(tmp_path: Path, name: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti2Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / name)
    with pytest.raises(InputError, match="NIfTI-2") as error:
        read_volume(tmp_path / name)
    one_sentence(error)


def test_a_sheared_nrrd(tmp_path: Path) -> None:
    header = (
        "NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 3 2\n"
        "space directions: (1,0,0) (0,1,0) (0,0.6,4)\nencoding: raw\nspace origin: (0,0,0)\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + bytes(24))
    with pytest.raises(InputError, match="right angles") as error:
        read_volume(tmp_path / "a.nrrd")
    one_sentence(error)


def test_a_sheared_nifti(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    matrix = np.eye(4)
    matrix[1, 2] = 0.4
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), matrix)
    image.set_qform(None, code=0)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(InputError, match="right angles") as error:
        read_volume(tmp_path / "a.nii")
    one_sentence(error)


def test_a_time_series(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((7, 3, 4, 5), np.int16), isVector=False), tmp_path / "a.nii")
    with pytest.raises(InputError, match="7 volumes") as error:
        read_volume(tmp_path / "a.nii")
    one_sentence(error)


@pytest.mark.parametrize("voxels", [np.ones((3, 4, 5, 3), np.uint8), np.ones((3, 4, 5), np.complex64)])
def test_several_values_a_voxel(tmp_path: Path, voxels: np.ndarray) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(voxels, isVector=voxels.ndim == 4), tmp_path / "a.nii")
    with pytest.raises(InputError, match="several values per voxel") as error:
        read_volume(tmp_path / "a.nii")
    one_sentence(error)


def test_a_flat_picture(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5), np.uint8)), tmp_path / "a.png")
    with pytest.raises(InputError, match="single flat picture") as error:
        read_volume(tmp_path / "a.png")
    one_sentence(error)


def test_positions_move_the_slices(tmp_path: Path, plain: Plain) -> None:
    path = plain(tmp_path / "a.nrrd", np.ones((4, 5, 6), np.int16), PLACE)
    volume = read_volume(path, positions=[5.0, 7.0, 9.0, 14.0])
    assert np.array_equal(volume.positions_mm, [0.0, 2.0, 4.0, 9.0])
    assert geometry.spacing(volume.ijk_to_ras)[2] == pytest.approx(2.0)
    with pytest.raises(InputError, match="4 slices along k, and 2 slice positions") as error:
        read_volume(path, positions="1,2")
    one_sentence(error)


def test_positions_from_text_and_file(tmp_path: Path) -> None:
    file = tmp_path / "positions.txt"
    file.write_text("0\n2.5\n5, 9\n")
    for given in ("0, 2.5 5;9", file, str(file), (0, 2.5, 5, 9), np.array([0, 2.5, 5, 9])):
        assert np.array_equal(parse_positions(given), [0.0, 2.5, 5.0, 9.0])
    assert parse_positions(None) is None
    assert len(parse_positions(",".join(str(3 * number) for number in range(500)))) == 500
    with pytest.raises(InputError, match="'x' is none") as error:
        parse_positions("0,x")
    one_sentence(error)
    with pytest.raises(InputError, match="does not exist"):
        parse_positions(tmp_path / "nowhere.txt")


@pytest.mark.parametrize(
    "case", ["mr_sarcoma_sts001/t1_image.nrrd", "mr_spine_sct/t2s_image.nii.gz", "ct_lung_longitudinal_elastix/t1_image.mha"]
)
def test_real_volumes(shared_data: Path, case: str) -> None:
    volume = read_volume(shared_data / case)
    image = sitk.ReadImage(str(shared_data / case))
    index = [size // 2 for size in image.GetSize()]
    point = geometry.flip_ras_lps(geometry.transform_points(volume.ijk_to_ras, np.array(index)))
    assert np.allclose(point, image.TransformIndexToPhysicalPoint(index))
    assert volume.voxels[index[2], index[1], index[0]] == image.GetPixel(index)
