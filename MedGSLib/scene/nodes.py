"""From a finished job to nodes that look, lie and are called like their input; all of them, or none."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, List, Mapping, Optional, Tuple

import slicer
import vtk
from numpy.typing import NDArray

from MedGSLib.job.result import JobResult
from MedGSLib.scene import segments, volumes
from MedGSLib.scene.context import SegmentSource, nodeByHint
from MedGSLib.scene.maker import NodeMaker, inputVolume, outputParent, placeInSubjectHierarchy
from MedGSLib.scene.results import POSITION_UNCERTAINTY, LoadedResult, loadResult, measures, provenanceText, tableRows

PROVENANCE_ATTRIBUTE = "MedGS.provenance"
ACQUIRED_ATTRIBUTE = "MedGS.acquiredSlices"
AXIS_ATTRIBUTE = "MedGS.sliceAxis"
INTERPOLATED_ATTRIBUTE = "MedGS.interpolated"
MEASURES_ATTRIBUTE = "MedGS.measures"
"""On segmentations: the worker's measures as JSON, by segment ID."""


@dataclass(frozen=True)
class OutputChoice:
    """What is to be made, and the existing nodes to put it into (None: a new node)."""

    volume: bool = True
    segmentation: bool = True
    model: bool = True
    table: bool = True
    uncertainty: bool = False
    show3D: bool = True
    volumeNode: Optional[slicer.vtkMRMLScalarVolumeNode] = None
    segmentationNode: Optional[slicer.vtkMRMLSegmentationNode] = None
    modelNode: Optional[slicer.vtkMRMLModelNode] = None


@dataclass(frozen=True)
class OutputNodes:
    """The nodes of one imported result, the worker's report, and what the user should know of it in sentences."""

    volume: Optional[slicer.vtkMRMLScalarVolumeNode]
    segmentation: Optional[slicer.vtkMRMLSegmentationNode]
    models: Tuple[slicer.vtkMRMLModelNode, ...]
    table: Optional[slicer.vtkMRMLTableNode]
    uncertainty: Optional[slicer.vtkMRMLScalarVolumeNode]
    report: Mapping[str, Any] = field(default_factory=dict)
    sentences: Tuple[str, ...] = ()

    @property
    def all(self) -> Tuple[slicer.vtkMRMLNode, ...]:
        """Every node that was made."""
        found = (self.volume, self.segmentation, *self.models, self.table, self.uncertainty)
        return tuple(node for node in found if node is not None)


def resultToScene(
    scene: slicer.vtkMRMLScene, folder: Path, choice: Optional[OutputChoice] = None, verified: Optional[JobResult] = None
) -> OutputNodes:
    """Import a finished job folder; may be repeated, and works after the scene of the job was closed.

    :param verified: the job's manifest, where its checksums were compared a moment ago.
    :raises InputError: if the result is not complete and sound; the scene is then as before.
    """
    choice = choice or OutputChoice()
    loaded = loadResult(folder, verified, [kind for kind in ("volume", "uncertainty") if not getattr(choice, kind)])
    maker = NodeMaker(scene)
    try:
        return _Importer(maker, loaded, choice).run()
    except BaseException:
        maker.undo()
        raise


def isShownIn3D(nodes: OutputNodes) -> bool:
    """Whether the 3D views show the surfaces of a result: its models, else its segmentation."""
    displays = _surfaceDisplays(nodes)
    return any(display.GetVisibility() and display.GetVisibility3D() for display in displays)


def showIn3D(nodes: OutputNodes, isShown: bool) -> None:
    """Show or hide the surfaces of a result in the 3D views; what the slice views show stays."""
    for display in _surfaceDisplays(nodes):
        if isShown:
            display.SetVisibility(True)
        display.SetVisibility3D(isShown)
    if isShown and not nodes.models and nodes.segmentation is not None:
        nodes.segmentation.CreateClosedSurfaceRepresentation()


def _surfaceDisplays(nodes: OutputNodes) -> List[slicer.vtkMRMLDisplayNode]:
    holders = nodes.models or (() if nodes.segmentation is None else (nodes.segmentation,))
    found = [node.GetDisplayNode() for node in holders if node.GetScene() is not None]
    return [display for display in found if display is not None]


def jobOf(node: slicer.vtkMRMLNode) -> str:
    """The name of the job folder that a node came from, empty for other nodes."""
    text = node.GetAttribute(PROVENANCE_ATTRIBUTE)
    return str(json.loads(text).get("job", "")) if text else ""


class _Importer:
    """Makes the nodes of one result."""

    def __init__(self, maker: NodeMaker, loaded: LoadedResult, choice: OutputChoice) -> None:
        self._maker = maker
        self._loaded = loaded
        self._choice = choice
        self._context = loaded.context

    def run(self) -> OutputNodes:
        """Make everything that was chosen and that the job has."""
        choice, loaded = self._choice, self._loaded
        parent = outputParent(self._maker, self._context)
        volume = self._volume(loaded.volume) if choice.volume and loaded.volume is not None else None
        segmentation = self._segmentation(volume) if choice.segmentation and loaded.labels is not None else None
        models = self._models() if choice.model else ()
        table = self._table() if choice.table else None
        uncertainty = self._uncertainty(loaded.uncertainty) if choice.uncertainty and loaded.uncertainty is not None else None
        sentences = (loaded.acquired.sentence, *self._context.notes)
        nodes = OutputNodes(volume, segmentation, models, table, uncertainty, loaded.report, sentences)
        for node in nodes.all:
            self._label(node)
            if node.IsA("vtkMRMLTransformableNode") and node is not table:
                node.SetAndObserveTransformNodeID(None if parent is None else parent.GetID())
        placeInSubjectHierarchy(self._maker.scene, list(nodes.all), self._context)
        return nodes

    def _volume(self, array: NDArray) -> slicer.vtkMRMLScalarVolumeNode:
        isInput = self._choice.volumeNode is inputVolume(self._maker.scene, self._context)
        node = (None if isInput else self._choice.volumeNode) or self._maker.new("vtkMRMLScalarVolumeNode", self._context.outputName)
        volumes.setVoxels(node, array, self._loaded.ijkToRas)
        self._context.look.applyTo(node)
        return node

    def _uncertainty(self, array: NDArray) -> slicer.vtkMRMLScalarVolumeNode:
        node = self._maker.new("vtkMRMLScalarVolumeNode", f"{self._context.outputName}_Uncertainty")
        volumes.setVoxels(node, array, self._loaded.ijkToRas)
        node.CreateDefaultDisplayNodes()
        return node

    def _segmentation(self, volume: Optional[slicer.vtkMRMLScalarVolumeNode]) -> slicer.vtkMRMLSegmentationNode:
        loaded = self._loaded
        assert loaded.labels is not None
        context, target = self._context, self._choice.segmentationNode
        isInput = target is nodeByHint(self._maker.scene, context.segmentationId, context.segmentationName, "vtkMRMLSegmentationNode")
        node = (None if isInput else target) or self._maker.new("vtkMRMLSegmentationNode", context.outputName)
        segmentation = segments.filledSegmentation(
            [(source.properties, loaded.segmentArray(source.value), loaded.meshes.get(source.value)) for source in self._context.segments],
            loaded.ijkToRas,
        )
        node.SetAndObserveSegmentation(segmentation)
        reference = volume or inputVolume(self._maker.scene, self._context)
        if reference is not None:
            node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), reference.GetID())
        grid = volumes.orientedImage(loaded.labels, loaded.ijkToRas)
        segmentation.SetConversionParameter(segments.GEOMETRY_PARAMETER, slicer.vtkSegmentationConverter.SerializeImageGeometry(grid))
        node.SetAttribute(MEASURES_ATTRIBUTE, self._measuresText(segments.segmentIds(node)))
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        if display is not None:
            display.SetVisibility3D(self._choice.show3D and not (self._choice.model and loaded.meshes))
            for segmentId, source in zip(segments.segmentIds(node), self._context.segments):
                display.SetSegmentOpacity3D(segmentId, source.properties.opacity)
                display.SetSegmentVisibility(segmentId, source.properties.visible)
        return node

    def _measuresText(self, segmentIds: List[str]) -> str:
        """What the worker measured of each segment; lists are left out."""
        measured = self._loaded.report.get("segments", {})
        names = {label.value: label.name for label in self._loaded.request.inputs.labels}
        found = {
            segmentId: {key: value for key, value in measured.get(names.get(source.value), {}).items() if isinstance(value, (int, float))}
            for segmentId, source in zip(segmentIds, self._context.segments)
        }
        return json.dumps(found, separators=(",", ":"))

    def _models(self) -> Tuple[slicer.vtkMRMLModelNode, ...]:
        sources = {source.value: source for source in self._context.segments}
        meshes = list(self._loaded.meshes.items())
        return tuple(self._model(mesh, sources.get(value), first=index == 0) for index, (value, mesh) in enumerate(meshes))

    def _model(self, mesh: vtk.vtkPolyData, source: Optional[SegmentSource], first: bool) -> slicer.vtkMRMLModelNode:
        name = self._context.outputName if source is None else self._context.segmentOutputName(source)
        node = (self._choice.modelNode if first else None) or self._maker.new("vtkMRMLModelNode", name)
        own = vtk.vtkPolyData()
        own.DeepCopy(mesh)
        node.SetAndObservePolyData(own)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        if source is not None:
            display.SetColor(*source.properties.color)
            display.SetOpacity(source.properties.opacity)
        display.SetVisibility2D(True)
        display.SetVisibility(self._choice.show3D)
        if mesh.GetPointData().GetArray(POSITION_UNCERTAINTY) is not None:
            display.SetActiveScalar(POSITION_UNCERTAINTY, vtk.vtkAssignAttribute.POINT_DATA)
            display.SetScalarVisibility(False)
        return node

    def _table(self) -> Optional[slicer.vtkMRMLTableNode]:
        rows = tableRows(measures(self._loaded.report))
        if not rows:
            return None
        node = self._maker.new("vtkMRMLTableNode", self._context.outputName)
        measure, value, unit = vtk.vtkStringArray(), vtk.vtkDoubleArray(), vtk.vtkStringArray()
        for column, title in ((measure, "Measure"), (value, "Value"), (unit, "Unit")):
            column.SetName(title)
        for row in rows:
            for column, entry in zip((measure, value, unit), row):
                column.InsertNextValue(entry)
        for column in (measure, value, unit):
            node.AddColumn(column)
        node.SetUseColumnTitleAsColumnHeader(True)
        return node

    def _label(self, node: slicer.vtkMRMLNode) -> None:
        """Say on the node itself that it was computed, from what, and which slices were measured."""
        loaded, acquired = self._loaded, self._loaded.acquired
        remarks = [str(remark) for remark in loaded.report.get("remarks") or ()]
        node.SetDescription(" ".join([f"Made by MedGS from '{self._context.volumeName}'.", acquired.sentence, *remarks]))
        node.SetAttribute(PROVENANCE_ATTRIBUTE, provenanceText(loaded))
        node.SetAttribute(INTERPOLATED_ATTRIBUTE, str(int(len(acquired.indices) < acquired.count)))
        node.SetAttribute(AXIS_ATTRIBUTE, "ijk"[acquired.axis])
        node.SetAttribute(ACQUIRED_ATTRIBUTE, ",".join(map(str, acquired.indices)))
