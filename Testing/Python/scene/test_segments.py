"""Segments onto a volume's grid: other geometries, other parents, surfaces, overlaps, properties."""

from __future__ import annotations

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")

from MedGSLib import geometry  # noqa: E402
from MedGSLib.errors import InputError  # noqa: E402
from MedGSLib.scene import frames, segments  # noqa: E402
from MedGSLib.scene.volumes import Crop  # noqa: E402

SHAPE = (40, 36, 12)


@pytest.fixture
def volume(make, ijk_to_ras):
    return make.volume(np.zeros(SHAPE[::-1], np.int16), ijk_to_ras)


@pytest.fixture
def center(ijk_to_ras) -> np.ndarray:
    return geometry.transform_points(ijk_to_ras, np.array([19.3, 17.6, 5.4]))


def ids(node):
    return segments.segmentIds(node)


def test_same_geometry_comes_out_unchanged(make, ball, volume, ijk_to_ras, center):
    mask = ball(ijk_to_ras, SHAPE, center, 12.0)
    node = make.segmentation({"aorta": mask}, ijk_to_ras)
    np.testing.assert_array_equal(segments.segmentArray(node, ids(node)[0], volume), mask)


def test_cropped_segment_extent_comes_out_in_place(make, ball, volume, ijk_to_ras, center):
    mask = ball(ijk_to_ras, SHAPE, center, 12.0)
    start = (8, 6, 2)
    node = make.segmentation({"aorta": mask[2:10, 6:30, 8:34]}, geometry.shifted_origin(ijk_to_ras, start))
    expected = np.zeros_like(mask)
    expected[2:10, 6:30, 8:34] = mask[2:10, 6:30, 8:34]
    np.testing.assert_array_equal(segments.segmentArray(node, ids(node)[0], volume), expected)


def test_parents_of_volume_and_segmentation_are_reconciled(make, ball, ijk_to_ras, center):
    volume_parent = make.transform(make.rotation((0, 0, 1), 25, (10, 0, -5)), "volume parent")
    volume = make.volume(np.zeros(SHAPE[::-1], np.int16), ijk_to_ras, parent=volume_parent)
    segmentation_parent = make.transform(make.rotation((1, 1, 0), -40, (0, 7, 0)), "segmentation parent")
    to_segmentation = np.linalg.inv(frames.matrixBetween(segmentation_parent)) @ frames.matrixBetween(volume_parent)
    mask = ball(ijk_to_ras, SHAPE, center, 12.0)
    node = make.segmentation({"aorta": mask}, to_segmentation @ ijk_to_ras, parent=segmentation_parent)
    np.testing.assert_array_equal(segments.segmentArray(node, ids(node)[0], volume), mask)


@pytest.mark.parametrize("parent", ["same", "other"])
def test_finer_rotated_segment_is_right_to_half_a_voxel(make, ball, volume, ijk_to_ras, center, parent):
    fine = make.rotation((3, 1, 2), 50) @ np.diag([0.5, 0.5, 0.5, 1.0])
    fine[:3, 3] = center - fine[:3, :3] @ np.full(3, 30.0)
    moved = make.transform(make.rotation((0, 1, 0), 12, (4, 4, 4))) if parent == "other" else None
    if moved is not None:
        fine = np.linalg.inv(frames.matrixBetween(moved)) @ fine
        center_local = geometry.transform_points(np.linalg.inv(frames.matrixBetween(moved)), center)
    else:
        center_local = center
    node = make.segmentation({"ball": ball(fine, (61, 61, 61), center_local, 12.0)}, fine, parent=moved)
    array = segments.segmentArray(node, ids(node)[0], volume)
    distance = np.linalg.norm(geometry.transform_points(ijk_to_ras, _indices()) - center, axis=-1)
    wrong = array.astype(bool) != (distance <= 12.0)
    assert array.sum() > 200
    assert np.abs(distance[wrong] - 12.0).max(initial=0.0) <= 0.5


def _indices() -> np.ndarray:
    k, j, i = np.meshgrid(*(np.arange(n) for n in SHAPE[::-1]), indexing="ij")
    return np.stack([i, j, k], axis=-1)


def test_segment_drawn_as_surface(scene, make, volume, ijk_to_ras, center):
    import vtk

    parent = make.transform(make.rotation((0, 0, 1), 30, (2, 2, 2)))
    local = geometry.transform_points(np.linalg.inv(frames.matrixBetween(parent)), center)
    sphere = vtk.vtkSphereSource()
    sphere.SetRadius(12.0)
    sphere.SetCenter(*local)
    sphere.SetThetaResolution(60)
    sphere.SetPhiResolution(60)
    sphere.Update()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Surface")
    node.SetSourceRepresentationToClosedSurface()
    node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "ball", [1.0, 0.0, 0.0])
    node.SetAndObserveTransformNodeID(parent.GetID())
    array = segments.segmentArray(node, ids(node)[0], volume)
    distance = np.linalg.norm(geometry.transform_points(ijk_to_ras, _indices()) - center, axis=-1)
    wrong = array.astype(bool) != (distance <= 12.0)
    assert array.sum() > 200
    assert np.abs(distance[wrong] - 12.0).max(initial=0.0) <= 1.0
    assert not node.GetSegmentation().ContainsRepresentation(segments.LABELMAP)


def test_segmentation_under_bending_transform(make, ball, volume, ijk_to_ras, center):
    bending = make.bending()
    node = make.segmentation({"aorta": ball(ijk_to_ras, SHAPE, center, 12.0)}, ijk_to_ras, parent=bending)
    with pytest.raises(InputError, match="Bending.*harden"):
        segments.segmentArray(node, ids(node)[0], volume)
    array = segments.segmentArray(node, ids(node)[0], volume, allowNonLinear=True)
    straight = segments.segmentArray(node, ids(node)[0], volume, allowNonLinear=True)
    assert array.sum() > 0 and np.array_equal(array, straight)


def test_unknown_and_empty_segments(make, volume, ijk_to_ras):
    node = make.segmentation({"aorta": np.ones((2, 2, 2), np.uint8)}, ijk_to_ras)
    with pytest.raises(InputError, match="no segment 'x'"):
        segments.segmentArray(node, "x", volume)
    empty = node.GetSegmentation().AddEmptySegment("", "empty")
    assert segments.segmentArray(node, empty, volume).sum() == 0


def test_properties_survive(make, ijk_to_ras):
    node = make.segmentation({"aorta": np.ones((2, 2, 2), np.uint8)}, ijk_to_ras)
    node.GetDisplayNode().SetSegmentOpacity3D(ids(node)[0], 0.4)
    properties = segments.segmentProperties(node, ids(node)[0])
    assert properties == segments.SegmentProperties("aorta", (0.2, 0.0, 0.9), "code~aorta", 0.4, True)
    assert segments.SegmentProperties.fromDict(properties.asDict()) == properties


def test_labelmap_only_without_overlap():
    first, second = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)
    first[:, :1], second[:, 1:] = 1, 1
    whole = Crop.whole(first.shape)
    blocks = [segments.SegmentBlock(first, whole), segments.SegmentBlock(second, whole)]
    assert segments.labelmapOf(blocks, first.shape)[0].tolist() == [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
    small = segments.SegmentBlock(np.ones((2, 1, 2), np.uint8), Crop((1, 2, 0), (3, 3, 2)))
    assert segments.labelmapOf([blocks[0], small], first.shape)[0].tolist() == [[1, 1, 1], [0, 0, 0], [0, 2, 2]]
    first[:, :2] = 1
    assert segments.labelmapOf(blocks, first.shape) is None
    layers = segments.layersOf([blocks[0], small], first.shape)
    assert layers[0, :, :, 0].tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]
    assert layers[0, :, :, 1].tolist() == [[0, 0, 0], [0, 0, 0], [0, 2, 2]]


def test_only_the_voxels_around_a_segment_are_looked_at(make, ball, volume, ijk_to_ras, center):
    mask = ball(ijk_to_ras, SHAPE, center, 6.0)
    node = make.segmentation({"small": mask}, ijk_to_ras)
    block = segments.segmentBlock(node, ids(node)[0], volume)
    filled = np.argwhere(mask)
    size = np.ptp(filled, axis=0) + 1
    assert all(n <= wanted + 4 for n, wanted in zip(block.array.shape, size)) and block.array.sum() == mask.sum()
    part = block.within(Crop((10, 10, 4), (20, 30, 9)))
    expected = np.zeros((5, 20, 10), np.uint8)
    expected[part.crop.slices] = part.array
    np.testing.assert_array_equal(expected, mask[4:9, 10:30, 10:20])
    assert block.within(Crop((0, 0, 0), (2, 2, 2))).array.size == 0


def test_segment_outside_the_volume_is_empty(make, volume, ijk_to_ras):
    node = make.segmentation({"far": np.ones((2, 2, 2), np.uint8)}, geometry.shifted_origin(ijk_to_ras, (500, 0, 0)))
    assert segments.segmentBlock(node, ids(node)[0], volume).array.size == 0
    assert segments.segmentArray(node, ids(node)[0], volume).sum() == 0


def test_segments_have_their_own_extent_on_the_common_lattice(make, ball, volume, ijk_to_ras, center):
    mask = ball(ijk_to_ras, SHAPE, center, 8.0)
    node = make.segmentation({"ball": mask, "nothing": np.zeros_like(mask)}, ijk_to_ras)
    labelmap = node.GetSegmentation().GetNthSegment(0).GetRepresentation(segments.LABELMAP)
    filled = np.argwhere(mask)[:, ::-1]
    assert np.array(labelmap.GetExtent()).reshape(3, 2).tolist() == np.stack([filled.min(axis=0), filled.max(axis=0)], axis=1).tolist()
    matrix = frames.toVtkMatrix(np.eye(4))
    labelmap.GetImageToWorldMatrix(matrix)
    np.testing.assert_allclose(frames.toArray(matrix), ijk_to_ras, atol=1e-9)
    np.testing.assert_array_equal(segments.segmentArray(node, ids(node)[0], volume), mask)
    assert segments.segmentArray(node, ids(node)[1], volume).sum() == 0
