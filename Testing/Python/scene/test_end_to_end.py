"""One run as a user makes it: real CT in a real scene under a rotated parent, a real worker process, nodes in the right place."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")
sitk = pytest.importorskip("SimpleITK")
pytest.importorskip("numba")
if importlib.util.find_spec("torch") is None:
    pytest.skip("the worker needs torch", allow_module_level=True)

from MedGSLib.io.labels import read_labels  # noqa: E402
from MedGSLib.io.volumes import read_volume  # noqa: E402
from MedGSLib.job.launch import WorkerCommand  # noqa: E402
from MedGSLib.job.process import JobState  # noqa: E402
from MedGSLib.mesh import occupancy_to_mesh  # noqa: E402
from MedGSLib.metrics_surface import surface_distance  # noqa: E402
from MedGSLib.scene import frames, segments, volumes  # noqa: E402
from MedGSLib.scene.export import SceneInput  # noqa: E402
from MedGSLib.scene.nodes import OutputChoice  # noqa: E402

EVERY = 3
LONGEST_S = 1200.0
BLOCK = (slice(40, 71), slice(20, 100), slice(25, 105))
"""Thirty slices of the chest with the descending aorta, so that the test stays short."""


@pytest.fixture
def thick(shared_data: Path, make):
    """The CT and its aorta with every third slice only, under a rotated parent; and the aorta in full resolution."""
    image = read_volume(shared_data / "ct_aorta_dissection_ts" / "image.nii.gz")
    mask, _labels = read_labels(shared_data / "ct_aorta_dissection_ts" / "seg_aorta_orig.nii.gz")
    np.testing.assert_allclose(mask.ijk_to_ras, image.ijk_to_ras, atol=1e-4)
    matrix = image.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, :3] @ np.array([part.start for part in reversed(BLOCK)])
    full = (mask.voxels[BLOCK] > 0).astype(np.uint8)
    thick_matrix = matrix.copy()
    thick_matrix[:3, 2] *= EVERY
    parent = make.transform(make.rotation((1, 2, 1), 40, (10, -20, 30)), "Registration")
    volume = make.volume(image.voxels[BLOCK][::EVERY], thick_matrix, parent=parent)
    segmentation = make.segmentation({"aorta": full[::EVERY]}, thick_matrix, parent=parent)
    return volume, segmentation, parent, full, matrix


def test_real_ct_through_a_real_worker(tmp_path, scene, thick, monkeypatch):
    from MedGSLib.panel.session import PanelSession, importJob, isFinished

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    volume, segmentation, parent, full, matrix = thick
    session = PanelSession()
    command = WorkerCommand(Path(sys.executable))
    parameters = {"preset": "fast", "scale": EVERY, "device": "cpu", "seed": 1}
    job = session.submit(tmp_path, SceneInput(volume, segmentation), parameters, OutputChoice(), command)
    stages, end = set(), time.monotonic() + LONGEST_S
    while job.state.is_active:
        stages |= {event.stage for event in session.poll().events}
        assert time.monotonic() < end
        time.sleep(0.1)
    assert job.state is JobState.SUCCEEDED, (job.failure, (job.folder.path / "console.log").read_text()[-2000:])
    assert isFinished(job) and {"prior", "fit", "render", "surface"} <= stages
    made = importJob(scene, job.folder)
    _check_volume(made.volume, volume, parent)
    _check_surface(made.models[0], full, matrix, parent)
    name = segments.segmentProperties(made.segmentation, segments.segmentIds(made.segmentation)[0]).name
    assert name == "aorta" and made.segmentation.GetParentTransformNode() is parent
    assert made.models[0].GetPolyData().GetPointData().GetArray("PositionUncertaintyMm") is not None
    rows = [made.table.GetTable().GetValue(row, 0).ToString() for row in range(made.table.GetNumberOfRows())]
    assert "segments / aorta / volume" in rows


def _check_volume(made, volume, parent) -> None:
    """Acquired slices come out as they went in, at the same place in the world."""
    assert made.GetParentTransformNode() is parent
    dense, thick = volumes.voxels(made), volumes.voxels(volume)
    index = np.linalg.inv(volumes.ijkToRas(volume)) @ volumes.ijkToRas(made)
    start = np.round(index[:3, 3]).astype(int)
    np.testing.assert_allclose(index[:3, 3], start, atol=1e-3)
    kept = dense[::EVERY]
    i, j, k = start
    same = thick[k : k + kept.shape[0], j : j + kept.shape[1], i : i + kept.shape[2]]
    assert np.abs(kept.astype(float) - same).max() <= 1.0


def _check_surface(model, full, matrix, parent) -> None:
    """In the world: closer to the surface of the full-resolution segment than a voxel, and the right way round."""
    world = frames.matrixBetween(parent)
    truth = occupancy_to_mesh(full.astype(np.float32), world @ matrix)
    moved = vtk.vtkTransformPolyDataFilter()
    moved.SetInputData(model.GetPolyData())
    moved.SetTransform(frames.transformBetween(parent))
    moved.Update()
    distance = surface_distance(moved.GetOutput(), truth)
    voxel = float(np.linalg.norm(matrix[:3, 0]))
    assert distance.chamfer_mm < voxel, distance


def run_worker(root: Path, source: SceneInput, parameters: dict) -> object:
    """Let a real worker finish a job."""
    from MedGSLib.panel.session import PanelSession

    session = PanelSession()
    job = session.submit(root, source, parameters, OutputChoice(), WorkerCommand(Path(sys.executable)))
    end = time.monotonic() + LONGEST_S
    while job.state.is_active:
        session.poll()
        assert time.monotonic() < end
        time.sleep(0.05)
    assert job.state is JobState.SUCCEEDED, (job.failure, (job.folder.path / "console.log").read_text()[-2000:])
    return job


def distances(mesh, center: np.ndarray) -> np.ndarray:
    """How far the points of a surface lie from a point."""
    return np.linalg.norm(vtk.util.numpy_support.vtk_to_numpy(mesh.GetPoints().GetData()) - center, axis=1)


QUICK = {"preset": "fast", "mode": "mask", "scale": 3, "device": "cpu", "threads": 1, "overrides": {"iterations": 60}}


def test_segments_beside_and_inside_each_other_come_back_whole(tmp_path, scene, make, ball):
    from MedGSLib.panel.session import importJob

    matrix = make.rotation((1, 0, 2), 25, (10, 20, 30)) @ np.diag([-1.0, -1.0, 3.0, 1.0])
    shape = (44, 30, 9)
    left, right = (matrix[:3, :3] @ np.array(index) + matrix[:3, 3] for index in ([13.0, 15.0, 4.0], [33.0, 15.0, 4.0]))
    balls = {"wall of it!": (left, 9.0), "lumen": (left, 5.0), "right": (right, 7.0)}
    masks = {name: ball(matrix, shape, *where) for name, where in balls.items()}
    volume = make.volume(np.zeros(shape[::-1], np.int16), matrix)
    job = run_worker(tmp_path, SceneInput(volume, make.segmentation(masks, matrix)), QUICK)
    made = importJob(scene, job.folder)
    assert made.volume is None and [model.GetName() for model in made.models] == [f"CTA_{name}_MedGS" for name in balls]
    for model, segment, (center, radius) in zip(made.models, segments.segmentIds(made.segmentation), balls.values()):
        assert np.abs(distances(model.GetPolyData(), center) - radius).mean() < 0.5
        labelmap = slicer.vtkOrientedImageData()
        made.segmentation.GetBinaryLabelmapRepresentation(segment, labelmap)
        voxels = vtk.util.numpy_support.vtk_to_numpy(labelmap.GetPointData().GetScalars())
        volume_mm3 = np.count_nonzero(voxels) * np.prod(labelmap.GetSpacing())
        assert volume_mm3 == pytest.approx(4.0 / 3.0 * np.pi * radius**3, rel=0.12)


def test_irregular_acquisition_comes_back_in_the_right_place(tmp_path, scene, make):
    from MedGSLib.panel.session import importJob

    matrix = make.rotation((0, 1, 0), 20) @ np.diag([1.0, 1.0, 3.0, 1.0])
    positions = np.array([0.0, 3.0, 6.0, 9.0, 15.0, 18.0, 21.0, 24.0])
    transform = make.acquisition(positions, matrix)
    center = np.array([14.0, 14.0, 12.5])
    k, j, i = np.meshgrid(positions, np.arange(30.0), np.arange(30.0), indexing="ij")
    mask = (np.linalg.norm(np.stack([i, j, k], axis=-1) - center, axis=-1) <= 9.0).astype(np.uint8)
    volume = make.volume(np.zeros(mask.shape, np.int16), matrix, parent=transform)
    segmentation = make.segmentation({"ball": mask}, matrix, parent=transform)
    job = run_worker(tmp_path, SceneInput(volume, segmentation), QUICK)
    model = importJob(scene, job.folder).models[0]
    assert model.GetParentTransformNode() is None
    rotation = matrix[:3, :3] / np.array([1.0, 1.0, 3.0])
    assert np.abs(distances(model.GetPolyData(), rotation @ center) - 9.0).mean() < 0.6
