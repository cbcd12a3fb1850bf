"""The result section of the panel: what the last import brought, in words and in the 3D views."""

from __future__ import annotations

from typing import Any, Optional

import slicer
from slicer.i18n import tr as _

from MedGSLib.panel import wording
from MedGSLib.scene.nodes import OutputNodes, isShownIn3D, showIn3D


class ResultBox:
    """Owns the widgets of the result section."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._nodes: Optional[OutputNodes] = None
        ui.show3DButton.connect("clicked(bool)", self.onShow3D)
        self.clear()

    def show(self, nodes: OutputNodes) -> None:
        """Sum up a result and open the section."""
        ui = self._ui
        self._nodes = nodes
        ui.summaryLabel.text = wording.summary(nodes.report, nodes.sentences)
        ui.resultsCollapsibleButton.collapsed = False
        ui.show3DButton.enabled = bool(nodes.models) or nodes.segmentation is not None
        ui.show3DButton.checked = isShownIn3D(nodes)

    def clear(self) -> None:
        """There is no result any more."""
        self._nodes = None
        self._ui.summaryLabel.text = _("No result yet.")
        self._ui.show3DButton.checked = self._ui.show3DButton.enabled = False

    def onShow3D(self, isShown: bool) -> None:
        """The user wants to see the surfaces, or not."""
        if self._nodes is not None:
            showIn3D(self._nodes, isShown)
            if isShown:
                center3DViews()


def center3DViews() -> None:
    """Turn the 3D views to what they show; without a main window there are none."""
    if slicer.app.layoutManager() is not None:
        slicer.util.resetThreeDViews()
