"""Coordinate frames of the scene: parent transforms, and matrices between VTK and numpy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator, Optional

import numpy as np
import slicer
import vtk

from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix


def toArray(matrix: vtk.vtkMatrix4x4) -> Matrix:
    """:return: the 4x4 matrix as float64 array."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def toVtkMatrix(array: Matrix) -> vtk.vtkMatrix4x4:
    """:return: the 4x4 array as VTK matrix."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=np.float64).ravel().tolist())
    return matrix


def isLinear(transformNode: Optional[slicer.vtkMRMLTransformNode]) -> bool:
    """True if a matrix describes the way from below this transform node to the world (no node: the identity)."""
    return transformNode is None or bool(transformNode.IsTransformToWorldLinear())


def matrixBetween(source: Optional[slicer.vtkMRMLTransformNode], target: Optional[slicer.vtkMRMLTransformNode] = None) -> Optional[Matrix]:
    """The 4x4 matrix from the frame below ``source`` to the frame below ``target`` (None: the world), or None where it is not linear."""
    matrix = vtk.vtkMatrix4x4()
    if not slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, matrix):
        return None
    return toArray(matrix)


def transformBetween(
    source: Optional[slicer.vtkMRMLTransformNode], target: Optional[slicer.vtkMRMLTransformNode] = None
) -> vtk.vtkGeneralTransform:
    """The transform, linear or not, from the frame below ``source`` to the frame below ``target`` (None: the world)."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, transform)
    return transform


def requireLinear(node: slicer.vtkMRMLTransformableNode) -> None:
    """Refuse a node under a transform that bends space.

    :raises InputError: with the advice to harden it.
    """
    parent = node.GetParentTransformNode()
    if not isLinear(parent):
        raise InputError(
            f"'{node.GetName()}' lies under the non-linear transform '{parent.GetName()}': "
            "switch on 'Harden non-linear transforms' or harden the transform in the Data module first."
        )


def isRigid(matrix: Matrix, tolerance: float = 1e-3) -> bool:
    """True if the upper 3x3 of ``matrix`` keeps all lengths (a rotation, with or without a reflection)."""
    linear = matrix[:3, :3]
    return bool(np.allclose(linear @ linear.T, np.eye(3), atol=tolerance))


@contextmanager
def hardenedCopy(node: slicer.vtkMRMLTransformableNode) -> Iterator[slicer.vtkMRMLTransformableNode]:
    """A hidden copy of ``node`` with its transforms applied, in the scene only as long as the context lasts; ``node`` stays as it is."""
    scene = node.GetScene()
    copy = scene.CreateNodeByClass(node.GetClassName())
    copy.UnRegister(None)
    copy.SetHideFromEditors(True)
    copy.SetSaveWithScene(False)
    scene.AddNode(copy)
    try:
        copy.CopyContent(node, True)
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        if not copy.HardenTransform():
            raise InputError(f"The transform of '{node.GetName()}' could not be hardened.")
        yield copy
    finally:
        scene.RemoveNode(copy)
