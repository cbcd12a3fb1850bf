"""How much work a job would be, before anything is run."""

from __future__ import annotations

from typing import Any, List, Mapping

import numpy as np
from numpy.typing import NDArray

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.scene import frames, segments, volumes
from MedGSLib.scene.export import SceneInput, chosenSegmentIds
from MedGSLib.scene.volumes import Crop


def outputVoxels(source: SceneInput, parameters: Mapping[str, Any]) -> int:
    """The number of voxels that the dense result will have, roughly: segments count by their bounding boxes.

    :param parameters: as in :class:`MedGSLib.job.request.JobRequest`.
    :return: 0 where the input cannot be used.
    """
    volumeNode = source.volumeNode
    if volumeNode is None or volumeNode.GetImageData() is None:
        return 0
    try:
        crop = _crop(source, parameters)
        matrix = volumes.ijkToRas(volumeNode)
        axis = geometry.slice_axis(matrix, volumeNode.GetImageData().GetDimensions(), parameters.get("axis", "auto"))
    except InputError:
        return 0
    size = np.array(crop.stop) - np.array(crop.start)
    size[axis] = max(0, (size[axis] - 1) * scaleOf(matrix, axis, parameters) + 1)
    return int(np.prod(size, dtype=np.int64))


def scaleOf(matrix: NDArray[np.float64], axis: int, parameters: Mapping[str, Any]) -> int:
    """Output slices for each gap between input slices."""
    mm = geometry.spacing(matrix)
    if "scale" in parameters:
        return int(parameters["scale"])
    if "spacing" in parameters:
        return max(1, round(float(mm[axis]) / float(parameters["spacing"])))
    return geometry.default_scale(float(mm[axis]), float(min(np.delete(mm, axis))))


def _crop(source: SceneInput, parameters: Mapping[str, Any]) -> Crop:
    i, j, k = source.volumeNode.GetImageData().GetDimensions()
    whole = Crop((0, 0, 0), (i, j, k)) if source.roiNode is None else volumes.roiCrop(source.roiNode, source.volumeNode)
    corners = _segmentCorners(source) if parameters.get("crop", True) else []
    if source.segmentationNode is None or not corners or not frames.isLinear(source.volumeNode.GetParentTransformNode()):
        return whole
    parent = source.segmentationNode.GetParentTransformNode()
    inner = volumes.boxCrop(np.concatenate(corners), parent, source.volumeNode, float(parameters.get("margin", 10.0)))
    start = tuple(max(pair) for pair in zip(whole.start, inner.start))
    stop = tuple(min(pair) for pair in zip(whole.stop, inner.stop))
    return Crop(start, stop)  # type: ignore[arg-type]


def _segmentCorners(source: SceneInput) -> List[NDArray[np.float64]]:
    found: List[NDArray[np.float64]] = []
    if source.segmentationNode is None:
        return found
    for segmentId in chosenSegmentIds(source):
        segment = source.segmentationNode.GetSegmentation().GetSegment(segmentId)
        if segment is not None:
            found.append(segments.boundingCorners(segment))
    return [corners for corners in found if len(corners)]
