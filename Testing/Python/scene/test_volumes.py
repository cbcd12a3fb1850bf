"""Volume nodes: voxels, files, irregular acquisitions, crops, sequence items."""

from __future__ import annotations

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")

from MedGSLib import geometry  # noqa: E402
from MedGSLib.errors import InputError, ResourceError  # noqa: E402
from MedGSLib.scene import frames, volumes  # noqa: E402


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(1).integers(-1000, 2000, (6, 9, 11)).astype(np.int16)


def test_file_round_trip_keeps_voxels_and_geometry(tmp_path, voxels, ijk_to_ras):
    volumes.writeNrrd(tmp_path / "image.nrrd", voxels, ijk_to_ras)
    read, matrix = volumes.readNrrd(tmp_path / "image.nrrd")
    np.testing.assert_array_equal(read, voxels)
    np.testing.assert_allclose(matrix, ijk_to_ras, atol=1e-6)
    header = (tmp_path / "image.nrrd").read_bytes()[:400]
    assert b"left-posterior-superior" in header


@pytest.mark.parametrize("kind, written", [("int64", "int32"), ("uint64", "int32"), ("int8", "int16"), ("uint32", "uint32")])
def test_every_type_of_voxels_can_be_written(tmp_path, kind, written):
    array = np.arange(60).reshape(3, 4, 5).astype(kind)
    volumes.writeNrrd(tmp_path / "image.nrrd", array, np.eye(4))
    read, _matrix = volumes.readNrrd(tmp_path / "image.nrrd")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == written
    array[0, 0, 0] = np.iinfo(kind).max
    volumes.writeNrrd(tmp_path / "large.nrrd", array, np.eye(4))
    assert volumes.readNrrd(tmp_path / "large.nrrd")[0].max() == float(array.max())


def test_unwritable_and_unreadable_files_say_which(tmp_path, voxels):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="image.nrrd"):
        volumes.writeNrrd(tmp_path / "file" / "image.nrrd", voxels, np.eye(4))
    (tmp_path / "broken.nrrd").write_bytes(b"NRRD0004\ntype: sh")
    with pytest.raises(InputError, match="broken.nrrd"):
        volumes.readNrrd(tmp_path / "broken.nrrd")


def test_colour_and_empty_volumes_are_refused(scene, make, voxels):
    with pytest.raises(InputError, match="no voxels"):
        volumes.voxels(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
    node = make.volume(voxels, np.eye(4))
    node.GetImageData().AllocateScalars(3, 3)
    with pytest.raises(InputError, match="colour"):
        volumes.voxels(node)


def test_frame_is_local_under_linear_parents(make, voxels, ijk_to_ras):
    outer = make.transform(make.rotation((0, 0, 1), 20), "outer")
    inner = make.transform(make.rotation((1, 0, 0), -35, (1, 2, 3)), "inner", outer)
    frame = volumes.volumeFrame(make.volume(voxels, ijk_to_ras, parent=inner))
    np.testing.assert_allclose(frame.ijkToRas, ijk_to_ras)
    assert frame.parent is inner and frame.positionsMm is None and frame.notes == ()


def test_scaling_parent_is_kept_and_noted(make, voxels):
    frame = volumes.volumeFrame(make.volume(voxels, np.eye(4), parent=make.transform(np.diag([1.1, 1, 1, 1]), "stretch")))
    assert "stretch" in frame.notes[0] and "scales" in frame.notes[0]


def test_bending_parent_is_refused_and_can_be_hardened(scene, make, voxels):
    node = make.volume(voxels, np.diag([2.0, 2.0, 5.0, 1.0]), parent=make.bending())
    with pytest.raises(InputError, match="Bending.*harden"):
        volumes.volumeFrame(node)
    before = scene.GetNumberOfNodes()
    with frames.hardenedCopy(node) as copy:
        frame = volumes.volumeFrame(copy)
        assert frame.parent is None
        assert volumes.voxels(copy).max() > 0
    assert scene.GetNumberOfNodes() == before
    assert node.GetParentTransformNode().GetName() == "Bending"
    np.testing.assert_array_equal(volumes.voxels(node), voxels)


def test_acquisition_transform_gives_the_true_positions(make, voxels, ijk_to_ras):
    positions = np.array([0.0, 4.0, 8.0, 14.0, 18.0, 22.0])
    transform = make.acquisition(positions, ijk_to_ras)
    above = make.transform(make.rotation((0, 1, 0), 15))
    transform.SetAndObserveTransformNodeID(above.GetID())
    node = make.volume(voxels, ijk_to_ras, parent=transform)
    frame = volumes.volumeFrame(node)
    assert frame.parent is above
    np.testing.assert_allclose(frame.positionsMm, positions, atol=1e-6)
    np.testing.assert_allclose(geometry.spacing(frame.ijkToRas)[2], 4.0)
    assert "4 to 6 mm" in frame.notes[0]
    # the third slice's corner: where the scene shows it, and where the job puts it
    local = geometry.transform_points(ijk_to_ras, np.array([[0.0, 0.0, 3.0]]))
    world = volumes.transformPoints(frames.transformBetween(transform), local)
    corner = frame.ijkToRas[:3, 3] + positions[3] * frame.ijkToRas[:3, 2] / geometry.spacing(frame.ijkToRas)[2]
    np.testing.assert_allclose(geometry.transform_points(frames.matrixBetween(above), corner[None]), world, atol=1e-3)


def test_tilted_acquisition_is_not_taken_for_a_shift(make, voxels):
    lateral = np.zeros((6, 3))
    lateral[:, 1] = np.arange(6) * 0.8 + np.array([0, 1, 0, 1, 0, 1]) * 0.5
    matrix = np.diag([1.0, 1.0, 4.0, 1.0])
    with pytest.raises(InputError, match="non-linear"):
        volumes.volumeFrame(make.volume(voxels, matrix, parent=make.acquisition(np.arange(6) * 4.0, matrix, lateral)))


def test_roi_covers_whole_voxels_in_the_world(scene, make, voxels, ijk_to_ras):
    parent = make.transform(make.rotation((0, 1, 1), 90, (3, 4, 5)))
    node = make.volume(voxels, ijk_to_ras, parent=parent)
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "ROI")
    roi.SetAndObserveTransformNodeID(make.transform(make.rotation((1, 0, 0), 10), "roi frame").GetID())
    world = frames.matrixBetween(parent) @ ijk_to_ras
    corners = geometry.transform_points(world, np.array([[2.6, 3.6, 1.6], [6.4, 5.4, 3.4]]))
    directions = world[:3, :3] / np.linalg.norm(world[:3, :3], axis=0)
    extent = np.abs(directions.T @ (corners[1] - corners[0]))
    to_roi = np.linalg.inv(make.rotation((1, 0, 0), 10))
    orientation = np.eye(4)
    orientation[:3, :3] = to_roi[:3, :3] @ directions
    if np.linalg.det(orientation) < 0:
        orientation[:3, 0] *= -1
    orientation[:3, 3] = geometry.transform_points(to_roi, corners.mean(axis=0)[None])[0]
    roi.SetAndObserveObjectToNodeMatrix(frames.toVtkMatrix(orientation))
    roi.SetSize(*extent)
    crop = volumes.roiCrop(roi, node)
    assert crop == volumes.Crop((3, 4, 2), (7, 6, 4))
    assert voxels[crop.slices].shape == (2, 2, 4)


def test_roi_beside_the_volume_is_refused(scene, make, voxels):
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "elsewhere")
    roi.SetCenter(500, 0, 0)
    roi.SetSize(10, 10, 10)
    with pytest.raises(InputError, match="elsewhere"):
        volumes.roiCrop(roi, make.volume(voxels, np.eye(4)))


def test_current_item_of_a_sequence(scene, make, voxels):
    node = make.volume(voxels, np.eye(4))
    assert volumes.sequenceItem(node) is None
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Dates")
    sequence.SetIndexName("days")
    sequence.SetIndexUnit("day")
    sequence.SetDataNodeAtValue(node, "0")
    sequence.SetDataNodeAtValue(node, "180")
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    browser.AddSynchronizedSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(node, sequence, False)
    browser.SetSelectedItemNumber(1)
    assert volumes.sequenceItem(node) == {"sequence": "Dates", "item": "1", "count": "2", "index": "days = 180 day"}
