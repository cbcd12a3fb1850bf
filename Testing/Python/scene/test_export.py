"""From a real MRML scene to a job folder: files, request, crops, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")

from MedGSLib import geometry  # noqa: E402
from MedGSLib.errors import InputError, MedGSError  # noqa: E402
from MedGSLib.scene import export, frames, segments, volumes  # noqa: E402
from MedGSLib.scene.context import CONTEXT_KEY, SceneContext  # noqa: E402
from MedGSLib.scene.export import SceneInput, missingInputs, sceneToJob  # noqa: E402
from MedGSLib.scene.maker import inputVolume  # noqa: E402

SHAPE = (30, 28, 9)


@pytest.fixture
def case(make, ball, ijk_to_ras):
    """A volume and a segmentation with two balls, both under the same rotated parent."""
    parent = make.transform(make.rotation((0, 1, 1), 30, (4, 5, 6)), "Registration")
    voxels = np.random.default_rng(0).integers(-500, 800, SHAPE[::-1]).astype(np.int16)
    center = geometry.transform_points(ijk_to_ras, np.array([14.2, 13.1, 4.2]))
    masks = {"aorta": ball(ijk_to_ras, SHAPE, center, 9.0), "wall": ball(ijk_to_ras, SHAPE, center, 11.0)}
    volume = make.volume(voxels, ijk_to_ras, parent=parent)
    segmentation = make.segmentation(masks, ijk_to_ras, parent=parent)
    return volume, segmentation, voxels, masks


def test_job_holds_local_geometry_voxels_and_request(tmp_path, scene, case, ijk_to_ras):
    volume, segmentation, voxels, masks = case
    before = scene.GetNumberOfNodes()
    ids = segments.segmentIds(segmentation)
    folder = sceneToJob(tmp_path, SceneInput(volume, segmentation, (ids[0],)), {"preset": "fast", "scale": 3}, {"note": "test"})
    assert scene.GetNumberOfNodes() == before
    request = folder.read_request()
    image, matrix = volumes.readNrrd(folder.path / request.inputs.image)
    mask, mask_matrix = volumes.readNrrd(folder.path / request.inputs.mask)
    np.testing.assert_array_equal(image, voxels)
    np.testing.assert_array_equal(mask, masks["aorta"])
    for found in (matrix, mask_matrix, request.geometry.matrix):
        np.testing.assert_allclose(found, ijk_to_ras, atol=1e-6)
    assert request.parameters == {"preset": "fast", "scale": 3}
    assert request.inputs.labels[0].name == "aorta" and request.inputs.labels[0].color == pytest.approx((0.2, 0.0, 0.9))
    assert request.title == "CTA_aorta_MedGS"
    context = SceneContext.fromDict(json.loads(json.dumps(dict(request.provenance[CONTEXT_KEY]))))
    assert context.volumeName == "CTA" and context.parentName == "Registration" and context.segments[0].segmentId == ids[0]
    np.testing.assert_allclose(context.parentToWorld, frames.matrixBetween(volume.GetParentTransformNode()))
    assert request.provenance["note"] == "test"


def test_image_and_mask_are_read_by_the_library(tmp_path, case, ijk_to_ras):
    read_volume = pytest.importorskip("MedGSLib.io.volumes").read_volume
    volume, segmentation, voxels, _masks = case
    folder = sceneToJob(tmp_path, SceneInput(volume, segmentation))
    read = read_volume(folder.path / "image.nrrd")
    np.testing.assert_array_equal(read.voxels, voxels)
    np.testing.assert_allclose(read.ijk_to_ras, ijk_to_ras, atol=1e-5)


def test_overlapping_segments_keep_a_layer_each(tmp_path, case, ijk_to_ras):
    from MedGSLib.io.labels import read_segmentation

    volume, segmentation, _voxels, masks = case
    folder = sceneToJob(tmp_path, SceneInput(volume, segmentation))
    read = read_segmentation(folder.path / "mask.nrrd")
    np.testing.assert_allclose(read.ijk_to_ras, ijk_to_ras, atol=1e-5)
    for segment, name in zip(read.segments, ("aorta", "wall")):
        assert segment.label.name == name
        np.testing.assert_array_equal(read.layers[segment.layer] == segment.label.value, masks[name] > 0)
    context = SceneContext.fromDict(folder.read_request().provenance[CONTEXT_KEY])
    assert context.outputName == "CTA_aorta+wall_MedGS"


def test_labels_reach_the_library_under_their_names(tmp_path, case):
    read_labels = pytest.importorskip("MedGSLib.io.labels").read_labels
    volume, segmentation, *_ = case
    segmentation.GetSegmentation().GetNthSegment(1).SetName("aorta ")
    folder = sceneToJob(tmp_path, SceneInput(volume, segmentation))
    _, labels = read_labels(folder.path / "mask.nrrd")
    assert [label.name for label in labels] == ["aorta", "aorta (2)"]
    assert [label.name for label in folder.read_request().inputs.labels] == ["aorta", "aorta (2)"]


def test_model_to_refine_travels_with_the_job(tmp_path, case):
    model = tmp_path / "earlier.medgs"
    model.write_bytes(b"model")
    folder = sceneToJob(tmp_path / "jobs", SceneInput(case[0], case[1]), {}, refineModel=model)
    assert folder.read_request().parameters["refine_mask"] == "start.medgs"
    assert (folder.path / "start.medgs").read_bytes() == b"model"
    with pytest.raises(InputError, match="cannot be read"):
        sceneToJob(tmp_path / "other", SceneInput(case[0], case[1]), {}, refineModel=tmp_path / "absent.medgs")
    assert not list((tmp_path / "other").iterdir())


def test_image_only_job(tmp_path, case):
    folder = sceneToJob(tmp_path, SceneInput(case[0]), {"mode": "image"})
    request = folder.read_request()
    assert request.inputs.mask is None and not (folder.path / "mask.nrrd").exists()
    assert request.title == "CTA_MedGS"


def test_roi_crops_by_whole_voxels_and_shifts_the_annotated_slices(tmp_path, scene, case, ijk_to_ras):
    volume, segmentation, voxels, masks = case
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "ROI")
    roi.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    directions = np.eye(4)
    directions[:3, :3] = ijk_to_ras[:3, :3] / geometry.spacing(ijk_to_ras)
    if np.linalg.det(directions) < 0:
        directions[:3, 0] *= -1
    directions[:3, 3] = geometry.transform_points(ijk_to_ras, np.array([14.5, 13.5, 4.5]))
    roi.SetAndObserveObjectToNodeMatrix(frames.toVtkMatrix(directions))
    roi.SetSize(*(np.array([12.0, 14.0, 6.0]) * geometry.spacing(ijk_to_ras)))
    folder = sceneToJob(tmp_path, SceneInput(volume, segmentation, roiNode=roi), {"annotated": "every:4", "axis": "k"})
    image, matrix = volumes.readNrrd(folder.path / "image.nrrd")
    np.testing.assert_array_equal(image, voxels[2:8, 7:21, 9:21])
    np.testing.assert_allclose(matrix, geometry.shifted_origin(ijk_to_ras, (9, 7, 2)), atol=1e-5)
    assert folder.read_request().parameters["annotated"] == "list:2"


def test_irregular_acquisition_reaches_the_request(tmp_path, make, ball, ijk_to_ras):
    positions = np.array([0.0, 4.0, 8.0, 14.0, 18.0, 22.0, 26.0, 30.0, 34.0])
    transform = make.acquisition(positions, ijk_to_ras)
    volume = make.volume(np.zeros(SHAPE[::-1], np.int16), ijk_to_ras, parent=transform)
    mask = ball(ijk_to_ras, SHAPE, geometry.transform_points(ijk_to_ras, np.array([14.0, 13.0, 4.0])), 9.0)
    same = make.segmentation({"aorta": mask}, ijk_to_ras, parent=transform)
    source = SceneInput(volume, same)
    assert missingInputs(source, {}) == []
    folder = sceneToJob(tmp_path, source)
    request = folder.read_request()
    np.testing.assert_allclose(request.geometry.positions_mm, positions, atol=1e-6)
    written, _ = volumes.readNrrd(folder.path / "mask.nrrd")
    np.testing.assert_array_equal(written, mask)
    assert request.provenance[CONTEXT_KEY]["parentId"] == ""
    cropped, rest = export.croppedGeometry(volumes.volumeFrame(volume), volumes.Crop((2, 3, 3), (9, 9, 6)))
    np.testing.assert_allclose(rest, [0.0, 4.0, 8.0], atol=1e-6)
    normal = ijk_to_ras[:3, 2] / 4.0
    expected = geometry.transform_points(ijk_to_ras, np.array([2.0, 3.0, 0.0])) + 14.0 * normal
    np.testing.assert_allclose(cropped[:3, 3], expected, atol=1e-5)


def test_bending_transform_is_refused_or_hardened_on_a_copy(tmp_path, scene, make, ball):
    matrix = np.diag([2.0, 2.0, 5.0, 1.0])
    matrix[:3, 3] = (-28.0, -26.0, -20.0)
    bending = make.bending()
    volume = make.volume(np.full(SHAPE[::-1], 7, np.int16), matrix, parent=bending)
    segmentation = make.segmentation({"aorta": ball(matrix, SHAPE, np.zeros(3), 15.0)}, matrix, parent=bending)
    source = SceneInput(volume, segmentation)
    assert "non-linear transform 'Bending'" in " ".join(missingInputs(source, {}))
    with pytest.raises(InputError, match="Bending"):
        sceneToJob(tmp_path, source)
    assert list(tmp_path.iterdir()) == []
    nodes = scene.GetNumberOfNodes()
    hardened = SceneInput(volume, segmentation, hardenNonLinear=True)
    assert missingInputs(hardened, {}) == []
    folder = sceneToJob(tmp_path, hardened)
    assert scene.GetNumberOfNodes() == nodes and volume.GetParentTransformNode() is bending
    mask, world = volumes.readNrrd(folder.path / "mask.nrrd")
    center = geometry.transform_points(world, np.argwhere(mask)[:, ::-1].mean(axis=0))
    expected = volumes.transformPoints(frames.transformBetween(bending), np.zeros((1, 3)))[0]
    np.testing.assert_allclose(center, expected, atol=1.0)
    assert folder.read_request().provenance[CONTEXT_KEY]["parentId"] == ""


def test_missing_inputs_are_all_listed(case):
    assert missingInputs(SceneInput(None), {}) == [
        "Choose an input volume.",
        "Choose at least one segment, or 'Image only' under Advanced.",
    ]
    assert missingInputs(SceneInput(case[0]), {"mode": "image"}) == []
    assert missingInputs(SceneInput(case[0], case[1]), {}) == []
    assert missingInputs(SceneInput(case[0], case[1], ("gone",)), {}) == ["The segmentation 'Segmentation' has no segment 'gone'."]


def test_unusable_volumes_and_regions_are_complained_of_before_a_job_is_made(scene, make, case, ijk_to_ras):
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    assert missingInputs(SceneInput(empty), {"mode": "image"}) == ["The volume 'Nothing' holds no voxels."]
    flat = make.volume(np.zeros((1, 5, 6), np.int16), ijk_to_ras)
    assert "single slice" in missingInputs(SceneInput(flat), {"mode": "image"})[0]
    assert "at least 2" in missingInputs(SceneInput(flat), {"mode": "image", "axis": "k"})[0]
    flat.GetImageData().AllocateScalars(3, 3)
    assert "one value a voxel" in missingInputs(SceneInput(flat), {"mode": "image"})[0]
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "ROI")
    assert "'ROI' covers fewer" in missingInputs(SceneInput(case[0], case[1], roiNode=roi), {})[0]
    volumes.fitRegion(roi, case[0])
    assert roi.GetDisplayNode() is not None
    assert missingInputs(SceneInput(case[0], case[1], roiNode=roi), {}) == []
    assert volumes.roiCrop(roi, case[0]) == volumes.Crop((0, 0, 0), SHAPE)


def test_segment_outside_the_region_is_refused_by_name(tmp_path, scene, case, ijk_to_ras):
    volume, segmentation, *_ = case
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Corner")
    roi.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    roi.SetCenter(*geometry.transform_points(ijk_to_ras, np.array([1.0, 1.0, 1.0])))
    roi.SetSize(8.0, 8.0, 8.0)
    with pytest.raises(InputError, match="'aorta' is empty inside 'Corner'"):
        sceneToJob(tmp_path, SceneInput(volume, segmentation, roiNode=roi))


def test_hardened_job_remembers_the_user_s_volume(tmp_path, scene, make):
    volume = make.volume(np.full(SHAPE[::-1], 7, np.int16), np.diag([2.0, 2.0, 5.0, 1.0]), parent=make.bending())
    folder = sceneToJob(tmp_path, SceneInput(volume, hardenNonLinear=True), {"mode": "image"})
    context = SceneContext.fromDict(folder.read_request().provenance[CONTEXT_KEY])
    assert inputVolume(scene, context) is volume and context.volumeIjkToRas is None


def test_empty_segment_is_refused_by_name(tmp_path, case):
    volume, segmentation, *_ = case
    empty = segmentation.GetSegmentation().AddEmptySegment("", "nothing")
    with pytest.raises(InputError, match="'nothing' is empty"):
        sceneToJob(tmp_path, SceneInput(volume, segmentation, (empty,)))


def test_failed_write_leaves_no_folder(tmp_path, case, monkeypatch):
    def full(*_arguments: object, **_options: object) -> None:
        raise export.InputError("disk")

    monkeypatch.setattr(volumes, "writeNrrd", full)
    with pytest.raises(MedGSError):
        sceneToJob(tmp_path, SceneInput(case[0]), {"mode": "image"})
    assert list(tmp_path.iterdir()) == []


def test_sequence_item_is_remembered(tmp_path, scene, case):
    volume = case[0]
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cardiac")
    sequence.SetDataNodeAtValue(volume, "0")
    sequence.SetDataNodeAtValue(volume, "40")
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    browser.AddSynchronizedSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(volume, sequence, False)
    browser.SetSelectedItemNumber(1)
    folder = sceneToJob(tmp_path, SceneInput(volume), {"mode": "image"})
    remembered = folder.read_request().provenance[CONTEXT_KEY]
    assert remembered["sequence"]["item"] == "1"
    assert "Of the sequence 'Cardiac' this is the item with" in remembered["notes"][0] and "40" in remembered["notes"][0]


def test_window_and_units_are_remembered(tmp_path, case):
    volume = case[0]
    display = volume.GetScalarVolumeDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(350, 40)
    display.SetInterpolate(False)
    code = slicer.vtkCodedEntry()
    code.SetValueSchemeMeaning("[hnsf'U]", "UCUM", "Hounsfield unit")
    volume.SetVoxelValueUnits(code)
    look = SceneContext.fromDict(sceneToJob(tmp_path, SceneInput(volume), {"mode": "image"}).read_request().provenance[CONTEXT_KEY]).look
    assert look.windowLevel == (350.0, 40.0) and look.interpolate is False and "UCUM" in look.units
