"""Adding nodes so that a failure half-way leaves the scene as it was, and the place where a job's outputs belong."""

from __future__ import annotations

from typing import List, Optional

import numpy as np
import slicer

from MedGSLib.scene import frames, volumes
from MedGSLib.scene.context import SceneContext, nodeByHint, nodesNamed


class NodeMaker:
    """Adds nodes to a scene and remembers them until all are there."""

    def __init__(self, scene: slicer.vtkMRMLScene) -> None:
        self.scene = scene
        self._added: List[slicer.vtkMRMLNode] = []

    def new(self, className: str, name: str) -> slicer.vtkMRMLNode:
        """A new node; the name gets a number where another node of the class has it."""
        isTaken = bool(nodesNamed(self.scene, className, name))
        node = self.scene.AddNewNodeByClass(className, self.scene.GenerateUniqueName(name) if isTaken else name)
        self._added.append(node)
        return node

    def undo(self) -> None:
        """Remove every node that was added."""
        for node in reversed(self._added):
            for index in range(node.GetNumberOfDisplayNodes() if node.IsA("vtkMRMLDisplayableNode") else 0):
                self.scene.RemoveNode(node.GetNthDisplayNode(index))
            self.scene.RemoveNode(node)
        self._added = []


def inputVolume(scene: slicer.vtkMRMLScene, context: SceneContext) -> Optional[slicer.vtkMRMLScalarVolumeNode]:
    """The volume that a job was made of, if it is in the scene and its voxels lie where they lay: names and IDs recur in every scene."""
    volume = nodeByHint(scene, context.volumeId, context.volumeName, "vtkMRMLScalarVolumeNode")
    grid = context.gridIjkToRas or context.volumeIjkToRas
    if volume is None or (grid is not None and not np.allclose(volumes.ijkToRas(volume), grid, atol=1e-3)):
        return None
    return volume


def outputParent(maker: NodeMaker, context: SceneContext) -> Optional[slicer.vtkMRMLTransformNode]:
    """The transform that outputs go under: the input volume's as it is now, else the one of the job, else one made from its matrix."""
    volume = inputVolume(maker.scene, context)
    if volume is not None and context.volumeIjkToRas is not None:
        return volume.GetParentTransformNode()
    if context.parentToWorld is None:
        return None
    parent = nodeByHint(maker.scene, context.parentId, context.parentName, "vtkMRMLTransformNode")
    if parent is None:
        parent = maker.new("vtkMRMLLinearTransformNode", context.parentName)
        parent.SetMatrixTransformToParent(frames.toVtkMatrix(np.array(context.parentToWorld)))
    return parent


def placeInSubjectHierarchy(scene: slicer.vtkMRMLScene, nodes: List[slicer.vtkMRMLNode], context: SceneContext) -> None:
    """Put nodes under the study or folder of a job's input, so that they are exported with the same patient."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    source = inputVolume(scene, context) or nodeByHint(scene, context.segmentationId, context.segmentationName, "vtkMRMLSegmentationNode")
    item = hierarchy.GetItemByDataNode(source) if hierarchy is not None and source is not None else 0
    if not item:
        return
    parent = hierarchy.GetItemParent(item)
    for node in nodes:
        own = hierarchy.GetItemByDataNode(node)
        if own:
            hierarchy.SetItemParent(own, parent)
        else:
            hierarchy.CreateItem(parent, node)
