"""Right-click on a segmentation or a segment in the Data module: Reconstruct with MedGS."""

import qt
import slicer
from AbstractScriptedSubjectHierarchyPlugin import AbstractScriptedSubjectHierarchyPlugin
from slicer.i18n import tr as _


class MedGSSubjectHierarchyPlugin(AbstractScriptedSubjectHierarchyPlugin):
    """A function plugin: it owns no items (the base class's answer) and adds one action. File and class name have to agree."""

    filePath = __file__

    def __init__(self, scriptedPlugin):
        scriptedPlugin.name = "MedGS"
        AbstractScriptedSubjectHierarchyPlugin.__init__(self, scriptedPlugin)
        self.reconstructAction = qt.QAction(_("Reconstruct with MedGS"), scriptedPlugin)
        self.reconstructAction.toolTip = _("Open MedGS with this segment and its volume.")
        self.reconstructAction.connect("triggered()", self.onReconstruct)

    def roleForPlugin(self):
        """The kind of items that the plugin owns."""
        return "N/A"

    def itemContextMenuActions(self):
        """All actions that the plugin has for items."""
        return [self.reconstructAction]

    def showContextMenuActionsForItem(self, itemID):
        """Make the action visible where it applies; Slicer hides all actions before."""
        self.reconstructAction.visible = segmentationOfItem(itemID)[0] is not None

    def onReconstruct(self):
        """Open the module with the clicked segmentation."""
        handler = slicer.qSlicerSubjectHierarchyPluginHandler.instance()
        segmentation, segmentId = segmentationOfItem(handler.currentItem())
        if segmentation is None:
            return
        slicer.util.selectModule("MedGS")
        slicer.util.getModuleWidget("MedGS").chooseSegment(segmentation, segmentId)


def segmentationOfItem(itemID):
    """The segmentation node of an item and, where the item is a segment, the segment's ID; (None, "") for other items."""
    if not itemID:
        return None, ""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    segmentId = hierarchy.GetItemAttribute(itemID, slicer.vtkMRMLSegmentationNode.GetSegmentIDAttributeName())
    node = hierarchy.GetItemDataNode(hierarchy.GetItemParent(itemID) if segmentId else itemID)
    if node is None or not node.IsA("vtkMRMLSegmentationNode"):
        return None, ""
    return node, segmentId
