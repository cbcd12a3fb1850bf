"""From finished jobs to nodes: place, look, names, provenance, failure, saving and reloading."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")
pytest.importorskip("SimpleITK")

sys.path.insert(0, str(Path(__file__).parent))

from finished import finish, sphere_error, write_manifest  # noqa: E402

from MedGSLib import geometry  # noqa: E402
from MedGSLib.errors import InputError  # noqa: E402
from MedGSLib.scene import frames, nodes, segments, volumes  # noqa: E402
from MedGSLib.scene.export import SceneInput, sceneToJob  # noqa: E402
from MedGSLib.scene.nodes import OutputChoice, resultToScene  # noqa: E402
from MedGSLib.scene.results import acquiredSlices  # noqa: E402

SHAPE = (34, 30, 9)
RADIUS = 11.0


@pytest.fixture
def center(ijk_to_ras) -> np.ndarray:
    return geometry.transform_points(ijk_to_ras, np.array([16.4, 14.2, 4.3]))


@pytest.fixture
def job(tmp_path, make, ball, ijk_to_ras, center):
    """A finished job of one ball whose volume and segmentation lie under a rotated, scaled parent."""
    parent = make.transform(make.rotation((0, 1, 1), 30, (4, 5, 6)) @ np.diag([1.05, 1.05, 1.05, 1.0]), "Registration")
    volume = make.volume(np.zeros(SHAPE[::-1], np.int16), ijk_to_ras, parent=parent)
    display = volume.GetScalarVolumeDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(350, 40)
    display.SetInterpolate(False)
    segmentation = make.segmentation({"aorta": ball(ijk_to_ras, SHAPE, center, RADIUS)}, ijk_to_ras, parent=parent)
    segmentation.GetDisplayNode().SetSegmentOpacity3D(segments.segmentIds(segmentation)[0], 0.6)
    folder = sceneToJob(tmp_path, SceneInput(volume, segmentation), {"preset": "fast", "seed": 3, "axis": "k"}, {"slicer": "5.12"})
    finish(folder, [(center, RADIUS)], SHAPE)
    return volume, segmentation, folder.path


def test_everything_lies_where_the_input_lies(scene, job, ijk_to_ras, center):
    volume, _segmentation, folder = job
    made = resultToScene(scene, folder)
    assert [node.GetName() for node in made.all] == ["CTA_aorta_MedGS"] * 4
    parent = volume.GetParentTransformNode()
    for node in (made.volume, made.segmentation, made.models[0]):
        assert node.GetParentTransformNode() is parent
    expected = ijk_to_ras.copy()
    expected[:3, 2] /= 4
    np.testing.assert_allclose(volumes.ijkToRas(made.volume), expected, atol=1e-4)
    assert made.volume.GetImageData().GetDimensions() == (34, 30, 33)
    # the brightest voxel is the middle of the ball
    array = volumes.voxels(made.volume)
    peak = np.array(np.unravel_index(array.argmax(), array.shape))[::-1]
    assert np.linalg.norm(geometry.transform_points(expected, peak.astype(float)) - center) < 1.0
    assert sphere_error(made.models[0].GetPolyData(), center, RADIUS) < 0.25
    # in the world: the ball as the parent moves and enlarges it
    world = made.models[0].GetParentTransformNode()
    points = vtk.vtkTransformPolyDataFilter()
    points.SetInputData(made.models[0].GetPolyData())
    points.SetTransform(frames.transformBetween(world))
    points.Update()
    assert sphere_error(points.GetOutput(), geometry.transform_points(frames.matrixBetween(world), center), 1.05 * RADIUS) < 0.25


def test_segment_in_is_segment_out_within_half_a_voxel(scene, job, center):
    volume, segmentation, folder = job
    made = resultToScene(scene, folder)
    ids = segments.segmentIds(made.segmentation)
    array = segments.segmentArray(made.segmentation, ids[0], made.volume)
    dense = volumes.ijkToRas(made.volume)
    k, j, i = np.meshgrid(*(np.arange(n) for n in array.shape), indexing="ij")
    distance = np.linalg.norm(geometry.transform_points(dense, np.stack([i, j, k], axis=-1)) - center, axis=-1)
    wrong = array.astype(bool) != (distance <= RADIUS)
    assert np.abs(distance[wrong] - RADIUS).max(initial=0.0) <= 0.5
    back = segments.segmentArray(made.segmentation, ids[0], volume)
    np.testing.assert_array_equal(back, segments.segmentArray(segmentation, segments.segmentIds(segmentation)[0], volume))


def test_look_name_colour_and_terminology_are_kept(scene, job):
    _volume, segmentation, folder = job
    made = resultToScene(scene, folder)
    display = made.volume.GetScalarVolumeDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetInterpolate(), display.GetAutoWindowLevel()) == (350, 40, 0, 0)
    original = segments.segmentProperties(segmentation, segments.segmentIds(segmentation)[0])
    assert segments.segmentProperties(made.segmentation, segments.segmentIds(made.segmentation)[0]) == original
    model = made.models[0].GetDisplayNode()
    assert model.GetColor() == pytest.approx(original.color) and model.GetOpacity() == pytest.approx(0.6)
    assert model.GetVisibility2D() and not model.GetScalarVisibility()
    assert made.models[0].GetPolyData().GetPointData().GetArray("PositionUncertaintyMm").GetRange() == pytest.approx((0.4, 0.4))
    assert model.GetActiveScalarName() == "PositionUncertaintyMm"
    assert not made.segmentation.GetDisplayNode().GetVisibility3D()


def test_slicer_shows_the_exact_surface_and_the_reference_grid(scene, job, center):
    made = resultToScene(scene, job[2])
    surface = made.segmentation.GetSegmentation().GetNthSegment(0).GetRepresentation(segments.SURFACE)
    assert sphere_error(surface, center, RADIUS) < 0.25
    role = made.segmentation.GetReferenceImageGeometryReferenceRole()
    assert made.segmentation.GetNodeReference(role) is made.volume
    text = made.segmentation.GetSegmentation().GetConversionParameter(segments.GEOMETRY_PARAMETER)
    assert text.strip(";").endswith("0;33;0;29;0;32")


def test_provenance_and_interpolated_slices_are_on_every_node(scene, job):
    made = resultToScene(scene, job[2])
    for node in made.all:
        stated = json.loads(node.GetAttribute(nodes.PROVENANCE_ATTRIBUTE))
        assert stated["parameters"] == {"preset": "fast", "seed": 3, "axis": "k"}
        assert (stated["volume"], stated["segments"], stated["slicer"]) == ("CTA", ["aorta"], "5.12")
        assert stated["versions"]["backend"] == "cpu" and stated["medgs"]
        assert node.GetAttribute(nodes.ACQUIRED_ATTRIBUTE) == "0,4,8,12,16,20,24,28,32"
        assert node.GetAttribute(nodes.AXIS_ATTRIBUTE) == "k" and node.GetAttribute(nodes.INTERPOLATED_ATTRIBUTE) == "1"
        assert "24 of 33 slices along k are interpolated; acquired were the slices 0, 4, ..., 32" in node.GetDescription()


def test_table_lists_measures_with_units(scene, job):
    table = resultToScene(scene, job[2]).table
    rows = [[table.GetTable().GetValue(row, column).ToString() for column in range(3)] for row in range(3)]
    assert rows[0] == ["segments / aorta / volume", "3.05", "cm3"]
    assert rows[1] == ["segments / aorta / max diameter", "18", "mm"]
    assert rows[2] == ["self check / image / medgs / psnr", "31.5", "dB"]


def test_inputs_are_untouched_and_a_second_import_makes_new_nodes(scene, job):
    volume, segmentation, folder = job
    before = (volume.GetImageData().GetMTime(), segmentation.GetSegmentation().GetMTime())
    first, second = resultToScene(scene, folder), resultToScene(scene, folder)
    assert (volume.GetImageData().GetMTime(), segmentation.GetSegmentation().GetMTime()) == before
    assert first.volume is not second.volume and second.volume.GetName() == "CTA_aorta_MedGS_1"


def test_existing_nodes_are_filled_on_request(scene, job):
    targets = [scene.AddNewNodeByClass(f"vtkMRML{kind}Node", "mine") for kind in ("ScalarVolume", "Segmentation", "Model")]
    before = scene.GetNumberOfNodesByClass("vtkMRMLVolumeNode")
    made = resultToScene(scene, job[2], OutputChoice(True, True, True, False, False, True, *targets))
    assert [made.volume, made.segmentation, made.models[0]] == targets
    assert scene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == before
    assert targets[2].GetName() == "mine" and targets[2].GetPolyData().GetNumberOfPoints() > 100


def test_only_what_was_chosen_is_made(scene, job):
    made = resultToScene(scene, job[2], OutputChoice(volume=False, segmentation=False, table=False))
    assert len(made.all) == 1 and made.models


def test_outputs_follow_the_input_to_its_new_transform(scene, make, job):
    volume, _segmentation, folder = job
    moved = make.transform(make.rotation((1, 0, 0), 5), "Corrected")
    volume.SetAndObserveTransformNodeID(moved.GetID())
    assert resultToScene(scene, folder).volume.GetParentTransformNode() is moved


def test_import_into_an_empty_scene_keeps_the_place_in_the_world(scene, job):
    volume, _segmentation, folder = job
    world = frames.matrixBetween(volume.GetParentTransformNode())
    scene.Clear(False)
    made = resultToScene(scene, folder)
    np.testing.assert_allclose(frames.matrixBetween(made.volume.GetParentTransformNode()), world, atol=1e-9)
    assert made.models[0].GetParentTransformNode().GetName() == "Registration"
    assert made.segmentation.GetSegmentation().GetNthSegment(0).GetName() == "aorta"


@pytest.mark.parametrize("broken", ["segmentation.nrrd", "mesh.vtp"])
def test_a_damaged_result_adds_nothing(scene, job, broken):
    folder = job[2]
    before = scene.GetNumberOfNodes()
    (folder / "output" / broken).write_bytes(b"damaged")
    with pytest.raises(InputError, match="changed"):
        resultToScene(scene, folder)
    write_manifest(nodes.loadResult.__globals__["JobFolder"](folder))  # the hashes fit again, the content does not
    with pytest.raises(InputError):
        resultToScene(scene, folder)
    assert scene.GetNumberOfNodes() == before


def test_a_failure_half_way_is_undone(scene, job, monkeypatch):
    before = scene.GetNumberOfNodes()
    monkeypatch.setattr(nodes._Importer, "_table", lambda _self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        resultToScene(scene, job[2])
    assert scene.GetNumberOfNodes() == before


def test_an_unfinished_job_is_refused(scene, job):
    (job[2] / "result.json").unlink()
    with pytest.raises(InputError):
        resultToScene(scene, job[2])


@pytest.mark.parametrize("form", ["mrml", "mrb"])
def test_saving_and_reloading_the_scene(tmp_path, scene, job, form):
    made = resultToScene(scene, job[2])
    provenance = made.volume.GetAttribute(nodes.PROVENANCE_ATTRIBUTE)
    world = np.zeros(6)
    made.models[0].GetRASBounds(world)
    target = tmp_path / "saved"
    target.mkdir()
    _save(scene, target, form)
    again = slicer.vtkMRMLScene()
    slicer.mrmlScene = again
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(again)
    if form == "mrml":
        again.SetURL(str(target / "scene.mrml"))
        assert again.Connect()
    else:
        cache, manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        cache.SetRemoteCacheDirectory(str(target))
        manager.SetCacheManager(cache)
        again.SetCacheManager(cache)
        again.SetDataIOManager(manager)
        assert again.ReadFromMRB(str(target / "scene.mrb"))
    volume = again.GetFirstNodeByName("CTA_aorta_MedGS")
    assert volume.GetAttribute(nodes.PROVENANCE_ATTRIBUTE) == provenance
    assert "interpolated" in volume.GetDescription()
    model = again.GetNodesByClassByName("vtkMRMLModelNode", "CTA_aorta_MedGS").GetItemAsObject(0)
    bounds = np.zeros(6)
    model.GetRASBounds(bounds)
    np.testing.assert_allclose(bounds, world, atol=1e-3)
    assert model.GetPolyData().GetPointData().GetArray("PositionUncertaintyMm") is not None
    segmentation = again.GetNodesByClassByName("vtkMRMLSegmentationNode", "CTA_aorta_MedGS").GetItemAsObject(0)
    assert segments.segmentProperties(segmentation, segments.segmentIds(segmentation)[0]).terminology == "code~aorta"
    assert segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole()) is volume
    again.Clear(True)


def _save(scene, folder: Path, form: str) -> None:
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLStorableNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLStorableNode")
        if node.GetSaveWithScene() and not node.IsA("vtkMRMLColorNode"):
            node.AddDefaultStorageNode()
            storage = node.GetStorageNode()
            if storage is not None and form == "mrml":
                storage.SetFileName(str(folder / f"{node.GetID()}.{storage.GetDefaultWriteFileExtension()}"))
                assert storage.WriteData(node), node.GetName()
    if form == "mrml":
        scene.SetRootDirectory(str(folder))
        scene.SetURL(str(folder / "scene.mrml"))
        assert scene.Commit()
    else:
        assert scene.WriteToMRB(str(folder / "scene.mrb"))


def test_outputs_join_the_study_of_the_input(scene, job):
    volume, _segmentation, folder = job
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
    study = hierarchy.CreateStudyItem(patient, "Study")
    hierarchy.CreateItem(study, volume)
    made = resultToScene(scene, folder)
    for node in made.all:
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_along_other_axes(tmp_path, scene, make, ball, axis):
    matrix = make.rotation((1, 1, 0), 20) @ np.diag([1.0, 1.0, 1.0, 1.0])
    matrix[:3, axis] *= 4.0
    shape = [30, 30, 30]
    shape[axis] = 8
    center = geometry.transform_points(matrix, (np.array(shape) - 1) / 2.0)
    volume = make.volume(np.zeros(shape[::-1], np.int16), matrix)
    segmentation = make.segmentation({"a": ball(matrix, tuple(shape), center, 9.0)}, matrix)
    folder = sceneToJob(tmp_path, SceneInput(volume, segmentation))
    finish(folder, [(center, 9.0)], tuple(shape), axis=axis)
    made = resultToScene(scene, folder.path)
    assert made.volume.GetImageData().GetDimensions()[axis] == 29
    assert made.volume.GetAttribute(nodes.AXIS_ATTRIBUTE) == "ijk"[axis]
    assert made.volume.GetAttribute(nodes.ACQUIRED_ATTRIBUTE) == "0,4,8,12,16,20,24,28"
    assert sphere_error(made.models[0].GetPolyData(), center, 9.0) < 0.25


def test_several_segments(tmp_path, scene, make, ball):
    matrix = np.diag([-1.0, -1.0, 4.0, 1.0])
    centers = [geometry.transform_points(matrix, np.array(index)) for index in ([9.0, 15.0, 4.0], [25.0, 15.0, 4.0])]
    masks = {name: ball(matrix, SHAPE, center, 6.0) for name, center in zip(("left", "right"), centers)}
    folder = sceneToJob(tmp_path, SceneInput(make.volume(np.zeros(SHAPE[::-1], np.int16), matrix), make.segmentation(masks, matrix)))
    finish(folder, [(center, 6.0) for center in centers], SHAPE)
    made = resultToScene(scene, folder.path)
    assert made.segmentation.GetName() == "CTA_left+right_MedGS"
    assert [model.GetName() for model in made.models] == ["CTA_left_MedGS", "CTA_right_MedGS"]
    for model, center in zip(made.models, centers):
        assert sphere_error(model.GetPolyData(), center, 6.0) < 0.25
    assert made.segmentation.GetSegmentation().GetNumberOfSegments() == 2


@pytest.mark.parametrize("suffix", [".vtp", ".stl", ".ply"])
def test_slicer_opens_the_mesh_files_in_the_same_place(job, ijk_to_ras, center, suffix):
    from MedGSLib.io.meshes import read_mesh, write_mesh

    path = job[2] / f"copy{suffix}"
    write_mesh(read_mesh(job[2] / "output" / "mesh.vtp"), path)
    node, storage = slicer.vtkMRMLModelNode(), slicer.vtkMRMLModelStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    assert sphere_error(node.GetPolyData(), center, RADIUS) < 0.25


def test_acquired_slices_of_irregular_stacks():
    from MedGSLib.job.request import JobGeometry

    inputs = JobGeometry.from_matrix(np.diag([1.0, 1.0, 4.0, 1.0]), np.array([0.0, 4.0, 10.0, 14.0]))
    found = acquiredSlices(inputs, np.diag([1.0, 1.0, 2.0, 1.0]), (5, 5, 8))
    assert found.indices == (0, 2, 5, 7) and found.axis == 2
    assert "acquired were the slices 0, 2, 5, 7" in found.sentence


def test_acquired_slices_of_nearly_regular_stacks_are_those_of_the_worker():
    from MedGSLib.geometry import output_grid
    from MedGSLib.job.request import JobGeometry

    positions = np.array([0.0, 5.0, 10.1, 15.0, 20.0])
    grid = output_grid(positions, scale=3)
    inputs = JobGeometry.from_matrix(np.diag([1.0, 1.0, 5.0, 1.0]), positions)
    found = acquiredSlices(inputs, np.diag([1.0, 1.0, grid.spacing_mm, 1.0]), (5, 5, len(grid)))
    assert found.indices == tuple(grid.acquired) == (0, 3, 6, 9, 12)


def test_job_from_the_command_line_can_be_imported(scene, job):
    folder = job[2]
    document = json.loads((folder / "request.json").read_text())
    document["provenance"] = {}
    (folder / "request.json").write_text(json.dumps(document))
    made = resultToScene(scene, folder)
    assert made.models[0].GetParentTransformNode() is None
    assert made.segmentation.GetSegmentation().GetNthSegment(0).GetName() == "aorta"


def test_looking_for_names_keeps_no_node_in_memory(scene, make):
    from MedGSLib.scene.context import nodeByHint
    from MedGSLib.scene.maker import NodeMaker

    node = make.volume(np.zeros((2, 2, 2), np.int16), np.eye(4))
    before = node.GetReferenceCount()
    assert nodeByHint(scene, "", "CTA", "vtkMRMLScalarVolumeNode") is node
    assert nodeByHint(scene, "", "absent", "vtkMRMLScalarVolumeNode") is None
    assert NodeMaker(scene).new("vtkMRMLScalarVolumeNode", "CTA").GetName() == "CTA_1"
    assert node.GetReferenceCount() == before


def test_result_is_not_filed_with_another_patient_whose_volume_has_the_same_name(scene, make, job, ijk_to_ras):
    _volume, _segmentation, folder = job
    scene.Clear(False)
    other = make.volume(np.zeros(SHAPE[::-1], np.int16), geometry.shifted_origin(ijk_to_ras, (0, 0, 2)))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Another patient")
    hierarchy.CreateItem(patient, other)
    made = resultToScene(scene, folder)
    assert made.volume.GetParentTransformNode().GetName() == "Registration"
    assert hierarchy.GetItemByDataNode(made.volume) == 0


def test_the_input_is_never_the_place_for_an_output(scene, job):
    volume, segmentation, folder = job
    choice = OutputChoice(volumeNode=volume, segmentationNode=segmentation)
    made = resultToScene(scene, folder, choice)
    assert made.volume is not volume and made.segmentation is not segmentation
    assert volume.GetImageData().GetDimensions() == SHAPE


def test_surfaces_are_shown_and_hidden_in_3d_only(scene, job):
    made = resultToScene(scene, job[2], OutputChoice(show3D=False))
    assert not nodes.isShownIn3D(made)
    nodes.showIn3D(made, True)
    display = made.models[0].GetDisplayNode()
    assert nodes.isShownIn3D(made) and display.GetVisibility() and not made.segmentation.GetDisplayNode().GetVisibility3D()
    nodes.showIn3D(made, False)
    assert display.GetVisibility() and not display.GetVisibility3D()
    alone = resultToScene(scene, job[2], OutputChoice(model=False, show3D=False))
    nodes.showIn3D(alone, True)
    assert alone.segmentation.GetDisplayNode().GetVisibility3D()
    scene.RemoveNode(alone.segmentation)
    nodes.showIn3D(alone, True)
    assert not nodes.isShownIn3D(alone)


def test_what_is_not_wanted_is_not_read(scene, job, monkeypatch):
    read = []
    original = volumes.readNrrd
    monkeypatch.setattr(volumes, "readNrrd", lambda path: read.append(path.name) or original(path))
    resultToScene(scene, job[2], OutputChoice(volume=False))
    assert read == ["segmentation.nrrd"]


def test_remarks_are_on_every_node(scene, job):
    path = job[2] / "output" / "report.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps({**report, "remarks": ["The slices overlap."]}))
    write_manifest(nodes.loadResult.__globals__["JobFolder"](job[2]))
    for node in resultToScene(scene, job[2]).all:
        assert node.GetDescription().endswith("The slices overlap.")
