"""Dense results lie where the input lay, whatever its orientation, for every reader."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedGSLib import geometry
from MedGSLib.errors import InputError, ResourceError
from MedGSLib.io import images
from MedGSLib.io.labels import read_labels
from MedGSLib.io.stack import build_stack
from MedGSLib.io.volumes import read_volume
from MedGSLib.io.writers import dense_volume, to_type, write_segmentation, write_volume
from MedGSLib.volume import Label, SliceStack, Volume

SCALE = 3


@pytest.fixture(params=["auto", "i", "j", "k"])
def stack(oriented: Volume, request: pytest.FixtureRequest) -> SliceStack:
    mask = np.zeros(oriented.voxels.shape, np.uint8)
    mask[6:14, 9:14, 5:13] = 4
    return build_stack(oriented, Volume(mask, oriented.ijk_to_ras), [Label(4, "aorta", (1.0, 0.5, 0.0))], axis=request.param, margin_mm=4.0)


@pytest.fixture
def one_stack() -> SliceStack:
    voxels = np.random.default_rng(0).integers(-99, 99, (6, 8, 10)).astype(np.int16)
    mask = np.zeros(voxels.shape, np.uint8)
    mask[2:4, 3:6, 3:7] = 4
    place = np.diag([-0.5, -0.5, 2.0, 1.0])
    return build_stack(Volume(voxels, place), Volume(mask, place), [Label(4, "aorta")])


def dense(stack: SliceStack) -> np.ndarray:
    """Each slice SCALE times, so that every output voxel has the value of the slice at or before it."""
    assert stack.image is not None
    return np.repeat(stack.image, SCALE, axis=0)[: (stack.shape[0] - 1) * SCALE + 1]


def source_values(points_ras: np.ndarray, volume: Volume, axis: int) -> np.ndarray:
    """Values of the source volume at RAS points, in-plane exact, along the stack of the slice at or before."""
    ijk = geometry.transform_points(np.linalg.inv(volume.ijk_to_ras), points_ras)
    in_plane = [a for a in range(3) if a != axis]
    assert np.abs(ijk[:, in_plane] - np.round(ijk[:, in_plane])).max() < 2e-3
    ijk[:, in_plane] = np.round(ijk[:, in_plane])
    ijk[:, axis] = np.floor(ijk[:, axis] + 0.05)
    i, j, k = ijk.astype(int).T
    return volume.voxels[k, j, i]


def test_simpleitk_finds_every_value_at_its_point(oriented: Volume, stack: SliceStack, tmp_path: Path) -> None:
    write_volume(tmp_path / "volume.nrrd", dense(stack), stack, stack.gap_mm / SCALE)
    image = sitk.ReadImage(str(tmp_path / "volume.nrrd"))
    assert image.GetPixelID() == sitk.sitkInt16
    voxels = sitk.GetArrayFromImage(image)
    index = np.random.default_rng(0).integers(0, np.array(image.GetSize()), (300, 3))
    lps = np.array([image.TransformIndexToPhysicalPoint(ijk.tolist()) for ijk in index])
    found = voxels[index[:, 2], index[:, 1], index[:, 0]]
    assert np.array_equal(found, source_values(lps * [-1, -1, 1], oriented, stack.axis))


def test_itk_finds_every_value_at_its_point(oriented: Volume, stack: SliceStack, tmp_path: Path) -> None:
    itk = pytest.importorskip("itk")
    write_volume(tmp_path / "volume.nrrd", dense(stack), stack, stack.gap_mm / SCALE)
    image = itk.imread(str(tmp_path / "volume.nrrd"))
    index = np.random.default_rng(1).integers(0, np.array(image.GetLargestPossibleRegion().GetSize()), (100, 3))
    lps = np.array([list(image.TransformIndexToPhysicalPoint(ijk.tolist())) for ijk in index])
    found = np.array([image.GetPixel(ijk.tolist()) for ijk in index])
    assert np.array_equal(found, source_values(lps * [-1, -1, 1], oriented, stack.axis))


def test_nibabel_finds_every_value_at_its_point(oriented: Volume, stack: SliceStack, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    write_volume(tmp_path / "volume.nii.gz", dense(stack), stack, stack.gap_mm / SCALE)
    image = nibabel.load(tmp_path / "volume.nii.gz")
    voxels = np.asarray(image.dataobj)
    index = np.random.default_rng(2).integers(0, voxels.shape, (300, 3))
    ras = nibabel.affines.apply_affine(image.affine, index)
    assert np.array_equal(voxels[tuple(index.T)], source_values(ras, oriented, stack.axis))


def test_axes_directions_and_in_plane_spacing_are_those_of_the_input(oriented: Volume, stack: SliceStack, tmp_path: Path) -> None:
    write_volume(tmp_path / "volume.nrrd", dense(stack), stack, stack.gap_mm / SCALE)
    volume = read_volume(tmp_path / "volume.nrrd")
    expected = geometry.spacing(oriented.ijk_to_ras)
    expected[stack.axis] /= SCALE
    assert np.allclose(geometry.spacing(volume.ijk_to_ras), expected)
    directions = volume.ijk_to_ras[:3, :3] / expected
    assert np.allclose(directions, oriented.ijk_to_ras[:3, :3] / geometry.spacing(oriented.ijk_to_ras), atol=1e-6)
    assert np.allclose(volume.ijk_to_ras[:3, 3], geometry.transform_points(oriented.ijk_to_ras, np.array(stack.start_ijk)), atol=1e-4)
    again = build_stack(volume, axis="ijk"[stack.axis])
    assert again.image is not None and np.array_equal(again.image, dense(stack))


def test_the_file_is_compressed_lps_nrrd_with_the_given_fields(one_stack: SliceStack, tmp_path: Path) -> None:
    write_volume(tmp_path / "volume.nrrd", dense(one_stack) * 0.0, one_stack, 1.0, header={"note": "interpolated,\nnot measured"})
    header = (tmp_path / "volume.nrrd").read_bytes().split(b"\n\n")[0]
    assert b"space: left-posterior-superior" in header and b"encoding: gzip" in header
    assert b"note:=interpolated, not measured" in header
    assert [path.name for path in tmp_path.iterdir()] == ["volume.nrrd"]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("uint8", [0, 0, 2, 200, 255]),
        ("int16", [-7, 0, 2, 200, 300]),
        ("float32", [-7.4, 0.4, 1.6, 200.0, 300.0]),
    ],
)
def test_values_are_rounded_and_clipped_to_integer_types(dtype: str, expected: list[float]) -> None:
    result = to_type(np.array([-7.4, 0.4, 1.6, 200.0, 300.0], np.float32), dtype)
    assert result.dtype == np.dtype(dtype)
    assert np.array_equal(result, np.array(expected, dtype))


def test_wide_integers_are_clipped_too() -> None:
    assert np.array_equal(to_type(np.array([-3, 70000]), "uint16"), [0, 65535])
    clipped = to_type(np.array([3e9, -3e9], np.float32), "int32")
    assert clipped.tolist() == [2**31 - 128, -(2**31)]  # the largest float32 that an int32 holds


def test_the_type_of_the_input_is_the_default(one_stack: SliceStack, tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nrrd", dense(one_stack), one_stack, 1.0)
    write_volume(tmp_path / "b.nrrd", dense(one_stack), one_stack, 1.0, dtype="float32")
    assert read_volume(tmp_path / "a.nrrd").voxels.dtype == np.int16
    assert read_volume(tmp_path / "b.nrrd").voxels.dtype == np.float32


def test_a_segmentation_comes_back_with_names_colours_and_place(oriented: Volume, stack: SliceStack, tmp_path: Path) -> None:
    assert stack.occupancy is not None
    write_segmentation(tmp_path / "segmentation.nrrd", stack.occupancy[0] * 4, stack, stack.gap_mm)
    volume, labels = read_labels(tmp_path / "segmentation.nrrd")
    assert labels == (Label(4, "aorta", (1.0, 0.5, 0.0)),)
    assert volume.voxels.dtype == np.uint8
    again = build_stack(oriented, volume, labels, axis="ijk"[stack.axis], margin_mm=4.0)
    assert np.array_equal(again.occupancy, stack.occupancy)
    text = (tmp_path / "segmentation.nrrd").read_bytes().split(b"\n\n")[0].decode()
    i, j, k = volume.shape_ijk
    assert f"Segment0_Extent:=0 {i - 1} 0 {j - 1} 0 {k - 1}" in text
    assert "Segmentation_MasterRepresentation:=Binary labelmap" in text


def test_label_values_beyond_a_byte_are_kept(one_stack: SliceStack, tmp_path: Path) -> None:
    assert one_stack.occupancy is not None
    write_segmentation(tmp_path / "s.nrrd", (one_stack.occupancy[0] * 300).astype(int), one_stack, one_stack.gap_mm, [Label(300, "Gefäß")])
    volume, labels = read_labels(tmp_path / "s.nrrd")
    assert volume.voxels.dtype == np.uint16 and volume.voxels.max() == 300
    assert labels[0].name == "Gefäß"


def test_label_values_beyond_two_bytes_are_kept(one_stack: SliceStack, tmp_path: Path) -> None:
    assert one_stack.occupancy is not None
    write_segmentation(tmp_path / "s.nrrd", (one_stack.occupancy[0] * 70000).astype(int), one_stack, one_stack.gap_mm, [Label(70000, "x")])
    assert read_labels(tmp_path / "s.nrrd")[0].voxels.max() == 70000


@pytest.mark.parametrize(("name", "noticed"), [("a.nrrd", True), ("a.nii.gz", True), ("a.nii.gz", False)])
def test_a_full_disk_leaves_nothing(
    one_stack: SliceStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, noticed: bool
) -> None:
    """SimpleITK reports a short NRRD; of a short NIfTI it may say nothing."""
    write = sitk.WriteImage

    def full(image: sitk.Image, path: str, **options: bool) -> None:
        write(image, path, **options)
        Path(path).write_bytes(Path(path).read_bytes()[:-40])
        if noticed:
            raise RuntimeError("fwrite wrote only 3 2-sized things")

    monkeypatch.setattr(images.sitk, "WriteImage", full)
    with pytest.raises(ResourceError, match="disk may be full"):
        write_volume(tmp_path / name, dense(one_stack), one_stack, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_no_space_at_the_rename(one_stack: SliceStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ResourceError, match="^The disk is full"):
        write_volume(tmp_path / "a.nrrd", dense(one_stack), one_stack, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_cannot_be_written(one_stack: SliceStack, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can be written as .nrrd, .nii, .nii.gz, .mha, not as"):
        write_volume(tmp_path / "a.mhd", dense(one_stack), one_stack, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_dense_volume_in_memory_matches_the_file(stack: SliceStack, tmp_path: Path) -> None:
    volume = dense_volume(dense(stack), stack, 1.25)
    write_volume(tmp_path / "a.nrrd", dense(stack), stack, 1.25)
    read = read_volume(tmp_path / "a.nrrd")
    assert np.array_equal(read.voxels, volume.voxels)
    assert np.allclose(read.ijk_to_ras, volume.ijk_to_ras, atol=1e-6)
