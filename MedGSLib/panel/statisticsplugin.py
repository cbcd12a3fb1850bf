"""MedGS measures in the Segment Statistics module, beside those that Slicer computes itself."""

from __future__ import annotations

import json
from typing import Any, Dict, Optional

import slicer
from SegmentStatisticsPlugins import SegmentStatisticsPluginBase

from MedGSLib.scene.nodes import MEASURES_ATTRIBUTE

MEASURES = {
    "volume_cm3": ("Volume of the surface", "Volume within the closed surface of the reconstruction", "cm3", ("118565006", "Volume")),
    "area_cm2": ("Area of the surface", "Area of the closed surface of the reconstruction", "cm2", None),
    "max_diameter_mm": ("Largest diameter", "Largest distance between two points of the surface", "mm", None),
    "position_error_between_slices_q90_mm": (
        "Surface uncertainty",
        "Half-width of the 90 % band of the surface position between the acquired slices",
        "mm",
        None,
    ),
}
"""Name, description, unit and SNOMED CT code (value, meaning) of each measure of the worker's report."""

UNIT_MEANINGS = {"mm": "millimeter", "cm2": "square centimeter", "cm3": "cubic centimeter"}


class MedGSSegmentStatisticsPlugin(SegmentStatisticsPluginBase):
    """Gives what the reconstruction measured; segments that MedGS did not make have none of it, and edits do not change it."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "MedGS"
        self.title = "MedGS (as reconstructed)"
        self.keys = list(MEASURES)
        self.defaultKeys = list(MEASURES)

    def computeStatistics(self, segmentID: str) -> Dict[str, float]:
        """The requested measures of a segment, as far as they are known."""
        node = slicer.mrmlScene.GetNodeByID(self.getParameterNode().GetParameter("Segmentation"))
        text = None if node is None else node.GetAttribute(MEASURES_ATTRIBUTE)
        measured = json.loads(text).get(segmentID, {}) if text else {}
        return {key: float(measured[key]) for key in self.getRequestedKeys() if isinstance(measured.get(key), (int, float))}

    def getMeasurementInfo(self, key: str) -> Optional[Dict[str, Any]]:
        """Name, description, unit and DICOM codes of a measure."""
        if key not in MEASURES:
            return None
        name, description, unit, code = MEASURES[key]
        quantity = None if code is None else self.createCodedEntry(code[0], "SCT", code[1], True)
        units = self.createCodedEntry(unit, "UCUM", UNIT_MEANINGS[unit], True)
        return self.createMeasurementInfo(name, description, unit, quantityDicomCode=quantity, unitsDicomCode=units)


def register() -> None:
    """Add the plugin to the Segment Statistics module, once."""
    from SegmentStatistics import SegmentStatisticsLogic

    if MedGSSegmentStatisticsPlugin not in SegmentStatisticsLogic.registeredPlugins:
        SegmentStatisticsLogic.registerPlugin(MedGSSegmentStatisticsPlugin())
