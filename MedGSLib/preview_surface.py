"""Shaded orthographic pictures of surfaces by matplotlib alone, so that they need neither a display nor OpenGL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkFiltersCore import vtkQuadricDecimation

from MedGSLib.mesh import vertex_normals
from MedGSLib.metrics_surface import triangles_of

DRAWN_TRIANGLES = 30_000
LIGHT = np.array([-0.35, 0.45, 0.82])
"""Direction towards the light in (right, up, towards the viewer)."""


@dataclass(frozen=True)
class View:
    """A viewing direction; ``right`` and ``up`` are RAS unit vectors of the picture, letters name its sides (left, right, bottom, top)."""

    name: str
    right: tuple[float, float, float]
    up: tuple[float, float, float]
    letters: tuple[str, str, str, str]

    def axes(self) -> NDArray[np.float64]:
        """Rows right, up and towards the viewer (3, 3)."""
        return np.array([self.right, self.up, np.cross(self.right, self.up)], dtype=np.float64)


ANTERIOR = View("anterior view", (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0), ("R", "L", "I", "S"))
LEFT = View("left view", (0.0, -1.0, 0.0), (0.0, 0.0, 1.0), ("A", "P", "I", "S"))
RIGHT = View("right view", (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), ("P", "A", "I", "S"))
POSTERIOR = View("posterior view", (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), ("L", "R", "I", "S"))
VIEWS = (ANTERIOR, LEFT, POSTERIOR, RIGHT)


def draw_surfaces(
    axes: Axes,
    surfaces: Sequence[vtkPolyData],
    colors: Sequence[Any],
    view: View = ANTERIOR,
    *,
    scalars: str | None = None,
    color_map: ScalarMappable | None = None,
) -> None:
    """Draw surfaces in RAS mm, nearest triangles last, with equal scale on both axes.

    :param colors: one matplotlib colour a surface.
    :param scalars: name of a point array that colours the surfaces through ``color_map``; NaN keeps the surface's own colour.
    """
    polygons, depths, shades = [], [], []
    for surface, color in zip(surfaces, colors, strict=True):
        points, triangles, values = _drawable(surface, scalars)
        seen = points @ view.axes().T
        normals = vertex_normals(points, triangles) @ view.axes().T
        facing = normals[triangles].mean(axis=1)
        front = facing[:, 2] > -0.05
        base = np.tile(np.array(to_rgb(color)), (len(triangles), 1))
        if values is not None and color_map is not None:
            value = values[triangles].mean(axis=1)
            known = np.isfinite(value)
            base[known] = color_map.to_rgba(value[known])[:, :3]
        light = np.clip(facing @ (LIGHT / np.linalg.norm(LIGHT)), 0.0, 1.0)
        polygons.append(seen[triangles[front], :2])
        depths.append(seen[triangles[front], 2].mean(axis=1))
        shades.append(base[front] * (0.40 + 0.60 * light[front])[:, None] + 0.10 * (light[front] ** 20)[:, None])
    order = np.argsort(np.concatenate(depths))
    faces = np.clip(np.concatenate(shades)[order], 0.0, 1.0)
    collection = PolyCollection(list(np.concatenate(polygons)[order]), facecolors=faces, edgecolors=faces, linewidths=0.3, rasterized=True)
    axes.add_collection(collection)
    axes.margins(0.14)
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(view.name, fontsize=9)
    letter_sides(axes, view.letters)


def letter_sides(axes: Axes, letters: Sequence[str], color: str = "0.35") -> None:
    """Write orientation letters at the left, right, bottom and top side of a picture."""
    places = ((0.01, 0.5, "left", "center"), (0.99, 0.5, "right", "center"), (0.5, 0.01, "center", "bottom"), (0.5, 0.99, "center", "top"))
    for letter, (x, y, horizontal, vertical) in zip(letters, places, strict=True):
        axes.text(x, y, letter, transform=axes.transAxes, ha=horizontal, va=vertical, color=color, fontsize=9, fontweight="bold")


def _drawable(surface: vtkPolyData, scalars: str | None) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64] | None]:
    """Points, triangles and point values of a surface, thinned to what a small picture can show."""
    array = surface.GetPointData().GetArray(scalars) if scalars else None
    if surface.GetNumberOfPolys() > DRAWN_TRIANGLES:
        original = vtk_to_numpy(surface.GetPoints().GetData())
        values = None if array is None else vtk_to_numpy(array)
        surface = _thinned(surface)
        points, triangles = triangles_of(surface)
        return points, triangles, None if values is None else _nearest_values(original, values, points)
    points, triangles = triangles_of(surface)
    return points, triangles, None if array is None else vtk_to_numpy(array).astype(np.float64)


def _thinned(surface: vtkPolyData) -> vtkPolyData:
    bare = vtkPolyData()
    bare.SetPoints(surface.GetPoints())
    bare.SetPolys(surface.GetPolys())
    decimation = vtkQuadricDecimation()
    decimation.SetInputData(bare)
    decimation.SetTargetReduction(1.0 - DRAWN_TRIANGLES / surface.GetNumberOfPolys())
    decimation.Update()
    return decimation.GetOutput()


def _nearest_values(points: NDArray, values: NDArray, wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[cKDTree(points).query(wanted)[1]].astype(np.float64)
