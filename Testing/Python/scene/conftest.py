"""A real MRML scene for each test (``slicer-core`` wheel), and nodes with geometry that catches mistakes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Callable, Iterator

import numpy as np
import pytest

try:
    import slicer
    import vtk

    from MedGSLib import geometry
    from MedGSLib.scene import frames, segments, volumes
except ImportError:  # without the slicer-core wheel each test module skips itself, with the reason
    slicer = None

GEOMETRIES = ("ras", "lps", "oblique", "permuted", "left-handed")


def rotation(axis: tuple[float, float, float], degrees: float, translation: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """A rigid 4x4 matrix."""
    transform = vtk.vtkTransform()
    transform.Translate(*translation)
    transform.RotateWXYZ(degrees, *axis)
    return frames.toArray(transform.GetMatrix())


def geometries() -> dict[str, np.ndarray]:
    """ijkToRas matrices 1.0 x 1.2 x 4.0 mm that a reconstruction must not confuse."""
    scale = np.diag([1.0, 1.2, 4.0, 1.0])
    permuted = np.zeros((4, 4))
    permuted[2, 0], permuted[0, 1], permuted[1, 2], permuted[3, 3] = 1.0, 1.2, 4.0, 1.0
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ scale
    lps[:3, 3] = (30.0, 20.0, -15.0)
    left_handed = np.diag([1.0, 1.0, -1.0, 1.0]) @ scale
    return {
        "ras": scale,
        "lps": lps,
        "oblique": rotation((1, 2, 3), 33, (5, -7, 11)) @ scale,
        "permuted": permuted,
        "left-handed": left_handed,
    }


@pytest.fixture(params=GEOMETRIES)
def ijk_to_ras(request: pytest.FixtureRequest) -> np.ndarray:
    """Each of :func:`geometries` in turn."""
    return geometries()[request.param]


@pytest.fixture
def scene() -> Iterator[object]:
    """An empty scene that is also ``slicer.mrmlScene``, with the segmentation converters registered."""
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    sequences = slicer.vtkSlicerSequencesLogic()
    sequences.SetMRMLScene(scene)
    scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
    yield scene
    scene.Clear(True)
    slicer.mrmlScene = None


@pytest.fixture
def make(scene: object) -> SimpleNamespace:
    """Functions that put nodes into the scene."""

    def volume(array: np.ndarray, matrix: np.ndarray, name: str = "CTA", parent: object = None) -> object:
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        volumes.setVoxels(node, array, matrix)
        node.CreateDefaultDisplayNodes()
        if parent is not None:
            node.SetAndObserveTransformNodeID(parent.GetID())
        return node

    def segmentation(masks: dict[str, np.ndarray], matrix: np.ndarray, name: str = "Segmentation", parent: object = None) -> object:
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        for number, (segment, mask) in enumerate(masks.items()):
            properties = segments.SegmentProperties(segment, (0.2, 0.1 * number, 0.9), terminology=f"code~{segment}")
            segments.addSegment(node.GetSegmentation(), properties, mask, matrix)
        if parent is not None:
            node.SetAndObserveTransformNodeID(parent.GetID())
        return node

    def transform(matrix: np.ndarray, name: str = "Transform", parent: object = None) -> object:
        node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
        node.SetMatrixTransformToParent(frames.toVtkMatrix(matrix))
        if parent is not None:
            node.SetAndObserveTransformNodeID(parent.GetID())
        return node

    def bending(parent: object = None) -> object:
        node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "Bending")
        source, target = vtk.vtkPoints(), vtk.vtkPoints()
        for point in np.ndindex(2, 2, 2):
            position = np.array(point) * 60.0 - 30.0
            source.InsertNextPoint(*position)
            target.InsertNextPoint(*(position + (4.0 * np.sin(position.sum()), 2.0, 0.0)))
        spline = vtk.vtkThinPlateSplineTransform()
        spline.SetBasisToR()
        spline.SetSourceLandmarks(source)
        spline.SetTargetLandmarks(target)
        node.SetAndObserveTransformToParent(spline)
        if parent is not None:
            node.SetAndObserveTransformNodeID(parent.GetID())
        return node

    def acquisition(positions_mm: np.ndarray, matrix: np.ndarray, lateral: np.ndarray | None = None) -> object:
        """A grid transform that puts the slices at ``positions_mm``, as the DICOM reader makes it (2 x 2 x slices)."""
        slices = len(positions_mm)
        mm = geometry.spacing(matrix)
        shift = np.zeros((slices, 2, 2, 3))
        normal = matrix[:3, 2] / mm[2]
        shift += ((positions_mm - np.arange(slices) * mm[2])[:, None] * normal)[:, None, None]
        if lateral is not None:
            shift += lateral[:, None, None, :]
        grid = vtk.vtkImageData()
        grid.SetDimensions(2, 2, slices)
        grid.SetSpacing(mm[0] * 100, mm[1] * 100, mm[2])
        scalars = vtk.util.numpy_support.numpy_to_vtk(shift.reshape(-1, 3), deep=True)
        grid.GetPointData().SetScalars(scalars)
        grid.SetOrigin(*matrix[:3, 3])
        directions = np.eye(4)
        directions[:3, :3] = matrix[:3, :3] / mm
        oriented = slicer.vtkOrientedGridTransform()
        oriented.SetDisplacementGridData(grid)
        oriented.SetGridDirectionMatrix(frames.toVtkMatrix(directions))
        node = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "CTA acquisition transform")
        node.SetAndObserveTransformToParent(oriented)
        return node

    return SimpleNamespace(
        volume=volume, segmentation=segmentation, transform=transform, bending=bending, acquisition=acquisition, rotation=rotation
    )


@pytest.fixture
def ball() -> Callable[..., np.ndarray]:
    """``ball(matrix, shape_ijk, center_ras, radius)``: a ball's mask on a voxel grid."""

    def mask(matrix: np.ndarray, shape_ijk: tuple[int, int, int], center: np.ndarray, radius: float) -> np.ndarray:
        k, j, i = np.meshgrid(*(np.arange(n) for n in shape_ijk[::-1]), indexing="ij")
        ras = geometry.transform_points(matrix, np.stack([i, j, k], axis=-1))
        return (np.linalg.norm(ras - center, axis=-1) <= radius).astype(np.uint8)

    return mask
