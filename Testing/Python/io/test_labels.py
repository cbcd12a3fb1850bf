"""Label maps and Slicer segmentations."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import SimpleITK as sitk

from MedGSLib.errors import InputError
from MedGSLib.io.labels import read_labels, read_segmentation, select_labels
from MedGSLib.io.stack import load_stack
from MedGSLib.volume import Label, Volume

Plain = Callable[..., Path]
PLACE = np.diag([-1.0, -1.0, 3.0, 1.0])


@pytest.fixture
def two_boxes() -> np.ndarray:
    voxels = np.zeros((6, 8, 10), dtype=np.uint8)
    voxels[1:4, 2:5, 3:6] = 2
    voxels[2:5, 5:7, 6:9] = 7
    return voxels


def write_slicer_segmentation(path: Path, layers: np.ndarray, fields: dict[str, str]) -> Path:
    """A .seg.nrrd as Slicer writes it: several layers are a list axis in front."""
    count, k, j, i = layers.shape
    listed = count > 1
    lines = [
        "NRRD0004",
        f"type: {'float' if layers.dtype == np.float32 else 'unsigned char'}",
        "endian: little",
        f"dimension: {4 if listed else 3}",
        "space: left-posterior-superior",
        f"sizes: {f'{count} ' if listed else ''}{i} {j} {k}",
        f"space directions: {'none ' if listed else ''}(1,0,0) (0,1,0) (0,0,3)",
        f"kinds: {'list ' if listed else ''}domain domain domain",
        "encoding: raw",
        "space origin: (0,0,0)",
        *(f"{key}:={value}" for key, value in fields.items()),
    ]
    path.write_bytes(("\n".join(lines) + "\n\n").encode() + np.moveaxis(layers, 0, -1).tobytes())
    return path


FIELDS = {
    "Segmentation_MasterRepresentation": "Binary labelmap",
    "Segment0_ID": "Segment_1",
    "Segment0_Name": "Aorta, true lumen",
    "Segment0_LabelValue": "2",
    "Segment0_Layer": "0",
    "Segment0_Color": "0.5 0.25 1",
    "Segment0_Extent": "0 9 0 7 0 5",
    "Segment1_ID": "Segment_2",
    "Segment1_Name": "Thrombus",
    "Segment1_LabelValue": "7",
    "Segment1_Layer": "0",
    "Segment1_Color": "1 0 0",
}


def test_a_plain_label_map(tmp_path: Path, plain: Plain, two_boxes: np.ndarray) -> None:
    volume, labels = read_labels(plain(tmp_path / "a.nii.gz", two_boxes, PLACE))
    assert np.array_equal(volume.voxels, two_boxes)
    assert [(label.value, label.name) for label in labels] == [(2, "Segment_2"), (7, "Segment_7")]
    assert labels[0].color != labels[1].color


def test_a_label_map_of_whole_floats(tmp_path: Path, plain: Plain, two_boxes: np.ndarray) -> None:
    volume, labels = read_labels(plain(tmp_path / "a.nii", two_boxes.astype(np.float64), PLACE))
    assert np.issubdtype(volume.voxels.dtype, np.integer)
    assert [label.value for label in labels] == [2, 7]


def test_a_slicer_segmentation_names_its_segments(tmp_path: Path, two_boxes: np.ndarray) -> None:
    volume, labels = read_labels(write_slicer_segmentation(tmp_path / "a.seg.nrrd", two_boxes[None], FIELDS))
    assert np.array_equal(volume.voxels, two_boxes)
    assert labels == (Label(2, "Aorta, true lumen", (0.5, 0.25, 1.0)), Label(7, "Thrombus", (1.0, 0.0, 0.0)))


@pytest.mark.parametrize(
    ("choice", "values"),
    [
        (2, [2]),
        ("7", [7]),
        ("thrombus", [7]),
        ("Aorta, true lumen", [2]),
        ("7, 2", [7, 2]),
        (["Thrombus", 2, "7"], [7, 2]),
        (None, [2, 7]),
        ((), [2, 7]),
    ],
)
def test_labels_are_chosen_by_value_or_name(two_boxes: np.ndarray, choice: object, values: list[int]) -> None:
    labels = (Label(2, "Aorta, true lumen"), Label(7, "Thrombus"))
    chosen = select_labels(Volume(two_boxes, PLACE), labels, choice)
    assert [label.value for label in chosen] == values


def test_a_name_that_is_a_number_wins_over_the_value(two_boxes: np.ndarray) -> None:
    labels = (Label(2, "7"), Label(7, "2"))
    assert select_labels(Volume(two_boxes, PLACE), labels, "7")[0].value == 2
    assert select_labels(Volume(two_boxes, PLACE), labels, 7)[0].value == 7


def test_a_wrong_label_names_the_others(two_boxes: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"no label 'liver'; it has 2 \(aorta\), 7 \(thrombus\)\."):
        select_labels(Volume(two_boxes, PLACE), (Label(2, "aorta"), Label(7, "thrombus")), "liver")


def test_an_empty_label_is_refused_when_named_and_passed_over_when_not(two_boxes: np.ndarray) -> None:
    volume, labels = Volume(two_boxes, PLACE), (Label(2, "aorta"), Label(5, "cyst"))
    with pytest.raises(InputError, match=r"empty: no voxel carries 5 \(cyst\)"):
        select_labels(volume, labels, ["aorta", "cyst"])
    assert [label.value for label in select_labels(volume, labels)] == [2]


def test_overlapping_layers_stay_apart(tmp_path: Path) -> None:
    layers = np.zeros((2, 6, 8, 10), dtype=np.uint8)
    layers[0, 1:5, 1:6, 1:8] = 1
    layers[1, 2:4, 2:4, 2:4] = 1
    fields = {
        "Segment0_Name": "organ",
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
        "Segment1_Name": "tumour",
        "Segment1_LabelValue": "1",
        "Segment1_Layer": "1",
    }
    path = write_slicer_segmentation(tmp_path / "a.seg.nrrd", layers, fields)
    segmentation = read_segmentation(path)
    assert np.array_equal(segmentation.layers, layers)
    stack = load_stack(None, path, margin_mm=None)
    assert [(label.value, label.name) for label in stack.labels] == [(1, "organ"), (2, "tumour")]
    assert stack.occupancy is not None and np.array_equal(stack.occupancy, layers)
    alone = load_stack(None, path, labels="tumour", margin_mm=None)
    assert alone.occupancy is not None and np.array_equal(alone.occupancy[0], layers[1])
    flat, labels = read_labels(path)
    assert [(label.value, label.name) for label in labels] == [(1, "organ"), (2, "tumour")]
    assert np.array_equal(flat.voxels, np.where(layers[1] == 1, 2, layers[0]))


def test_layers_of_an_early_slicer_hold_one_segment_each(tmp_path: Path) -> None:
    layers = np.zeros((2, 6, 8, 10), dtype=np.uint8)
    layers[0, 1:5, 1:6, 1:8] = 1
    layers[1, 2:4, 2:4, 2:4] = 1
    path = write_slicer_segmentation(tmp_path / "a.seg.nrrd", layers, {"Segment0_Name": "organ", "Segment1_Name": "tumour"})
    stack = load_stack(None, path, margin_mm=None)
    assert [label.name for label in stack.labels] == ["organ", "tumour"]
    assert stack.occupancy is not None and np.array_equal(stack.occupancy, layers)


@pytest.mark.parametrize(("value", "dtype"), [(-1, np.int16), (-1024, np.int16), (3e9, np.float32), (2**40, np.int64)])
def test_values_that_no_label_has(tmp_path: Path, plain: Plain, two_boxes: np.ndarray, value: float, dtype: type) -> None:
    with pytest.raises(InputError, match="so it is an image and not a label map"):
        read_segmentation(plain(tmp_path / "a.nrrd", np.where(two_boxes > 0, value, 0).astype(dtype), np.eye(4)))


def test_a_fractional_label_map_of_slicer_is_named(tmp_path: Path, two_boxes: np.ndarray) -> None:
    fields = FIELDS | {"Segmentation_MasterRepresentation": "Fractional labelmap"}
    with pytest.raises(InputError, match="fractional label map; convert it"):
        read_segmentation(write_slicer_segmentation(tmp_path / "a.seg.nrrd", two_boxes[None], fields))


def test_a_mask_with_voxels_that_are_no_numbers(tmp_path: Path, plain: Plain, two_boxes: np.ndarray) -> None:
    with pytest.raises(InputError, match="some are NaN or infinite, to be replaced by 0"):
        read_segmentation(plain(tmp_path / "a.nrrd", np.where(two_boxes > 0, 1.0, np.nan).astype(np.float32), np.eye(4)))


def test_a_header_that_names_a_missing_layer(tmp_path: Path, two_boxes: np.ndarray) -> None:
    path = write_slicer_segmentation(tmp_path / "a.seg.nrrd", two_boxes[None], FIELDS | {"Segment1_Layer": "3"})
    with pytest.raises(InputError, match="damaged: its header names a layer"):
        read_labels(path)


def test_a_header_with_words_for_numbers(tmp_path: Path, two_boxes: np.ndarray) -> None:
    path = write_slicer_segmentation(tmp_path / "a.seg.nrrd", two_boxes[None], FIELDS | {"Segment1_LabelValue": "seven"})
    with pytest.raises(InputError, match="segment 1 has a field that is not a number"):
        read_labels(path)


def test_an_empty_mask(tmp_path: Path, plain: Plain) -> None:
    with pytest.raises(InputError, match="is empty: all its voxels are zero"):
        read_labels(plain(tmp_path / "a.nrrd", np.zeros((3, 4, 5), np.uint8), PLACE))


@pytest.mark.parametrize("bad", [1.5, -0.5, np.nan, np.inf])
def test_values_that_are_neither_whole_nor_shares(tmp_path: Path, plain: Plain, bad: float) -> None:
    voxels = np.ones((3, 4, 5), np.float32)
    voxels[1, 1, 1] = bad
    with pytest.raises(InputError, match="neither whole numbers nor shares"):
        read_labels(plain(tmp_path / "a.nrrd", voxels, PLACE))


@pytest.fixture
def shares() -> np.ndarray:
    """A ball of radius 6 voxels that half of the voxels of its surface fill in part."""
    k, j, i = np.indices((16, 18, 20)) - np.array([8.0, 9.0, 10.0])[:, None, None, None]
    return np.clip(6.5 - np.sqrt(k**2 + j**2 + i**2), 0.0, 1.0).astype(np.float32)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_partial_volume_mask(tmp_path: Path, plain: Plain, shares: np.ndarray, kind: type) -> None:
    path = plain(tmp_path / "a.nrrd", shares.astype(kind) * (1.0 + 1e-4), PLACE)
    segmentation = read_segmentation(path)
    assert segmentation.partial and segmentation.labels == (Label(1, "Segment_1"),)
    np.testing.assert_allclose(segmentation.layers[0], shares, atol=2e-4)
    assert segmentation.layers.max() == 1.0
    flat, labels = read_labels(path)
    assert labels == segmentation.labels
    np.testing.assert_array_equal(flat.voxels, segmentation.layers[0] >= 0.5)


def test_partial_volume_masks_of_a_slicer_segmentation(tmp_path: Path, shares: np.ndarray) -> None:
    fields = FIELDS | {"Segment1_Layer": "1"}
    path = write_slicer_segmentation(tmp_path / "a.seg.nrrd", np.stack([shares, shares[:, ::-1] / 4 * 3]), fields)
    stack = load_stack(None, path, margin_mm=None)
    assert [label.name for label in stack.labels] == ["Aorta, true lumen", "Thrombus"]
    np.testing.assert_array_equal(stack.occupancy[0], shares)
    np.testing.assert_allclose(stack.occupancy[1], shares[:, ::-1] * 0.75, atol=1e-6)


def test_shares_of_two_segments_in_one_layer(tmp_path: Path, shares: np.ndarray) -> None:
    with pytest.raises(InputError, match="cannot be told apart"):
        read_segmentation(write_slicer_segmentation(tmp_path / "a.seg.nrrd", shares[None], FIELDS))


def test_a_partial_volume_mask_that_fills_no_voxel_to_a_half(tmp_path: Path, plain: Plain, shares: np.ndarray) -> None:
    with pytest.raises(InputError, match="empty"):
        load_stack(None, plain(tmp_path / "a.nrrd", shares / 3, PLACE))


def test_an_image_from_0_to_1_given_for_a_mask(tmp_path: Path, plain: Plain) -> None:
    values = np.random.default_rng(0).random((8, 9, 10), np.float32)
    with pytest.raises(InputError, match="image and not a mask: (99|100) %"):
        read_segmentation(plain(tmp_path / "a.nrrd", values, PLACE))


def test_an_image_given_for_a_mask(tmp_path: Path, plain: Plain) -> None:
    with pytest.raises(InputError, match="2047 different values, so it is an image"):
        read_labels(plain(tmp_path / "a.nrrd", np.arange(2048, dtype=np.int16).reshape(8, 16, 16), PLACE))


def test_a_colour_image_given_for_a_mask(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5, 3), np.uint8), isVector=True), tmp_path / "a.nrrd")
    with pytest.raises(InputError, match="several values per voxel"):
        read_labels(tmp_path / "a.nrrd")


def test_a_real_mask_of_many_labels(shared_data: Path) -> None:
    volume, labels = read_labels(shared_data / "ct_abdomen_ts_3mm" / "seg.nii.gz")
    assert len(labels) == 61
    assert select_labels(volume, labels, "52")[0].value == 52
