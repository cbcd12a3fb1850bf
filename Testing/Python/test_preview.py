"""Pictures: written whole, in true proportions, the same for every storage order of the same patient."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from MedGSLib import preview
from MedGSLib.geometry import shifted_origin
from MedGSLib.mesh import occupancy_to_mesh
from MedGSLib.preview_surface import ANTERIOR, LEFT, VIEWS, draw_surfaces
from MedGSLib.volume import Label, SliceStack

LABELS = (Label(1, "left block", (0.2, 0.4, 0.9)), Label(2, "upper block", (0.9, 0.5, 0.1)))


def a_stack() -> SliceStack:
    """Two blocks that no flip maps onto each other, slices 6 mm apart, rows to posterior, columns to the left."""
    occupancy = np.zeros((2, 9, 30, 40), np.float32)
    occupancy[0, 2:7, 8:20, 22:36] = 1
    occupancy[1, 5:8, 12:26, 6:18] = 1
    image = occupancy[0] * 80 + occupancy[1] * 40 + np.linspace(0, 30, 40, dtype=np.float32)
    plane_to_ras = np.diag([-2.0, -2.0, 1.0, 1.0])
    return SliceStack(image, occupancy, LABELS, np.ones(9, bool), np.arange(9) * 6.0, plane_to_ras)


def flipped(stack: SliceStack) -> SliceStack:
    """The same patient, stored with slices and columns in reverse order."""
    last = (39.0, 0.0, float(stack.positions_mm[-1]))
    matrix = shifted_origin(stack.plane_to_ras, last) @ np.diag([-1.0, 1.0, -1.0, 1.0])
    return SliceStack(
        stack.image[::-1, :, ::-1], stack.occupancy[:, ::-1, :, ::-1], stack.labels, stack.annotated, stack.positions_mm, matrix
    )


def a_result(stack: SliceStack) -> preview.DenseResult:
    image, occupancy = (np.repeat(array, 2, axis=-3)[..., :-1, :, :] for array in (stack.image, stack.occupancy))
    meshes = [occupancy_to_mesh(channel, stack.index_to_ras(3.0)) for channel in occupancy]
    return preview.DenseResult(3.0, image, occupancy, meshes)


@pytest.mark.parametrize("keep", ["all", "image", "mask"])
def test_a_preview_is_written_for_every_kind_of_result(tmp_path: Path, keep: str) -> None:
    stack = a_stack()
    result = a_result(stack)
    if keep == "image":
        stack = SliceStack(stack.image, None, (), stack.annotated, stack.positions_mm, stack.plane_to_ras)
        result = preview.DenseResult(3.0, result.image)
    if keep == "mask":
        stack = SliceStack(None, stack.occupancy, LABELS, stack.annotated, stack.positions_mm, stack.plane_to_ras)
        result = preview.DenseResult(3.0, None, result.occupancy, result.meshes)
    preview.write_preview(tmp_path / "preview.png", stack, result)
    picture = imread(tmp_path / "preview.png")
    assert min(picture.shape[:2]) > 500
    assert picture[..., :3].std() > 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["preview.png"]


@pytest.mark.parametrize("pixels", [(1, 1), (1, 5), (5, 1)])
def test_a_crop_of_one_pixel_is_drawn(tmp_path: Path, pixels: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    occupancy = np.zeros((1, 3, *pixels), np.float32)
    occupancy[0, 1] = 1
    stack = SliceStack(occupancy[0], occupancy, LABELS[:1], np.ones(3, bool), np.arange(3) * 6.0, np.eye(4))
    preview.write_preview(tmp_path / "preview.png", stack, a_result(stack))
    assert imread(tmp_path / "preview.png").std() > 0.01 and caplog.text == ""


def test_a_picture_that_cannot_be_drawn_costs_no_more_than_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(preview, "_draw_plane", lambda *_: [][0])
    preview.write_preview(tmp_path / "preview.png", a_stack(), a_result(a_stack()))
    assert imread(tmp_path / "preview.png").size > 0 and "could not be drawn" in caplog.text


def test_the_storage_order_does_not_change_the_picture(tmp_path: Path) -> None:
    pictures = []
    for name, stack in (("plain", a_stack()), ("flipped", flipped(a_stack()))):
        preview.write_preview(tmp_path / f"{name}.png", stack, a_result(stack))
        pictures.append(imread(tmp_path / f"{name}.png")[..., :3])
    plain, other = pictures
    width = min(plain.shape[1], other.shape[1])
    assert np.mean(np.abs(plain[:, :width] - other[:, :width]).max(axis=-1) > 0.2) < 0.02
    mirrored = plain[:, ::-1][:, :width]
    assert np.mean(np.abs(mirrored - other[:, :width]).max(axis=-1) > 0.2) > 0.05


@pytest.mark.parametrize(
    ("direction", "expected"),
    [((0, 0, 1), ("I", "S")), ((-1, 0, 0), ("R", "L")), ((0.1, -0.9, 0.3), ("A", "P")), ((0.8, 0.6, 0), ("L", "R"))],
)
def test_axis_letters(direction: tuple[float, float, float], expected: tuple[str, str]) -> None:
    assert preview.axis_letters(np.array(direction)) == expected


def test_views_are_right_handed_and_look_at_the_side_they_name() -> None:
    for view in VIEWS:
        assert np.linalg.det(view.axes()) == pytest.approx(1.0)
    assert tuple(ANTERIOR.axes()[2]) == (0, 1, 0)
    assert tuple(LEFT.axes()[2]) == (-1, 0, 0)


def test_large_surfaces_are_drawn_thinned_and_with_their_scalars() -> None:
    from vtkmodules.util.numpy_support import numpy_to_vtk

    z, y, x = np.indices((70, 70, 70)) - 34.5
    surface = occupancy_to_mesh(0.5 + 0.5 * np.tanh((30 - np.sqrt(x**2 + y**2 + z**2)) / 2), np.diag([0.5, 0.5, 0.5, 1.0]))
    growth = numpy_to_vtk(np.where(np.arange(surface.GetNumberOfPoints()) % 2, np.nan, 1.0), deep=True)
    growth.SetName("growth_mm")
    surface.GetPointData().AddArray(growth)
    from matplotlib.cm import ScalarMappable

    axes = Figure().subplots()
    draw_surfaces(axes, [surface], ["0.7"], scalars="growth_mm", color_map=ScalarMappable(cmap="coolwarm"))
    assert 5_000 < len(axes.collections[0].get_paths()) < 30_000


def test_the_demo_summary_is_written(tmp_path: Path) -> None:
    stack = a_stack()
    preview.write_demo_summary(tmp_path / "summary.png", stack, a_result(stack), [("volume", 98.7, 97.9, "cm³")], "demo", "in 60 s")
    assert imread(tmp_path / "summary.png").std() > 0.1


def test_no_display_and_no_opengl_are_needed() -> None:
    code = "import sys, MedGSLib.preview; print([m for m in sys.modules if 'OpenGL' in m or m == 'torch' or m == 'matplotlib.pyplot'])"
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
