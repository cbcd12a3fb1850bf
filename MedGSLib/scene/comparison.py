"""From a finished comparison of time points to nodes: transforms, aligned surfaces with a growth map, tables, a chart, a sequence."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from MedGSLib.errors import InputError
from MedGSLib.io.meshes import read_mesh
from MedGSLib.job.schema import read_json
from MedGSLib.scene import frames
from MedGSLib.scene.context import SceneContext
from MedGSLib.scene.maker import NodeMaker, outputParent, placeInSubjectHierarchy
from MedGSLib.scene.nodes import jobOf

GROWTH_ARRAY = "Growth (mm)"
"""Point array that is shown: the distance to the baseline where it exceeds the repeatability band, 0 inside it."""

SHOWN_IN_FILE = "GrowthShownMm"
LEAST_RANGE_MM = 1.0
COLORS = ((0.0, (0.02, 0.19, 0.58)), (0.5, (0.78, 0.78, 0.78)), (1.0, (0.62, 0.03, 0.10)))
"""Shrinkage is blue, what lies within the measurement error grey, growth red."""

COLOR_COUNT = 255
OVERLAY_OPACITY = 0.3
FRAMES_A_SECOND = 1.0
DAYS_A_YEAR = 365.25
CHART_MEASURES = ("volume", "max_diameter", "max_3d_diameter")
UNITS = {"volume": "cm3"}


@dataclass(frozen=True)
class ComparisonNodes:
    """The nodes of one comparison, and what it found in sentences.

    :ivar baseline: the baseline's surfaces; ``followups`` the later ones in the baseline's frame, with :data:`GROWTH_ARRAY`.
    :ivar growthPoint: where the largest growth is, or None.
    """

    transforms: Tuple[slicer.vtkMRMLLinearTransformNode, ...]
    baseline: Tuple[slicer.vtkMRMLModelNode, ...]
    followups: Tuple[slicer.vtkMRMLModelNode, ...]
    tables: Tuple[slicer.vtkMRMLTableNode, ...]
    chart: Optional[slicer.vtkMRMLPlotChartNode]
    growthPoint: Optional[slicer.vtkMRMLMarkupsFiducialNode]
    sentences: Tuple[str, ...]


def comparisonToScene(scene: slicer.vtkMRMLScene, folder: Path, contexts: Sequence[SceneContext]) -> ComparisonNodes:
    """Import the folder that a comparison has left.

    :param contexts: of the compared jobs, in the order of the comparison's time points; everything goes under the baseline's transform.
    :raises InputError: if the folder is not complete; the scene is then as before.
    """
    report = read_json(folder / "comparison.json", "The comparison")
    surfaces = _Surfaces(folder, report)
    if len(report["time_points"]) != len(contexts):
        raise InputError(f"The comparison in {folder} has {len(report['time_points'])} time points, and {len(contexts)} were chosen.")
    maker = NodeMaker(scene)
    try:
        return _ComparisonImporter(maker, report, surfaces, contexts).run()
    except BaseException:
        maker.undo()
        raise


def overlay(model: slicer.vtkMRMLModelNode, viewId: str) -> slicer.vtkMRMLModelDisplayNode:
    """Show a model see-through in one more view, to be compared with what else is shown there.

    :param viewId: of the view node.
    """
    display = model.GetScene().AddNewNodeByClass("vtkMRMLModelDisplayNode", f"{model.GetName()} overlay")
    display.SetColor(*model.GetDisplayNode().GetColor())
    display.SetOpacity(OVERLAY_OPACITY)
    display.AddViewNodeID(viewId)
    model.AddAndObserveDisplayNodeID(display.GetID())
    return display


def uncover(scene: slicer.vtkMRMLScene, jobs: Collection[str], earlier: Optional[ComparisonNodes]) -> None:
    """Take out of the 3D views what would lie over a comparison: the results that are compared, and the surfaces of an earlier one.

    :param jobs: names of the folders of the compared jobs.
    """
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        isSurface = node.IsA("vtkMRMLModelNode") or node.IsA("vtkMRMLSegmentationNode")
        if isSurface and node.GetDisplayNode() is not None and jobOf(node) in jobs:
            node.GetDisplayNode().SetVisibility3D(False)
    for model in () if earlier is None else (*earlier.baseline, *earlier.followups):
        for index in range(model.GetNumberOfDisplayNodes() if model.GetScene() is scene else 0):
            model.GetNthDisplayNode(index).SetVisibility(False)


class _Surfaces:
    """All meshes of a comparison, read and checked before the scene is touched; by segment, and by segment and follow-up."""

    def __init__(self, folder: Path, report: Mapping[str, Any]) -> None:
        try:
            entries = [(str(entry["segment"]), int(entry["followup"]), entry) for entry in report["growth"]]
            self.baseline = {segment: read_mesh(folder / str(entry["baseline_file"])) for segment, _index, entry in entries}
            self.followups = {
                (segment, index): _withGrowth(read_mesh(folder / str(entry["files"][0])))
                for segment, index, entry in entries
                if entry["aligned"]
            }
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise InputError(f"The comparison in {folder} is damaged; run it again.") from error

    @property
    def reach(self) -> float:
        """The largest distance that is shown, in mm, at least :data:`LEAST_RANGE_MM`."""
        sizes = [np.abs(numpy_support.vtk_to_numpy(mesh.GetPointData().GetArray(GROWTH_ARRAY))).max() for mesh in self.followups.values()]
        return max([LEAST_RANGE_MM, *map(float, sizes)])


def _withGrowth(mesh: vtk.vtkPolyData) -> vtk.vtkPolyData:
    """The mesh with :data:`GROWTH_ARRAY`: a number everywhere, since display nodes do not keep a colour for missing values."""
    shown = mesh.GetPointData().GetArray(SHOWN_IN_FILE)
    if shown is None:
        raise InputError("A surface of the comparison lacks its growth map; run the comparison again.")
    values = numpy_support.numpy_to_vtk(np.nan_to_num(numpy_support.vtk_to_numpy(shown).astype(np.float32), nan=0.0), deep=True)
    values.SetName(GROWTH_ARRAY)
    mesh.GetPointData().AddArray(values)
    return mesh


class _ComparisonImporter:
    """Makes the nodes of one comparison."""

    def __init__(self, maker: NodeMaker, report: Mapping[str, Any], surfaces: _Surfaces, contexts: Sequence[SceneContext]) -> None:
        self._maker = maker
        self._report = report
        self._surfaces = surfaces
        self._contexts = contexts
        self._names = [_title(context, point.get("date")) for context, point in zip(contexts, report["time_points"])]

    def run(self) -> ComparisonNodes:
        """Make everything."""
        parent = outputParent(self._maker, self._contexts[0])
        parentId = None if parent is None else parent.GetID()
        colors = self._colors() if self._surfaces.followups else None
        transforms = tuple(self._transform(index) for index in range(1, len(self._names)))
        baseline = tuple(self._model(mesh, f"{self._names[0]} {name}", name) for name, mesh in self._surfaces.baseline.items())
        followups = tuple(
            self._growthModel(mesh, f"{self._names[index]} {name} aligned", name, colors)
            for (name, index), mesh in self._surfaces.followups.items()
        )
        if followups:
            self._legend(followups[0])
        point = self._growthPoint()
        for node in (*transforms, *baseline, *followups, *(() if point is None else (point,))):
            node.SetAndObserveTransformNodeID(parentId)
        tables = (self._changeTable(), self._courseTable())
        chart = self._chart(tables[1])
        self._sequences(baseline)
        placeInSubjectHierarchy(self._maker.scene, [*transforms, *baseline, *followups, *tables], self._contexts[0])
        return ComparisonNodes(transforms, baseline, followups, tables, chart, point, tuple(sentences(self._report, self._names)))

    def _transform(self, index: int) -> slicer.vtkMRMLLinearTransformNode:
        node = self._maker.new("vtkMRMLLinearTransformNode", f"{self._names[index]} to {self._names[0]}")
        registration = self._report["time_points"][index]["registration"]
        node.SetMatrixTransformToParent(frames.toVtkMatrix(np.array(registration["followup_to_baseline_ras"], dtype=np.float64)))
        node.SetDescription(str(registration.get("message", "")))
        return node

    def _model(self, mesh: vtk.vtkPolyData, name: str, segment: str) -> slicer.vtkMRMLModelNode:
        node = self._maker.new("vtkMRMLModelNode", name)
        node.SetAndObservePolyData(mesh)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        color = next((part.properties.color for part in self._contexts[0].segments if part.properties.name == segment), None)
        if color is not None:
            display.SetColor(*color)
        display.SetVisibility2D(True)
        return node

    def _growthModel(
        self, mesh: vtk.vtkPolyData, name: str, segment: str, colors: Optional[slicer.vtkMRMLColorTableNode]
    ) -> slicer.vtkMRMLModelNode:
        node = self._model(mesh, name, segment)
        display = node.GetDisplayNode()
        display.SetActiveScalar(GROWTH_ARRAY, vtk.vtkAssignAttribute.POINT_DATA)
        display.SetAndObserveColorNodeID(None if colors is None else colors.GetID())
        display.SetScalarRangeFlag(slicer.vtkMRMLDisplayNode.UseManualScalarRange)
        display.SetScalarRange(-self._surfaces.reach, self._surfaces.reach)
        display.SetScalarVisibility(True)
        return node

    def _legend(self, model: slicer.vtkMRMLModelNode) -> None:
        """One for all growth maps, as they share colours and range, and several would lie over each other."""
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(model)
        if legend is not None:
            legend.SetTitleText(GROWTH_ARRAY)

    def _colors(self) -> slicer.vtkMRMLColorTableNode:
        node = self._maker.new("vtkMRMLColorTableNode", "MedGS growth")
        node.SetTypeToUser()
        node.SetNumberOfColors(COLOR_COUNT)
        places = np.linspace(0.0, 1.0, COLOR_COUNT)
        knots = [place for place, _color in COLORS]
        channels = [np.interp(places, knots, [color[channel] for _place, color in COLORS]) for channel in range(3)]
        for index in range(COLOR_COUNT):
            millimetres = (2.0 * places[index] - 1.0) * self._surfaces.reach
            node.SetColor(index, f"{millimetres:+.2f} mm", *(float(channel[index]) for channel in channels), 1.0)
        return node

    def _growthPoint(self) -> Optional[slicer.vtkMRMLMarkupsFiducialNode]:
        found = [entry for entry in self._report["growth"] if entry.get("largest_significant_mm") is not None]
        if not found:
            return None
        node = self._maker.new("vtkMRMLMarkupsFiducialNode", "Largest change")
        for entry in sorted(found, key=lambda entry: -abs(entry["largest_significant_mm"])):
            label = f"{entry['segment']} {entry['largest_significant_mm']:+.1f} mm"
            node.AddControlPoint(vtk.vtkVector3d(*entry["largest_significant_place_ras"]), label)
        node.SetLocked(True)
        return node

    def _changeTable(self) -> slicer.vtkMRMLTableNode:
        """One row for each segment, pair of dates and measure."""
        titles = ("Segment", "From", "To", "Measure", "Before", "After", "Difference", "Per year", "Band", "Unit", "Verdict")
        columns: Dict[str, List[Any]] = {title: [] for title in titles}
        for entry in self._report["growth"]:
            for change in entry["changes"]:
                values = (entry["segment"], self._names[0], self._names[entry["followup"]], str(change["measure"]).replace("_", " "))
                numbers = (change[name] for name in ("before", "after", "difference", "per_year", "band"))
                for title, value in zip(columns, (*values, *numbers, change["unit"], change["verdict"])):
                    columns[title].append(value)
        return self._table("Comparison", columns)

    def _courseTable(self) -> slicer.vtkMRMLTableNode:
        """One row for each date: years since the baseline, and each measure of each segment."""
        columns: Dict[str, List[Any]] = {"Years": self._years()}
        for entry in self._report["growth"]:
            for change in entry["changes"]:
                title = f"{entry['segment']} {str(change['measure']).replace('_', ' ')} ({change['unit']})"
                column = columns.setdefault(title, [float(change["before"])] + [float("nan")] * (len(self._names) - 1))
                column[int(entry["followup"])] = float(change["after"])
        return self._table("Course", columns)

    def _years(self) -> List[float]:
        """Years since the baseline; without dates the number of the time point."""
        dates = [_date(point.get("date")) for point in self._report["time_points"]]
        if any(date is None for date in dates):
            return [float(index) for index in range(len(dates))]
        return [(date - dates[0]).days / DAYS_A_YEAR for date in dates if date is not None and dates[0] is not None]

    def _table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> slicer.vtkMRMLTableNode:
        node = self._maker.new("vtkMRMLTableNode", f"{name} {self._contexts[0].volumeName}")
        for title, values in columns.items():
            isText = any(isinstance(value, str) for value in values)
            array = vtk.vtkStringArray() if isText else vtk.vtkDoubleArray()
            array.SetName(title)
            for value in values:
                array.InsertNextValue(str(value) if isText else float("nan") if value is None else float(value))
            node.AddColumn(array)
        node.SetUseColumnTitleAsColumnHeader(True)
        return node

    def _chart(self, course: slicer.vtkMRMLTableNode) -> slicer.vtkMRMLPlotChartNode:
        chart = self._maker.new("vtkMRMLPlotChartNode", f"Course {self._contexts[0].volumeName}")
        chart.SetTitle("Course of volume and diameter")
        chart.SetXAxisTitle("years since the baseline" if _date(self._report["time_points"][-1].get("date")) else "time point")
        table = course.GetTable()
        titles = [table.GetColumnName(index) for index in range(1, table.GetNumberOfColumns())]
        wanted = [measure.replace("_", " ") + f" ({UNITS.get(measure, 'mm')})" for measure in CHART_MEASURES]
        for title in titles:
            if title.endswith(tuple(wanted)):
                series = self._maker.new("vtkMRMLPlotSeriesNode", title)
                series.SetAndObserveTableNodeID(course.GetID())
                series.SetXColumnName("Years")
                series.SetYColumnName(title)
                series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
                series.SetUniqueColor()
                chart.AddAndObservePlotSeriesNodeID(series.GetID())
        return chart

    def _sequences(self, baseline: Sequence[slicer.vtkMRMLModelNode]) -> None:
        """For each segment a sequence over the days, and one browser that plays them; needs the Sequences module and dates.

        The model that plays is hidden at first, as it would cover the growth map.
        """
        dates = [_date(point.get("date")) for point in self._report["time_points"]]
        if any(date is None for date in dates) or not self._maker.scene.IsNodeClassRegistered("vtkMRMLSequenceNode"):
            return
        browser = self._maker.new("vtkMRMLSequenceBrowserNode", f"Progression {self._contexts[0].volumeName}")
        browser.SetPlaybackRateFps(FRAMES_A_SECOND)
        for (segment, mesh), model in zip(self._surfaces.baseline.items(), baseline):
            sequence = self._maker.new("vtkMRMLSequenceNode", f"Progression of {segment}")
            sequence.SetIndexName("days")
            sequence.SetIndexUnit("day")
            sequence.SetIndexTypeFromString("numeric")
            for index, date in enumerate(dates):
                surface = mesh if index == 0 else self._surfaces.followups.get((segment, index))
                if surface is not None and date is not None and dates[0] is not None:
                    item = slicer.vtkMRMLModelNode()
                    item.SetName(model.GetName())
                    item.SetAndObservePolyData(surface)
                    sequence.SetDataNodeAtValue(item, str((date - dates[0]).days))
            browser.AddSynchronizedSequenceNodeID(sequence.GetID())
            played = self._model(mesh, f"{sequence.GetName()} (played)", segment)
            played.SetDisplayVisibility(False)
            played.SetAndObserveTransformNodeID(model.GetTransformNodeID())
            browser.AddProxyNode(played, sequence, False)


def sentences(report: Mapping[str, Any], names: Sequence[str]) -> List[str]:
    """What a comparison found, one sentence for each registration and for each segment and follow-up."""
    lines = [f"{names[index]}: {point['registration']['message']}" for index, point in enumerate(report["time_points"]) if index]
    for entry in report["growth"]:
        line = f"{entry['segment']}, {names[entry['followup']]}: {entry['verdict']}"
        if entry.get("largest_significant_mm") is not None:
            line += f", at most {entry['largest_significant_mm']:+.1f} mm"
        parts = [_changeText(change) for change in entry["changes"] if change["measure"] in CHART_MEASURES]
        lines.append("; ".join([line, *parts]) + ".")
    return [*lines, *(str(report[notice]) for notice in ("propagation", "band") if report.get(notice))]


def _changeText(change: Mapping[str, Any]) -> str:
    name = str(change["measure"]).replace("_", " ")
    return f"{name} {change['before']:.1f} to {change['after']:.1f} {change['unit']} ({change['verdict']})"


def _title(context: SceneContext, date: Optional[str]) -> str:
    return f"{context.volumeName} {date}" if date else context.volumeName


def _date(text: Optional[str]) -> Optional[datetime.date]:
    return None if not text else datetime.date.fromisoformat(text)
