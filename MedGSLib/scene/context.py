"""What a job remembers of the scene it came from, kept as plain JSON in the job's provenance.

With it a result finds its way back: under the right transform, with the look of the input, even after the scene was closed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

import slicer

from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix
from MedGSLib.scene import frames
from MedGSLib.scene.segments import SegmentProperties

Rows = Tuple[Tuple[float, ...], ...]
"""A 4x4 matrix as JSON has it."""

CONTEXT_KEY = "scene"
"""The entry of the job's provenance that holds :meth:`SceneContext.asDict`."""


@dataclass(frozen=True)
class VolumeLook:
    """How a volume is shown and in which unit its values are; empty texts where the node does not say.

    :ivar windowLevel: window width and level in voxel values.
    """

    windowLevel: Optional[Tuple[float, float]] = None
    interpolate: bool = True
    colorNodeId: str = ""
    quantity: str = ""
    units: str = ""

    @staticmethod
    def of(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> VolumeLook:
        """Read the look of a volume node."""
        display = volumeNode.GetScalarVolumeDisplayNode()
        quantity, units = volumeNode.GetVoxelValueQuantity(), volumeNode.GetVoxelValueUnits()
        return VolumeLook(
            windowLevel=None if display is None else (display.GetWindow(), display.GetLevel()),
            interpolate=True if display is None else bool(display.GetInterpolate()),
            colorNodeId="" if display is None else display.GetColorNodeID() or "",
            quantity="" if quantity is None else quantity.GetAsString(),
            units="" if units is None else units.GetAsString(),
        )

    def applyTo(self, volumeNode: slicer.vtkMRMLScalarVolumeNode) -> None:
        """Give a volume node this look."""
        volumeNode.CreateDefaultDisplayNodes()
        display = volumeNode.GetScalarVolumeDisplayNode()
        if display is not None:
            if self.windowLevel is not None:
                display.AutoWindowLevelOff()
                display.SetWindowLevel(*self.windowLevel)
            display.SetInterpolate(self.interpolate)
            if self.colorNodeId and volumeNode.GetScene().GetNodeByID(self.colorNodeId) is not None:
                display.SetAndObserveColorNodeID(self.colorNodeId)
        for text, setter in ((self.quantity, volumeNode.SetVoxelValueQuantity), (self.units, volumeNode.SetVoxelValueUnits)):
            if text:
                code = slicer.vtkCodedEntry()
                code.SetFromString(text)
                setter(code)


@dataclass(frozen=True)
class SegmentSource:
    """One segment of the input and the value it has in the job's label map."""

    segmentId: str
    value: int
    properties: SegmentProperties


@dataclass(frozen=True)
class SceneContext:
    """The input nodes of a job. IDs are only hints: they are believed when the node's name still fits.

    :ivar volumeIjkToRas: the volume's own 4x4 where the job works in the volume's own frame; None where it was hardened or regularised.
    :ivar gridIjkToRas: the volume's own 4x4 in any case, by which it is told from another patient's volume of the same name.
    :ivar parentToWorld: 4x4 of the transform that outputs go under, so that they can be placed without that node.
    :ivar studyDate: YYYYMMDD, or empty where nobody knows.
    :ivar notes: sentences that the user should read.
    """

    volumeId: str
    volumeName: str
    look: VolumeLook = field(default_factory=VolumeLook)
    volumeIjkToRas: Optional[Rows] = None
    gridIjkToRas: Optional[Rows] = None
    segmentationId: str = ""
    segmentationName: str = ""
    segments: Tuple[SegmentSource, ...] = ()
    parentId: str = ""
    parentName: str = ""
    parentToWorld: Optional[Rows] = None
    sequence: Optional[Dict[str, str]] = None
    roiName: str = ""
    studyDate: str = ""
    notes: Tuple[str, ...] = ()

    @property
    def outputName(self) -> str:
        """``<Volume>_<Segment>_MedGS``; several segments are joined by ``+``, more than three are counted."""
        names = [source.properties.name for source in self.segments]
        middle = "+".join(names) if len(names) <= 3 else f"{len(names)} segments"
        return "_".join(part for part in (self.volumeName, middle, "MedGS") if part)

    def segmentOutputName(self, source: SegmentSource) -> str:
        """The name of the model of one segment."""
        return f"{self.volumeName}_{source.properties.name}_MedGS"

    def asDict(self) -> Dict[str, Any]:
        """:return: the context for JSON."""
        return asdict(self)

    @staticmethod
    def fromDict(values: Mapping[str, Any]) -> SceneContext:
        """The counterpart of :meth:`asDict`.

        :raises InputError: if entries are missing or malformed.
        """
        try:
            look = values.get("look") or {}
            window = look.get("windowLevel")
            return SceneContext(
                volumeId=str(values["volumeId"]),
                volumeName=str(values["volumeName"]),
                look=VolumeLook(**{**look, "windowLevel": None if window is None else (float(window[0]), float(window[1]))}),
                volumeIjkToRas=_rows(values.get("volumeIjkToRas")),
                gridIjkToRas=_rows(values.get("gridIjkToRas")),
                segmentationId=str(values.get("segmentationId", "")),
                segmentationName=str(values.get("segmentationName", "")),
                segments=tuple(_segment(entry) for entry in values.get("segments", ())),
                parentId=str(values.get("parentId", "")),
                parentName=str(values.get("parentName", "")),
                parentToWorld=_rows(values.get("parentToWorld")),
                sequence=values.get("sequence"),
                roiName=str(values.get("roiName", "")),
                studyDate=str(values.get("studyDate", "")),
                notes=tuple(str(note) for note in values.get("notes", ())),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError("The job does not say from which nodes of the scene it was made, so it cannot be placed.") from error


def _rows(values: Any) -> Optional[Rows]:
    return None if values is None else tuple(tuple(float(value) for value in row) for row in values)


def _segment(entry: Mapping[str, Any]) -> SegmentSource:
    return SegmentSource(str(entry["segmentId"]), int(entry["value"]), SegmentProperties.fromDict(entry["properties"]))


def parentContext(parent: Optional[slicer.vtkMRMLTransformNode]) -> Dict[str, Any]:
    """The entries of :class:`SceneContext` that describe a parent transform."""
    if parent is None:
        return {}
    matrix: Optional[Matrix] = frames.matrixBetween(parent)
    assert matrix is not None
    return {"parentId": parent.GetID(), "parentName": parent.GetName(), "parentToWorld": _rows(matrix)}


def nodeByHint(scene: slicer.vtkMRMLScene, nodeId: str, name: str, className: str) -> Optional[slicer.vtkMRMLNode]:
    """The node that a job remembers: same ID and name, else the only node of that class with the name, else None."""
    node = scene.GetNodeByID(nodeId) if nodeId else None
    if node is not None and node.IsA(className) and node.GetName() == name:
        return node
    named = nodesNamed(scene, className, name) if name else []
    return named[0] if len(named) == 1 else None


def nodesNamed(scene: slicer.vtkMRMLScene, className: str, name: str) -> List[slicer.vtkMRMLNode]:
    """The nodes of a class with a name.

    ``GetNodesByClassByName`` would leave a collection behind that nobody frees and that keeps its nodes, voxels included, in memory.
    """
    nodes = (scene.GetNthNodeByClass(index, className) for index in range(scene.GetNumberOfNodesByClass(className)))
    return [node for node in nodes if node.GetName() == name]
