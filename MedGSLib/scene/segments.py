"""Segments as arrays on a volume's grid, and arrays as segments with their name, colour and terminology."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix
from MedGSLib.scene import frames, volumes
from MedGSLib.scene.volumes import Crop

LABELMAP = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
SURFACE = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
GEOMETRY_PARAMETER = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()


@dataclass(frozen=True)
class SegmentProperties:
    """What a segment carries from the input to the outputs: how it is called, coloured, coded and shown."""

    name: str
    color: Tuple[float, float, float]
    terminology: str = ""
    opacity: float = 1.0
    visible: bool = True

    def asDict(self) -> Dict[str, Any]:
        """:return: the properties for JSON."""
        return asdict(self)

    @staticmethod
    def fromDict(values: Dict[str, Any]) -> SegmentProperties:
        """The counterpart of :meth:`asDict`; unknown keys are ignored."""
        red, green, blue = (float(value) for value in values["color"])
        return SegmentProperties(
            name=str(values["name"]),
            color=(red, green, blue),
            terminology=str(values.get("terminology", "")),
            opacity=float(values.get("opacity", 1.0)),
            visible=bool(values.get("visible", True)),
        )


def segmentIds(segmentationNode: slicer.vtkMRMLSegmentationNode) -> List[str]:
    """The IDs of all segments, in their order."""
    segmentation = segmentationNode.GetSegmentation()
    return [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]


def segmentProperties(segmentationNode: slicer.vtkMRMLSegmentationNode, segmentId: str) -> SegmentProperties:
    """The properties of a segment.

    :raises InputError: if there is no such segment.
    """
    segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
    if segment is None:
        raise InputError(f"The segmentation '{segmentationNode.GetName()}' has no segment '{segmentId}'.")
    terminology = vtk.reference("")
    if not segment.GetTag(segment.GetTerminologyEntryTagName(), terminology):
        terminology = ""
    display = segmentationNode.GetDisplayNode()
    red, green, blue = segment.GetColor()
    return SegmentProperties(
        name=segment.GetName(),
        color=(red, green, blue),
        terminology=str(terminology),
        opacity=1.0 if display is None else display.GetSegmentOpacity3D(segmentId),
        visible=True if display is None else bool(display.GetSegmentVisibility(segmentId)),
    )


@dataclass(frozen=True)
class SegmentBlock:
    """A segment on the voxel grid of a volume: uint8 0 or 1 in the block ``crop`` of the volume, and nothing of it elsewhere."""

    array: NDArray[np.uint8]
    crop: Crop

    def within(self, crop: Crop) -> SegmentBlock:
        """What of it lies in a part of the volume, counted from the start of that part."""
        start = np.minimum(np.maximum(self.crop.start, crop.start), crop.stop)
        stop = np.maximum(np.minimum(self.crop.stop, crop.stop), start)
        own = volumes.shiftedCrop(start, stop, self.crop.start)
        return SegmentBlock(self.array[own.slices], volumes.shiftedCrop(start, stop, crop.start))


def segmentArray(
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    segmentId: str,
    volumeNode: slicer.vtkMRMLVolumeNode,
    allowNonLinear: bool = False,
) -> NDArray[np.uint8]:
    """A segment on all voxels of a volume; see :func:`segmentBlock`.

    :return: uint8 0 or 1, ``[k, j, i]`` of the volume.
    """
    block = segmentBlock(segmentationNode, segmentId, volumeNode, allowNonLinear)
    array = np.zeros(volumes.voxels(volumeNode).shape, np.uint8)
    array[block.crop.slices] = block.array
    return array


def segmentBlock(
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    segmentId: str,
    volumeNode: slicer.vtkMRMLVolumeNode,
    allowNonLinear: bool = False,
) -> SegmentBlock:
    """A segment on the voxel grid of a volume, whatever the segment's own geometry and parent transform.

    Only the voxels around the segment are looked at: resampling a segment onto a whole CT would stop the application for seconds.

    :return: a voxel is set where its centre lies in the segment.
    :raises InputError: if there is no such segment, it has no shape, or it lies under a non-linear transform that the volume is not
        under and ``allowNonLinear`` is off.
    """
    segmentParent, volumeParent = segmentationNode.GetParentTransformNode(), volumeNode.GetParentTransformNode()
    matrix, grid = _toVolume(segmentationNode, volumeNode), volumes.ijkToRas(volumeNode)
    if not allowNonLinear:
        requireUsableTransform(segmentationNode, volumeNode)
    crop = Crop.whole(volumes.voxels(volumeNode).shape)
    labelmap = _binaryLabelmap(segmentationNode, segmentId, volumes.orientedGrid(crop.shape, grid), matrix)
    if labelmap is None or labelmap.IsEmpty():
        return SegmentBlock(np.zeros(crop.shape, np.uint8), crop)
    if matrix is not None:
        crop = volumes.boxCrop(_filledCorners(labelmap), segmentParent, volumeNode)
    if 0 in crop.shape:
        return SegmentBlock(np.zeros(crop.shape, np.uint8), crop)
    transform = frames.transformBetween(segmentParent, volumeParent)
    if matrix is not None and np.allclose(matrix, np.eye(4), atol=1e-9):
        transform = None
    reference = volumes.orientedGrid(crop.shape, geometry.shifted_origin(grid, crop.start))
    resampled = slicer.vtkOrientedImageData()
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    if not resample(labelmap, reference, resampled, False, False, transform):
        name = segmentationNode.GetSegmentation().GetSegment(segmentId).GetName()
        raise InputError(f"The segment '{name}' could not be brought onto the voxels of '{volumeNode.GetName()}'.")
    array = numpy_support.vtk_to_numpy(resampled.GetPointData().GetScalars()).reshape(crop.shape)
    return SegmentBlock((array > 0).astype(np.uint8), crop)


def _filledCorners(labelmap: slicer.vtkOrientedImageData) -> NDArray[np.float64]:
    """The corners (8, 3) of a box around the voxels that are set, one voxel wider on each side."""
    extent = [0] * 6
    if not slicer.vtkOrientedImageDataResample.CalculateEffectiveExtent(labelmap, extent):
        extent = list(labelmap.GetExtent())
    return _extentCorners(labelmap, np.array(extent, dtype=np.float64), 1.5)


def _extentCorners(labelmap: slicer.vtkOrientedImageData, extent: NDArray[np.float64], wider: float) -> NDArray[np.float64]:
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    return geometry.transform_points(frames.toArray(matrix), volumes.boxCorners(extent[::2] - wider, extent[1::2] + wider))


def boundingCorners(segment: slicer.vtkSegment) -> NDArray[np.float64]:
    """The corners (8, 3) of a box around a segment, in the segmentation's frame; (0, 3) for an empty one."""
    labelmap = segment.GetRepresentation(LABELMAP)
    if labelmap is not None and not labelmap.IsEmpty():
        return _extentCorners(labelmap, np.array(labelmap.GetExtent(), dtype=np.float64), 0.5)
    bounds = [0.0] * 6
    segment.GetBounds(bounds)
    if bounds[0] >= bounds[1]:
        return np.zeros((0, 3))
    return volumes.boxCorners(np.array(bounds[::2]), np.array(bounds[1::2]))


def requireUsableTransform(segmentationNode: slicer.vtkMRMLSegmentationNode, volumeNode: slicer.vtkMRMLVolumeNode) -> None:
    """Refuse a segmentation under a transform that bends space and that its volume is not under as well.

    :raises InputError: with the advice to harden it.
    """
    if _toVolume(segmentationNode, volumeNode) is None:
        frames.requireLinear(segmentationNode)


def _toVolume(segmentationNode: slicer.vtkMRMLSegmentationNode, volumeNode: slicer.vtkMRMLVolumeNode) -> Optional[Matrix]:
    """The 4x4 matrix from the segmentation's frame to the volume's, or None where it is not linear."""
    segmentParent, volumeParent = segmentationNode.GetParentTransformNode(), volumeNode.GetParentTransformNode()
    return np.eye(4) if segmentParent is volumeParent else frames.matrixBetween(segmentParent, volumeParent)


def _binaryLabelmap(
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    segmentId: str,
    reference: slicer.vtkOrientedImageData,
    toReference: Optional[Matrix],
) -> Optional[slicer.vtkOrientedImageData]:
    """The segment as its own labelmap; a segment drawn as surface is converted on a copy, on the grid of ``reference`` where linear."""
    segmentation = segmentationNode.GetSegmentation()
    if segmentation.GetSegment(segmentId) is None:
        raise InputError(f"The segmentation '{segmentationNode.GetName()}' has no segment '{segmentId}'.")
    if segmentation.ContainsRepresentation(LABELMAP):
        labelmap = slicer.vtkOrientedImageData()
        return labelmap if segmentationNode.GetBinaryLabelmapRepresentation(segmentId, labelmap) else None
    copy = slicer.vtkSegmentation()
    copy.SetSourceRepresentationName(segmentation.GetSourceRepresentationName())
    copy.CopySegmentFromSegmentation(segmentation, segmentId)
    if toReference is not None:
        grid = slicer.vtkOrientedImageData()
        grid.ShallowCopy(reference)
        matrix = vtk.vtkMatrix4x4()
        reference.GetImageToWorldMatrix(matrix)
        grid.SetImageToWorldMatrix(frames.toVtkMatrix(np.linalg.inv(toReference) @ frames.toArray(matrix)))
        copy.SetConversionParameter(GEOMETRY_PARAMETER, slicer.vtkSegmentationConverter.SerializeImageGeometry(grid))
    if not copy.CreateRepresentation(LABELMAP):
        raise InputError(f"The segment '{segmentId}' of '{segmentationNode.GetName()}' has no shape that can be turned into voxels.")
    return copy.GetSegment(segmentId).GetRepresentation(LABELMAP)


def labelmapOf(blocks: Sequence[SegmentBlock], shape: Tuple[int, ...]) -> Optional[NDArray[np.uint8]]:
    """Segments as one label map ``[k, j, i]`` with the values 1, 2, ..., or None where they overlap, which a label map cannot hold."""
    labels = np.zeros(shape, np.uint8)
    for value, block in enumerate(blocks, start=1):
        part, inside = labels[block.crop.slices], block.array > 0
        if np.any(part[inside]):
            return None
        part[inside] = value
    return labels


def layersOf(blocks: Sequence[SegmentBlock], shape: Tuple[int, ...]) -> NDArray[np.uint8]:
    """Segments that may overlap, each with its value in a layer of its own: ``[k, j, i, layer]``."""
    layers = np.zeros((*shape, len(blocks)), np.uint8)
    for layer, block in enumerate(blocks):
        layers[block.crop.slices][..., layer] = block.array * np.uint8(layer + 1)
    return layers


def filledSegmentation(
    parts: Sequence[Tuple[SegmentProperties, NDArray, Optional[vtk.vtkPolyData]]], matrix: Matrix
) -> slicer.vtkSegmentation:
    """A segmentation with one segment for each (properties, voxels, closed surface or None).

    The surfaces are what Slicer shows in 3D; where one segment lacks it, none is kept, since all segments have the same representations.
    """
    segmentation = slicer.vtkSegmentation()
    segmentation.SetSourceRepresentationName(LABELMAP)
    complete = all(surface is not None for _properties, _array, surface in parts)
    for properties, array, surface in parts:
        addSegment(segmentation, properties, array.astype(np.uint8), matrix, surface if complete else None)
    return segmentation


def addSegment(
    segmentation: slicer.vtkSegmentation,
    properties: SegmentProperties,
    array: NDArray[np.uint8],
    matrix: Matrix,
    surface: Optional[vtk.vtkPolyData] = None,
) -> str:
    """Append a segment with a labelmap of its own extent and, where given, the closed surface that Slicer shows in 3D.

    :param array: ``[k, j, i]``, non-zero inside; ``matrix`` its 4x4 ijkToRas in the segmentation's frame.
    :return: the ID of the new segment.
    """
    segment = slicer.vtkSegment()
    segment.SetName(properties.name)
    segment.SetColor(*properties.color)
    if properties.terminology:
        segment.SetTag(segment.GetTerminologyEntryTagName(), properties.terminology)
    segment.AddRepresentation(LABELMAP, _ownLabelmap(array > 0, matrix))
    if surface is not None:
        segment.AddRepresentation(SURFACE, surface)
    segmentId = segmentation.GenerateUniqueSegmentID(properties.name)
    segmentation.AddSegment(segment, segmentId)
    return segmentId


def _ownLabelmap(inside: NDArray[np.bool_], matrix: Matrix) -> slicer.vtkOrientedImageData:
    """The filled part of a mask on the mask's own lattice; a hundred segments of a whole CT would not fit into memory."""
    places = [np.flatnonzero(inside.any(axis=others)) for others in ((0, 1), (0, 2), (1, 2))]
    if not len(places[0]):
        places = [np.zeros(1, np.int64)] * 3
    start, stop = np.array([place[0] for place in places]), np.array([place[-1] + 1 for place in places])
    crop = volumes.shiftedCrop(start, stop, (0, 0, 0))
    image = volumes.orientedImage(inside[crop.slices].astype(np.uint8), matrix)
    image.SetExtent([int(bound) for pair in zip(start, stop - 1) for bound in pair])
    return image
