"""The sample aneurysm, made on the user's machine as two dated time points; nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Tuple

import slicer

from MedGSLib.scene import segments, volumes
from MedGSLib.scene.context import nodesNamed

CATEGORY = "MedGS"


@dataclass(frozen=True)
class TimePoint:
    """One scan of the sample: its name, its date, how far the wall has grown since the first one, and how the patient lies.

    :ivar shift: mm in R, A, S; ``turn``: degrees about S.
    """

    name: str
    date: str
    growthMm: float
    shift: Tuple[float, float, float]
    turn: float
    gapMm: float
    seed: int
    size: Tuple[int, int, int] = (84, 84, 24)


TIME_POINTS = (
    TimePoint("MedGSAneurysm2024", "20240301", 0.0, (0.0, 0.0, 0.0), 0.0, 5.0, 1),
    TimePoint("MedGSAneurysm2025", "20250301", 5.0, (5.0, -4.0, 4.0), 6.0, 5.0, 2),
)


def register(thumbnail: str) -> None:
    """List the sample in the Sample Data module, once."""
    import SampleData

    known = {source.sampleName for source in SampleData.SampleDataLogic.sampleDataSourcesByCategory(CATEGORY)}
    for point in TIME_POINTS:
        if point.name not in known:
            SampleData.SampleDataLogic.registerCustomSampleDataSource(
                category=CATEGORY,
                sampleName=point.name,
                uris=[],
                fileNames=[],
                nodeNames=[],
                thumbnailFileName=thumbnail,
                customDownloader=makeFromSource,
            )


def makeFromSource(source: Any) -> List[slicer.vtkMRMLNode]:
    """What the Sample Data module calls: the nodes of one time point."""
    return makeTimePoint(next(point for point in TIME_POINTS if point.name == source.sampleName))


def makeTimePoint(point: TimePoint) -> List[slicer.vtkMRMLNode]:
    """Scan the sample and put volume and segmentation into the scene, or find them there.

    :return: the volume and the segmentation.
    """
    names = (("vtkMRMLScalarVolumeNode", point.name), ("vtkMRMLSegmentationNode", f"{point.name}_Segmentation"))
    found = [nodesNamed(slicer.mrmlScene, kind, name) for kind, name in names]
    if all(found):
        return [nodes[0] for nodes in found]
    from MedGSLib.phantom import Acquisition, make_aneurysm  # brings scipy along, which no start of Slicer should wait for
    from MedGSLib.phantom_shape import AneurysmShape

    acquisition = Acquisition(size=point.size, gap_mm=point.gapMm, seed=point.seed, study_date=point.date)
    phantom = make_aneurysm(AneurysmShape(growth_mm=point.growthMm), acquisition, _pose(point))
    volume = slicer.mrmlScene.AddNewNodeByClass(*names[0])
    volumes.setVoxels(volume, phantom.image.voxels, phantom.image.ijk_to_ras)
    volume.SetAttribute(volumes.STUDY_DATE_ATTRIBUTE, point.date)
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevel(500, 100)
    segmentation = slicer.mrmlScene.AddNewNodeByClass(*names[1])
    segmentation.CreateDefaultDisplayNodes()
    for label in phantom.segments:
        mask = (phantom.labels.voxels == label.value).astype("uint8")
        segments.addSegment(
            segmentation.GetSegmentation(), segments.SegmentProperties(label.name, label.color), mask, phantom.labels.ijk_to_ras
        )
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    return [volume, segmentation]


def _pose(point: TimePoint) -> Any:
    import numpy as np

    angle = np.deg2rad(point.turn)
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[:3, 3] = point.shift
    return pose
