"""Inside Slicer: from nodes to a job folder and back, with the application's own readers and writers."""

import json
import tempfile
import unittest
from pathlib import Path

import numpy as np
import slicer
import vtk

from MedGSLib.errors import InputError
from MedGSLib.scene import frames, segments, volumes
from MedGSLib.scene.export import SceneInput, sceneToJob


class MedGSSceneTest(unittest.TestCase):
    """The scene bridge in the application; the thorough tests run outside, with the slicer-core wheel."""

    def setUp(self):
        """A volume and a segmentation under a rotated parent."""
        slicer.mrmlScene.Clear()
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)  # outside the application it is made on demand
        self.parent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Registration")
        transform = vtk.vtkTransform()
        transform.Translate(5.0, -3.0, 2.0)
        transform.RotateWXYZ(30.0, 0.0, 1.0, 1.0)
        self.parent.SetMatrixTransformToParent(transform.GetMatrix())
        self.matrix = np.diag([-1.0, -1.2, 4.0, 1.0])
        self.volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CTA")
        volumes.setVoxels(self.volume, np.zeros((9, 20, 24), np.int16), self.matrix)
        self.volume.CreateDefaultDisplayNodes()
        self.volume.SetAndObserveTransformNodeID(self.parent.GetID())
        self.mask = np.zeros((9, 20, 24), np.uint8)
        self.mask[2:7, 5:14, 6:18] = 1
        self.segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
        self.segmentation.CreateDefaultDisplayNodes()
        properties = segments.SegmentProperties("aorta", (0.9, 0.2, 0.2))
        segments.addSegment(self.segmentation.GetSegmentation(), properties, self.mask, self.matrix)

    def test_segmentationUnderAnotherParentIsBroughtIntoPlace(self):
        """The segmentation lies in the world, the volume under a transform."""
        world = frames.matrixBetween(self.parent)
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Same as registration")
        other.SetMatrixTransformToParent(frames.toVtkMatrix(world))
        self.segmentation.SetAndObserveTransformNodeID(other.GetID())
        segmentId = segments.segmentIds(self.segmentation)[0]
        np.testing.assert_array_equal(segments.segmentArray(self.segmentation, segmentId, self.volume), self.mask)

    def test_jobFolder(self):
        """Files and request say the same as the nodes."""
        self.segmentation.SetAndObserveTransformNodeID(self.parent.GetID())
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        with tempfile.TemporaryDirectory() as root:
            folder = sceneToJob(Path(root), SceneInput(self.volume, self.segmentation), {"preset": "fast"})
            request = json.loads((folder.path / "request.json").read_text())
            mask, matrix = volumes.readNrrd(folder.path / "mask.nrrd")
        self.assertEqual(request["inputs"]["labels"][0]["name"], "aorta")
        np.testing.assert_array_equal(mask, self.mask)
        np.testing.assert_allclose(matrix, self.matrix, atol=1e-6)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)

    def test_bendingTransformIsRefused(self):
        """A grid transform that bends space is refused with advice."""
        bending = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Bending")
        spline = vtk.vtkThinPlateSplineTransform()
        source, target = vtk.vtkPoints(), vtk.vtkPoints()
        for x, y, z in ((0, 0, 0), (20, 0, 0), (0, 20, 0), (0, 0, 20), (20, 20, 20)):
            source.InsertNextPoint(x, y, z)
            target.InsertNextPoint(x + 0.02 * y * z, y, z)
        spline.SetSourceLandmarks(source)
        spline.SetTargetLandmarks(target)
        bending.SetAndObserveTransformToParent(spline)
        self.volume.SetAndObserveTransformNodeID(bending.GetID())
        with self.assertRaisesRegex(InputError, "Bending"):
            volumes.volumeFrame(self.volume)
