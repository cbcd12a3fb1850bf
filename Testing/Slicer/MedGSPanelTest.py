"""Inside Slicer: the panel with the real widgets, without a worker."""

import unittest

import slicer


class MedGSPanelTest(unittest.TestCase):
    """What only the application itself can show: that the .ui, the wrapper and the widgets fit together."""

    def setUp(self):
        """The panel over an empty scene."""
        slicer.mrmlScene.Clear()
        self.widget = slicer.util.getModuleWidget("MedGS").panel
        self.widget.initializeParameterNode()

    def test_emptySceneCannotBeReconstructed(self):
        """The button is off and its tooltip lists what is missing."""
        self.assertFalse(self.widget.ui.reconstructButton.enabled)
        self.assertIn("Choose an input volume.", self.widget.ui.reconstructButton.toolTip)

    def test_sampleMakesThePanelReady(self):
        """The sample data chooses itself, and a choice in a widget reaches the parameters."""
        self.widget.onSampleData()
        self.assertEqual(self.widget._parameterNode.inputVolume.GetName(), "MedGSAneurysm2024")
        self.assertEqual(self.widget.ui.segmentSelector.currentNode().GetName(), "MedGSAneurysm2024_Segmentation")
        self.widget.ui.seedSpinBox.value = 7
        self.assertEqual(self.widget._parameterNode.seed, 7)
        self.widget.ui.highRadioButton.checked = True
        self.assertEqual(self.widget._parameterNode.preset, "high")
        missing = [sentence for sentence in self.widget.missing() if "environment" not in sentence.lower() and "Python" not in sentence]
        self.assertEqual(missing, [])

    def test_segmentChoiceGoesBothWays(self):
        """Ticking a segment reaches the parameters, and parameters tick segments."""
        self.widget.onSampleData()
        selector = self.widget.ui.segmentSelector
        segmentId = selector.currentNode().GetSegmentation().GetNthSegmentID(0)
        selector.setSelectedSegmentIDs([segmentId])
        self.widget.links.onSegmentsChanged()  # the widget tells only of clicks
        self.assertEqual(self.widget._parameterNode.segmentIds, segmentId)
        self.widget._parameterNode.segmentIds = ""
        self.assertEqual(list(selector.selectedSegmentIDs()), [])

    def test_choicesOutliveLeavingTheModule(self):
        """Entering again neither resets the combo boxes nor connects them twice."""
        self.widget.onSampleData()
        self.widget.ui.modeComboBox.setCurrentText("Segments only")
        self.widget.ui.annotatedComboBox.setCurrentText("All slices")
        for _ in range(3):
            self.widget.exit()
            self.widget.enter()
        self.assertEqual(self.widget._parameterNode.mode, "Segments only")
        self.assertEqual(self.widget._parameterNode.annotated, "All slices")
        self.assertEqual(self.widget.ui.axisComboBox.currentText, "auto")

    def test_emptiedPathsCount(self):
        """The path widget itself does not tell that it was emptied."""
        self.widget.ui.refinePathLineEdit.currentPath = "/data/earlier.medgs"
        self.assertEqual(self.widget._parameterNode.refineModel, "/data/earlier.medgs")
        self.widget.ui.refinePathLineEdit.currentPath = ""
        self.assertEqual(self.widget._parameterNode.refineModel, "")

    def test_readingASceneKeepsTheChoice(self):
        """What the node selectors show while a scene is read does not reach the parameters."""
        self.widget.enter()
        self.widget.onSampleData()
        volume, segmentation = self.widget._parameterNode.inputVolume, self.widget._parameterNode.segmentation
        slicer.mrmlScene.StartState(slicer.mrmlScene.ImportState)
        self.widget.ui.inputVolumeSelector.setCurrentNode(None)
        self.widget.ui.segmentSelector.setCurrentNode(None)
        slicer.mrmlScene.EndState(slicer.mrmlScene.ImportState)
        self.assertIs(self.widget._parameterNode.inputVolume, volume)
        self.assertIs(self.widget._parameterNode.segmentation, segmentation)
        self.assertIs(self.widget.ui.segmentSelector.currentNode(), segmentation)
        self.widget.exit()

    def test_sceneCloseIsSurvived(self):
        """Closing the scene leaves a working panel."""
        self.widget.onSampleData()
        slicer.mrmlScene.Clear()
        self.widget.initializeParameterNode()
        self.assertIsNone(self.widget._parameterNode.inputVolume)

    def test_segmentStatisticsKnowsThePlugin(self):
        """Registered at startup, or now where the test runs before that."""
        from SegmentStatistics import SegmentStatisticsLogic

        from MedGSLib.panel import statisticsplugin

        statisticsplugin.register()
        self.assertIn(statisticsplugin.MedGSSegmentStatisticsPlugin, SegmentStatisticsLogic.registeredPlugins)
