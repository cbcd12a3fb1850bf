"""From files to the stack of slices: crop, places, annotation, thickness."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np
import pytest

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.io.stack import build_stack, load_stack
from MedGSLib.volume import Label, SliceStack, Volume

Plain = Callable[..., Path]


def boxed(volume: Volume, kji: tuple[slice, slice, slice], value: int = 4) -> Volume:
    mask = np.zeros(volume.voxels.shape, np.uint8)
    mask[kji] = value
    return Volume(mask, volume.ijk_to_ras)


def every_pixel_is_where_it_was(stack: SliceStack, volume: Volume) -> None:
    """Each pixel's RAS point, taken back into the source volume, must land on a voxel of the same value."""
    assert stack.image is not None
    s, row, column = np.indices(stack.shape).reshape(3, -1)
    points = geometry.transform_points(stack.plane_to_ras, np.stack([column, row, stack.positions_mm[s]], axis=-1))
    ijk = geometry.transform_points(np.linalg.inv(volume.ijk_to_ras), points)
    assert np.abs(ijk - np.round(ijk)).max() < 1e-6
    i, j, k = np.round(ijk).astype(int).T
    assert np.array_equal(volume.voxels[k, j, i], stack.image[s, row, column])


@pytest.mark.parametrize("axis", ["auto", "i", "j", "k"])
@pytest.mark.parametrize("cropped", [False, True])
def test_pixels_stay_at_their_physical_points(oriented: Volume, axis: str, cropped: bool) -> None:
    mask = boxed(oriented, (slice(6, 12), slice(9, 14), slice(5, 13)))
    stack = build_stack(oriented, mask, axis=axis, margin_mm=3.0 if cropped else None)
    every_pixel_is_where_it_was(stack, oriented)
    assert stack.image is not None and stack.image.dtype == np.float32
    assert (stack.image.size < oriented.voxels.size) == cropped
    assert stack.occupancy is not None and stack.occupancy.dtype == np.float32
    assert stack.occupancy.sum() == 6 * 5 * 8
    assert set(np.flatnonzero(stack.occupancy[0])) == set(
        np.flatnonzero(np.isin(stack.image, oriented.voxels[6:12, 9:14, 5:13].astype(np.float32)))
    )
    assert np.linalg.norm(stack.plane_to_ras[:3, 2]) == pytest.approx(1.0)
    assert stack.axis == geometry.slice_axis(oriented.ijk_to_ras, oriented.shape_ijk, axis)
    corner = geometry.transform_points(oriented.ijk_to_ras, np.array(stack.start_ijk))
    assert np.allclose(stack.plane_to_ras[:3, 3], corner)


def test_files_and_memory_give_the_same_stack(oriented: Volume, tmp_path: Path, plain: Plain) -> None:
    mask = boxed(oriented, (slice(6, 12), slice(9, 14), slice(5, 13)))
    image_path = plain(tmp_path / "image.nrrd", oriented.voxels, oriented.ijk_to_ras)
    mask_path = plain(tmp_path / "mask.nii.gz", mask.voxels, mask.ijk_to_ras)
    read, built = load_stack(image_path, mask_path), build_stack(oriented, mask)
    assert np.array_equal(read.image, built.image) and np.array_equal(read.occupancy, built.occupancy)
    assert np.allclose(read.plane_to_ras, built.plane_to_ras, atol=1e-4)
    assert read.meta["voxel_type"] == built.meta["voxel_type"] == "int16"


@pytest.fixture
def thick() -> Volume:
    voxels = np.random.default_rng(0).integers(0, 99, (12, 30, 40)).astype(np.uint8)
    return Volume(voxels, np.diag([-1.0, -2.0, 5.0, 1.0]))


def test_the_crop_is_the_box_and_a_margin_in_mm(thick: Volume) -> None:
    stack = build_stack(thick, boxed(thick, (slice(5, 7), slice(10, 14), slice(20, 25))), margin_mm=9.0)
    assert stack.start_ijk == (11, 5, 4)
    assert stack.shape == (4, 4 + 2 * 5, 5 + 2 * 9)


def test_at_least_one_slice_beyond_each_end_is_kept(thick: Volume) -> None:
    stack = build_stack(thick, boxed(thick, (slice(5, 7), slice(10, 14), slice(20, 25))), margin_mm=0.0)
    assert stack.start_ijk == (20, 10, 4)
    assert stack.shape == (4, 4, 5)


@pytest.mark.parametrize(("where", "first", "count"), [(0, 0, 2), (11, 10, 2)])
def test_a_single_slice_of_mask_at_the_end_keeps_two(thick: Volume, where: int, first: int, count: int) -> None:
    stack = build_stack(thick, boxed(thick, (slice(where, where + 1), slice(1, 4), slice(2, 5))), margin_mm=0.0)
    assert stack.start_ijk[2] == first
    assert stack.shape[0] == count


def test_the_crop_stops_at_the_border_of_the_image(thick: Volume) -> None:
    stack = build_stack(thick, boxed(thick, (slice(0, 12), slice(0, 3), slice(38, 40))), margin_mm=20.0)
    assert stack.start_ijk == (18, 0, 0)
    assert stack.shape == (12, 13, 22)


def test_a_negative_margin_is_refused(thick: Volume) -> None:
    with pytest.raises(InputError, match="margin must not be negative"):
        build_stack(thick, boxed(thick, (slice(5, 7), slice(1, 4), slice(2, 5))), margin_mm=-1.0)


def test_sparse_annotation_is_detected_and_keeps_an_empty_annotated_slice_beyond_each_end(thick: Volume) -> None:
    stack = build_stack(thick, boxed(thick, (slice(3, 10, 3), slice(10, 14), slice(20, 25))), margin_mm=0.0)
    assert stack.start_ijk[2] == 0
    assert stack.shape[0] == 11
    assert np.flatnonzero(stack.annotated).tolist() == [0, 3, 6, 9]
    listed = build_stack(thick, boxed(thick, (slice(4, 9, 2), slice(10, 14), slice(20, 25))), margin_mm=0.0, annotated="list:2,4,6,8,11")
    assert listed.start_ijk[2] == 2
    assert np.flatnonzero(listed.annotated).tolist() == [0, 2, 4, 6, 9]


def test_mask_on_slices_that_are_not_annotated_does_not_widen_the_crop(thick: Volume) -> None:
    mask = boxed(thick, (slice(4, 6), slice(10, 14), slice(20, 25)))
    mask.voxels[8, 0, 0] = 4
    stack = build_stack(thick, mask, margin_mm=0.0, annotated="list:4,5,6")
    assert stack.start_ijk == (20, 10, 3)
    assert stack.shape == (4, 4, 5)


def test_several_labels_become_channels_in_the_order_asked_for(thick: Volume, tmp_path: Path, plain: Plain) -> None:
    mask = boxed(thick, (slice(4, 6), slice(10, 14), slice(20, 25)), 2)
    mask.voxels[5:8, 20:24, 3:6] = 9
    image_path, mask_path = (
        plain(tmp_path / "i.nrrd", thick.voxels, thick.ijk_to_ras),
        plain(tmp_path / "m.nrrd", mask.voxels, mask.ijk_to_ras),
    )
    stack = load_stack(image_path, mask_path, labels="9,2", margin_mm=None)
    assert [label.value for label in stack.labels] == [9, 2]
    assert stack.occupancy is not None
    assert np.array_equal(stack.occupancy[0], mask.voxels == 9) and np.array_equal(stack.occupancy[1], mask.voxels == 2)
    assert load_stack(image_path, mask_path).labels[0].value == 2
    with pytest.raises(InputError, match="no label '3'"):
        load_stack(image_path, mask_path, labels=3)


def test_an_image_alone_is_not_cropped(thick: Volume) -> None:
    stack = build_stack(thick)
    assert stack.occupancy is None and stack.labels == () and stack.annotated.all()
    assert stack.shape == (12, 30, 40)


def test_a_mask_alone(thick: Volume, tmp_path: Path, plain: Plain) -> None:
    mask = boxed(thick, (slice(5, 7), slice(10, 14), slice(20, 25)))
    path = plain(tmp_path / "m.nrrd", mask.voxels, mask.ijk_to_ras)
    for stack in (build_stack(None, mask, margin_mm=9.0), load_stack(None, path, margin_mm=9.0)):
        assert stack.image is None and stack.shape == (4, 14, 23) and stack.start_ijk == (11, 5, 4)
    spread = load_stack(None, path, margin_mm=None, positions=[0, 5, 10, 15, 20, 27, 32, 37, 42, 47, 52, 57])
    assert spread.positions_mm[5] == 27.0


@pytest.mark.parametrize("last_gap", [6.0, 9.0], ids=["regular", "irregular"])
def test_a_mask_follows_its_image_to_corrected_slice_positions(oriented: Volume, tmp_path: Path, plain: Plain, last_gap: float) -> None:
    mask = boxed(oriented, (slice(2, 6), slice(4, 8), slice(5, 9)))
    image_path = plain(tmp_path / "i.nrrd", oriented.voxels, oriented.ijk_to_ras)
    mask_path = plain(tmp_path / "m.nrrd", mask.voxels, mask.ijk_to_ras)
    positions = 6.0 * np.arange(len(mask.voxels))
    positions[-1] += last_gap - 6.0
    stack = load_stack(image_path, mask_path, axis="k", margin_mm=None, positions=positions)
    assert stack.occupancy is not None and np.array_equal(stack.occupancy[0], mask.voxels == 4)
    assert np.allclose(stack.positions_mm, positions)


def test_a_sparse_segment_beside_a_dense_one_is_told(thick: Volume, caplog: pytest.LogCaptureFixture) -> None:
    mask = boxed(thick, (slice(1, 11), slice(2, 6), slice(2, 6)))
    mask.voxels[1:11:3, 10:14, 10:14] = 7
    stack = build_stack(thick, mask, [Label(4, "dense"), Label(7, "sparse")], margin_mm=None)
    assert stack.annotated.all() and "sparse: drawn on every n-th slice only" in caplog.text and "dense" not in caplog.text
    caplog.clear()
    build_stack(thick, mask, [Label(4, "dense"), Label(7, "sparse")], margin_mm=None, annotated="all")
    assert not caplog.text


def test_nothing_given() -> None:
    with pytest.raises(InputError, match="Give an image, a mask, or both"):
        load_stack(None, None)
    with pytest.raises(InputError, match="Give an image, a mask, or both"):
        build_stack(None)


def test_an_empty_mask_in_memory(thick: Volume) -> None:
    empty = Volume(np.zeros_like(thick.voxels), thick.ijk_to_ras)
    with pytest.raises(InputError, match="mask is empty"):
        build_stack(thick, empty)
    with pytest.raises(InputError, match=r"empty: no voxel carries 1 \(cyst\)"):
        build_stack(thick, empty, [Label(1, "cyst")])


def test_irregular_slices_keep_their_positions_through_the_crop(thick: Volume) -> None:
    positions = np.array([0, 5, 10, 15, 22, 27, 32, 37, 42, 47, 52, 60], dtype=float)
    volume = thick.with_positions(positions)
    mask = Volume(boxed(thick, (slice(4, 7), slice(10, 14), slice(20, 25))).voxels, volume.ijk_to_ras)
    stack = build_stack(volume, mask, margin_mm=0.0)
    assert stack.start_ijk[2] == 3
    assert np.array_equal(stack.positions_mm, positions[3:8] - 15.0)
    place = geometry.transform_points(stack.plane_to_ras, np.array([0.0, 0.0, stack.positions_mm[1]]))
    assert np.allclose(place, [-20.0, -20.0, 22.0])


def test_thickness_comes_from_the_header_and_may_be_overridden(thick: Volume) -> None:
    told = Volume(thick.voxels, thick.ijk_to_ras, meta={"slice_thickness_mm": "4.5", "modality": "MR"})
    assert build_stack(told).slice_thickness_mm == 4.5
    assert build_stack(told, slice_thickness_mm=3.0).slice_thickness_mm == 3.0
    assert build_stack(told, axis="i").slice_thickness_mm is None
    assert build_stack(thick).slice_thickness_mm is None
    assert build_stack(Volume(thick.voxels, thick.ijk_to_ras, meta={"slice_thickness_mm": "unknown"})).slice_thickness_mm is None
    assert build_stack(told).meta["modality"] == "MR"


def test_one_slice_is_refused(thick: Volume) -> None:
    with pytest.raises(InputError, match="single slice"):
        build_stack(Volume(thick.voxels[:1], thick.ijk_to_ras))


def test_a_real_case_with_a_mask_on_a_smaller_grid(shared_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = shared_data / "ct_aorta_dissection_ts"
    stack = load_stack(case / "image.nii.gz", case / "seg.nrrd", labels=[1, 2])
    assert stack.occupancy is not None and stack.occupancy.shape[0] == 2
    assert not caplog.records


def test_shares_of_a_partial_volume_mask_stay_at_their_points(oriented: Volume) -> None:
    shares = np.zeros(oriented.voxels.shape, np.float32)
    shares[6:12, 9:14, 5:13] = np.random.default_rng(5).uniform(0.4, 1.0, (6, 5, 8))
    stack = build_stack(oriented, Volume(shares.astype(np.float64), oriented.ijk_to_ras), margin_mm=3.0)
    assert stack.occupancy is not None and stack.image is not None
    assert [label.name for label in stack.labels] == ["Segment_1"]
    place = {value: share for value, share in zip(oriented.voxels.ravel().tolist(), shares.ravel().tolist())}
    assert np.array_equal(stack.occupancy[0], np.vectorize(place.__getitem__, otypes=[np.float32])(stack.image.astype(int)))
