"""Volume nodes as arrays and files: voxels, geometry, irregular acquisitions, crops and sequence items."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from MedGSLib import geometry
from MedGSLib.errors import InputError, ResourceError
from MedGSLib.geometry import Matrix
from MedGSLib.scene import frames

ACQUISITION_TOLERANCE_PX = 0.1
"""A slice may deviate from a pure shift along the stack by this fraction of a pixel and still count as shifted."""

STUDY_DATE_ATTRIBUTE = "MedGS.studyDate"
"""Node attribute of volumes that do not come from DICOM."""


@dataclass(frozen=True)
class VolumeFrame:
    """Where the voxels of a volume lie for the job.

    :ivar ijkToRas: 4x4, of the whole volume, in mm, in the frame below ``parent``.
    :ivar parent: the transform node that the outputs go under, or None for the world.
    :ivar positionsMm: slice positions (K,) along k from 0 where the acquisition was irregular, else None.
    :ivar notes: sentences that the user should read.
    """

    ijkToRas: Matrix
    parent: Optional[slicer.vtkMRMLTransformNode] = None
    positionsMm: Optional[NDArray[np.float64]] = None
    notes: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Crop:
    """A block of whole voxels: ``start`` (i, j, k) inclusive, ``stop`` exclusive."""

    start: Tuple[int, int, int]
    stop: Tuple[int, int, int]

    @classmethod
    def whole(cls, shape: Tuple[int, ...]) -> Crop:
        """All voxels of a ``[k, j, i]`` array of this shape."""
        k, j, i = shape
        return cls((0, 0, 0), (i, j, k))

    @property
    def shape(self) -> Tuple[int, int, int]:
        """The size of the block as ``[k, j, i]`` array."""
        i, j, k = (last - first for first, last in zip(self.start, self.stop))
        return k, j, i

    @property
    def slices(self) -> Tuple[slice, slice, slice]:
        """The block as index of a ``[k, j, i]`` array."""
        i, j, k = (slice(first, last) for first, last in zip(self.start, self.stop))
        return k, j, i


def ijkToRas(volumeNode: slicer.vtkMRMLVolumeNode) -> Matrix:
    """The volume's own 4x4 matrix from voxel index to RAS mm, parent transforms not applied."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return frames.toArray(matrix)


def voxels(volumeNode: slicer.vtkMRMLVolumeNode) -> NDArray:
    """The voxels ``[k, j, i]`` without a copy.

    :raises InputError: if the volume is empty or has more than one component a voxel.
    """
    image = volumeNode.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        raise InputError(f"The volume '{volumeNode.GetName()}' holds no voxels.")
    if image.GetNumberOfScalarComponents() != 1:
        raise InputError(f"The volume '{volumeNode.GetName()}' is a colour or vector image, and MedGS needs one value a voxel.")
    i, j, k = image.GetDimensions()
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k, j, i)


def orientedGrid(shape: Tuple[int, ...], matrix: Matrix) -> slicer.vtkOrientedImageData:
    """The place of voxels ``[k, j, i]`` in space without their values."""
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*shape[::-1])
    image.SetImageToWorldMatrix(frames.toVtkMatrix(matrix))
    return image


def orientedImage(array: NDArray, matrix: Matrix) -> slicer.vtkOrientedImageData:
    """Voxels ``[k, j, i]`` with their 4x4 ijkToRas as VTK image in space."""
    image = orientedGrid(array.shape, matrix)
    scalars = numpy_support.numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    return image


def setVoxels(volumeNode: slicer.vtkMRMLVolumeNode, array: NDArray, matrix: Matrix) -> None:
    """Give a volume node its voxels ``[k, j, i]`` and its 4x4 ijkToRas."""
    image = orientedImage(array, np.eye(4))
    plain = vtk.vtkImageData()
    plain.ShallowCopy(image)
    volumeNode.SetAndObserveImageData(plain)
    volumeNode.SetIJKToRASMatrix(frames.toVtkMatrix(matrix))


def writeNrrd(path: Path, array: NDArray, matrix: Matrix) -> None:
    """Write voxels ``[k, j, i]`` and their RAS ijkToRas as NRRD (LPS in the file, as everywhere), uncompressed since it is soon read.

    :raises ResourceError: if the file cannot be written.
    """
    node = slicer.vtkMRMLScalarVolumeNode()
    setVoxels(node, _writable(array), matrix)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(False)
    if not storage.WriteData(node) or not path.is_file():
        raise ResourceError(f"'{path.name}' could not be written to '{path.parent}': check the free space and the permissions.")


def _writable(array: NDArray) -> NDArray:
    """The voxels in a type that Slicer's writer knows, which has neither signed bytes nor 64-bit integers."""
    if array.dtype == np.int8:
        return array.astype(np.int16)
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8:
        return array
    narrow = np.iinfo(np.int32)
    return array.astype(np.int32 if narrow.min <= array.min() and array.max() <= narrow.max else np.float64)


def readNrrd(path: Path) -> Tuple[NDArray, Matrix]:
    """:return: the voxels ``[k, j, i]`` and the RAS ijkToRas of a volume file.

    :raises InputError: if the file is missing or unreadable.
    """
    node = slicer.vtkMRMLScalarVolumeNode()
    storage = slicer.vtkMRMLNRRDStorageNode()  # unlike the archetype reader, it leaves left-handed volumes as they are
    storage.SetFileName(str(path))
    if not path.is_file() or not storage.ReadData(node):
        raise InputError(f"The result file '{path.name}' in '{path.parent}' is missing or cannot be read.")
    return voxels(node).copy(), ijkToRas(node)


def volumeFrame(volumeNode: slicer.vtkMRMLVolumeNode) -> VolumeFrame:
    """The frame in which a volume is reconstructed: its own where the parent transforms are linear, the one below the acquisition
    transform's parent where a transform merely puts the slices at irregular positions.

    :raises InputError: for any other non-linear transform.
    """
    parent = volumeNode.GetParentTransformNode()
    matrix = frames.matrixBetween(parent)
    if matrix is not None:
        notes: Tuple[str, ...] = ()
        if not frames.isRigid(matrix):
            notes = (f"The transform '{parent.GetName()}' scales the volume: lengths and volumes are reported as before that transform.",)
        return VolumeFrame(ijkToRas(volumeNode), parent, None, notes)
    frame = _acquisitionFrame(volumeNode)
    if frame is None:
        frames.requireLinear(volumeNode)
        raise InputError(f"The transform of '{volumeNode.GetName()}' cannot be used.")
    return frame


def _acquisitionFrame(volumeNode: slicer.vtkMRMLVolumeNode) -> Optional[VolumeFrame]:
    """The frame of a volume whose parent transform only shifts each slice along the stack (Slicer's acquisition transform)."""
    parent = volumeNode.GetParentTransformNode()
    above = parent.GetParentTransformNode()
    if not frames.isLinear(above):
        return None
    matrix = ijkToRas(volumeNode)
    mm = geometry.spacing(matrix)
    shifts = _sliceShifts(volumeNode, matrix, frames.transformBetween(parent, above))
    tolerance = ACQUISITION_TOLERANCE_PX * float(mm[:2].min())
    if np.abs(shifts - shifts.mean(axis=1, keepdims=True)).max() > tolerance:
        return None
    shift = shifts.mean(axis=1)
    normal = matrix[:3, 2] / mm[2]
    along = shift @ normal
    lateral = shift - along[:, None] * normal
    if np.abs(lateral - lateral[0]).max() > tolerance:
        return None
    positions = np.arange(len(along)) * mm[2] + along
    gaps = np.diff(positions)
    if len(gaps) == 0 or gaps.min() <= 0:
        return None
    moved = matrix.copy()
    moved[:3, 3] += shift[0]
    moved[:3, 2] = normal * float(np.median(gaps))
    irregular = np.ptp(gaps) > geometry.UNIFORM_TOLERANCE * float(np.median(gaps))
    note = (
        f"The slices of '{volumeNode.GetName()}' lie {gaps.min():.3g} to {gaps.max():.3g} mm apart (acquisition transform); "
        "their true positions are used."
    )
    return VolumeFrame(moved, above, positions - positions[0] if irregular else None, (note,) if irregular else ())


def _sliceShifts(volumeNode: slicer.vtkMRMLVolumeNode, matrix: Matrix, transform: vtk.vtkAbstractTransform) -> NDArray[np.float64]:
    """How far the transform moves four points of each slice: (K, 4, 3) mm."""
    i, j, k = volumeNode.GetImageData().GetDimensions()
    inPlane = [(fi * (i - 1), fj * (j - 1)) for fi in (0.05, 0.95) for fj in (0.05, 0.95)]
    indices = np.array([[(column, row, float(index)) for column, row in inPlane] for index in range(k)])
    points = geometry.transform_points(matrix, indices)
    return np.asarray(transformPoints(transform, points.reshape(-1, 3)).reshape(points.shape) - points)


def transformPoints(transform: vtk.vtkAbstractTransform, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 3) through a VTK transform."""
    return np.array([transform.TransformPoint(*point) for point in points.tolist()])


def roiCrop(roiNode: slicer.vtkMRMLMarkupsROINode, volumeNode: slicer.vtkMRMLVolumeNode) -> Crop:
    """The smallest block of whole voxels that covers a region of interest, whatever the transforms of the two.

    :raises InputError: if they do not overlap, or the block has fewer than two voxels along an axis.
    """
    half = np.array(roiNode.GetSize()) / 2.0
    box = geometry.transform_points(frames.toArray(roiNode.GetObjectToNodeMatrix()), boxCorners(-half, half))
    crop = boxCrop(box, roiNode.GetParentTransformNode(), volumeNode)
    if min(last - first for first, last in zip(crop.start, crop.stop)) < 2:
        raise InputError(f"The region '{roiNode.GetName()}' covers fewer than two voxels of '{volumeNode.GetName()}' along an axis.")
    return crop


def fitRegion(roiNode: slicer.vtkMRMLMarkupsROINode, volumeNode: slicer.vtkMRMLVolumeNode) -> None:
    """Put a region of interest around a whole volume, from where it is easily made smaller."""
    bounds = [0.0] * 6
    volumeNode.GetRASBounds(bounds)
    low, high = np.array(bounds[::2]), np.array(bounds[1::2])
    roiNode.SetCenterWorld(*(low + high) / 2.0)
    roiNode.SetSizeWorld(*(high - low))
    roiNode.CreateDefaultDisplayNodes()


def boxCorners(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """The eight corners (8, 3) of an axis-aligned box."""
    return np.array([(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])


def boxCrop(
    corners: NDArray[np.float64], parent: Optional[slicer.vtkMRMLTransformNode], volumeNode: slicer.vtkMRMLVolumeNode, marginMm: float = 0.0
) -> Crop:
    """The smallest block of whole voxels that covers points (N, 3) given in the frame below ``parent``, clipped to the volume."""
    local = transformPoints(frames.transformBetween(parent, volumeNode.GetParentTransformNode()), corners)
    matrix = ijkToRas(volumeNode)
    index = geometry.transform_points(np.asarray(np.linalg.inv(matrix)), local)
    size = np.array(volumeNode.GetImageData().GetDimensions())
    margin = marginMm / geometry.spacing(matrix)
    start = np.clip(np.floor(index.min(axis=0) - margin + 0.5 + 1e-6), 0, size).astype(int)
    stop = np.clip(np.ceil(index.max(axis=0) + margin + 0.5 - 1e-6), 0, size).astype(int)
    return Crop(_triple(start), _triple(np.maximum(start, stop)))


def shiftedCrop(start: NDArray, stop: NDArray, origin: Tuple[int, int, int]) -> Crop:
    """A block (i, j, k) counted from another voxel."""
    return Crop(_triple(np.subtract(start, origin)), _triple(np.subtract(stop, origin)))


def _triple(values: NDArray) -> Tuple[int, int, int]:
    i, j, k = (int(value) for value in values)
    return i, j, k


def sequenceItem(volumeNode: slicer.vtkMRMLVolumeNode) -> Optional[Dict[str, str]]:
    """Which item of a sequence the volume shows at the moment, or None for a volume that is no sequence's proxy."""
    for browser in _nodes(volumeNode.GetScene(), "vtkMRMLSequenceBrowserNode"):
        sequence = browser.GetSequenceNode(volumeNode)
        if sequence is None:
            continue
        number = browser.GetSelectedItemNumber()
        return {
            "sequence": sequence.GetName(),
            "item": str(number),
            "count": str(sequence.GetNumberOfDataNodes()),
            "index": f"{sequence.GetIndexName()} = {sequence.GetNthIndexValue(number)} {sequence.GetIndexUnit()}".strip(),
        }
    return None


def studyDate(volumeNode: slicer.vtkMRMLVolumeNode) -> str:
    """When a volume was acquired, as YYYYMMDD: from its own attribute, else from its DICOM study; empty where nobody says."""
    own = volumeNode.GetAttribute(STUDY_DATE_ATTRIBUTE)
    if own:
        return str(own)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    item = hierarchy.GetItemByDataNode(volumeNode) if hierarchy is not None else 0
    while item and item != hierarchy.GetSceneItemID():
        date = hierarchy.GetItemAttribute(item, "DICOM.StudyDate")
        if date:
            return str(date)
        item = hierarchy.GetItemParent(item)
    return ""


def _nodes(scene: slicer.vtkMRMLScene, className: str) -> List[slicer.vtkMRMLNode]:
    return [scene.GetNthNodeByClass(index, className) for index in range(scene.GetNumberOfNodesByClass(className))]
