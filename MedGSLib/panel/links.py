"""Widgets that the parameter node wrapper cannot connect: segments, preset buttons, the model to refine; and who is visible when."""

from __future__ import annotations

from typing import Any, Callable, Optional

import slicer

from MedGSLib.panel import parameters
from MedGSLib.panel.parameters import MedGSParameterNode

RADIO_BUTTONS = {"fast": "fastRadioButton", "standard": "standardRadioButton", "high": "highRadioButton", "paper": "paperRadioButton"}


class WidgetLinks:
    """Keeps those widgets and the parameters the same.

    :param parameterNode: gives the parameters that are shown now, or None.
    """

    def __init__(self, ui: Any, parameterNode: Callable[[], Optional[MedGSParameterNode]]) -> None:
        self._ui = ui
        self._parameterNode = parameterNode
        self._isShowing = False
        ui.segmentSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onSegmentsChanged)
        ui.segmentSelector.connect("segmentSelectionChanged(QStringList)", self.onSegmentsChanged)
        ui.refinePathLineEdit.comboBox().connect("editTextChanged(QString)", self.onRefineChanged)  # told when it is emptied, too
        for button in RADIO_BUTTONS.values():
            getattr(ui, button).connect("toggled(bool)", self.onPresetToggled)

    def show(self, node: MedGSParameterNode) -> None:
        """Bring the widgets up to date with the parameters."""
        if self._isShowing:
            return
        ui = self._ui
        self._isShowing = True
        try:
            if ui.segmentSelector.currentNode() is not node.segmentation:
                ui.segmentSelector.setCurrentNode(node.segmentation)
            chosen = parameters.chosenSegmentIds(node)
            if tuple(ui.segmentSelector.selectedSegmentIDs()) != chosen:
                ui.segmentSelector.setSelectedSegmentIDs(list(chosen))
            getattr(ui, RADIO_BUTTONS[node.preset]).checked = True
            if ui.refinePathLineEdit.currentPath != node.refineModel:
                ui.refinePathLineEdit.currentPath = node.refineModel
        finally:
            self._isShowing = False
        ui.scaleSpinBox.visible = node.resolution == parameters.RESOLUTIONS[1]
        ui.spacingSpinBox.visible = node.resolution == parameters.RESOLUTIONS[2]
        ui.annotatedLineEdit.visible = node.annotated in parameters.ANNOTATED[2:]
        ui.marginSpinBox.enabled = node.crop

    def onSegmentsChanged(self, _changed: Any = None) -> None:
        """The user picked another segmentation or other segments."""
        node = self._parameterNode()
        if node is None or self._isShowing:
            return
        segmentation = self._ui.segmentSelector.currentNode()
        with slicer.util.NodeModify(node):
            isSame = segmentation is node.segmentation
            node.segmentation = segmentation
            node.segmentIds = "\n".join(self._ui.segmentSelector.selectedSegmentIDs()) if isSame else ""

    def onPresetToggled(self, _checked: bool) -> None:
        """The user picked a preset."""
        node = self._parameterNode()
        if node is None or self._isShowing:
            return
        for preset, button in RADIO_BUTTONS.items():
            if getattr(self._ui, button).checked:
                node.preset = preset

    def onRefineChanged(self, path: str) -> None:
        """The user named a model to refine."""
        node = self._parameterNode()
        if node is not None and not self._isShowing:
            node.refineModel = path
