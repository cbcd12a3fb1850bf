"""Meshes: RAS in memory, LPS in files, normals and data kept."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from MedGSLib.errors import InputError, ResourceError
from MedGSLib.io import meshes
from MedGSLib.io.meshes import read_mesh, write_mesh

CENTER = (30.0, -20.0, 10.0)
SUFFIXES = (".vtp", ".stl", ".ply")


@pytest.fixture
def ball() -> vtk.vtkPolyData:
    """A sphere with outward normals, scalars and a second array, at a place with three different coordinates."""
    source = vtk.vtkSphereSource()
    source.SetCenter(*CENTER)
    source.SetRadius(5.0)
    source.SetThetaResolution(24)
    source.SetPhiResolution(18)
    source.Update()
    mesh = source.GetOutput()
    height = numpy_to_vtk(points(mesh)[:, 2].copy(), deep=True)
    height.SetName("height")
    mesh.GetPointData().SetScalars(height)
    extra = numpy_to_vtk(np.arange(mesh.GetNumberOfPoints(), dtype=np.float32), deep=True)
    extra.SetName("extra")
    mesh.GetPointData().AddArray(extra)
    return mesh


def points(mesh: vtk.vtkPolyData) -> np.ndarray:
    return vtk_to_numpy(mesh.GetPoints().GetData())


def raw(path: Path) -> vtk.vtkPolyData:
    """The file through VTK alone."""
    reader = {".vtp": vtk.vtkXMLPolyDataReader, ".stl": vtk.vtkSTLReader, ".ply": vtk.vtkPLYReader}[path.suffix]()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def signed_volume(mesh: vtk.vtkPolyData) -> float:
    """Positive when the faces run counterclockwise seen from outside."""
    triangles = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    a, b, c = (points(mesh)[triangles[:, corner]].astype(np.float64) - CENTER for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_is_lps_and_says_so(ball: vtk.vtkPolyData, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mesh{suffix}"
    write_mesh(ball, path)
    assert np.allclose(np.array(raw(path).GetCenter()), np.array(ball.GetCenter()) * [-1, -1, 1], atol=1e-4)
    if suffix == ".vtp":
        assert raw(path).GetFieldData().GetAbstractArray("SPACE").GetValue(0) == "LPS"
    else:
        assert b"SPACE=LPS" in path.read_bytes()[:300]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_round_trip_keeps_the_surface_and_its_outside(ball: vtk.vtkPolyData, tmp_path: Path, suffix: str) -> None:
    before = points(ball).copy()
    write_mesh(ball, tmp_path / f"mesh{suffix}")
    mesh = read_mesh(tmp_path / f"mesh{suffix}")
    assert np.array_equal(points(ball), before)
    assert mesh.GetNumberOfPolys() == ball.GetNumberOfPolys()
    assert np.allclose(np.sort(points(mesh), axis=0), np.sort(points(ball), axis=0), atol=1e-5)
    assert signed_volume(mesh) == pytest.approx(signed_volume(ball), rel=1e-5)
    assert signed_volume(mesh) > 0


@pytest.mark.parametrize("suffix", [".vtp", ".ply"])
def test_normals_turn_with_the_points(ball: vtk.vtkPolyData, tmp_path: Path, suffix: str) -> None:
    write_mesh(ball, tmp_path / f"mesh{suffix}")
    for mesh, center in ((read_mesh(tmp_path / f"mesh{suffix}"), CENTER), (raw(tmp_path / f"mesh{suffix}"), (-30.0, 20.0, 10.0))):
        normals = vtk_to_numpy(mesh.GetPointData().GetNormals())
        assert (np.einsum("ij,ij->i", normals, (points(mesh) - center) / 5.0) > 0.99).all()


def test_vtp_keeps_all_arrays(ball: vtk.vtkPolyData, tmp_path: Path) -> None:
    write_mesh(ball, tmp_path / "mesh.vtp")
    mesh = read_mesh(tmp_path / "mesh.vtp")
    for name in ("height", "extra"):
        assert np.array_equal(vtk_to_numpy(mesh.GetPointData().GetArray(name)), vtk_to_numpy(ball.GetPointData().GetArray(name)))
    assert mesh.GetFieldData().GetAbstractArray("SPACE") is None


def test_ply_shows_the_scalars_as_colours(ball: vtk.vtkPolyData, tmp_path: Path) -> None:
    write_mesh(ball, tmp_path / "mesh.ply")
    colors = vtk_to_numpy(read_mesh(tmp_path / "mesh.ply").GetPointData().GetArray("RGB"))
    height = vtk_to_numpy(ball.GetPointData().GetArray("height"))
    assert not np.array_equal(colors[height.argmin()], colors[height.argmax()])


@pytest.mark.parametrize(("frame", "sign"), [("RAS", 1.0), ("LPS", -1.0), ("", -1.0)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_frame_of_the_header_is_honoured(ball: vtk.vtkPolyData, tmp_path: Path, suffix: str, frame: str, sign: float) -> None:
    path = tmp_path / f"mesh{suffix}"
    writer = {".vtp": vtk.vtkXMLPolyDataWriter, ".stl": vtk.vtkSTLWriter, ".ply": vtk.vtkPLYWriter}[suffix]()
    if suffix == ".vtp" and frame:
        space = vtk.vtkStringArray()
        space.SetName("SPACE")
        space.InsertNextValue(frame)
        ball.GetFieldData().AddArray(space)
    elif suffix == ".stl":
        writer.SetHeader(f"solid by hand SPACE={frame}" if frame else "solid by hand")
    elif suffix == ".ply" and frame:
        writer.AddComment(f"SPACE={frame}")
    writer.SetInputData(ball)
    writer.SetFileName(str(path))
    writer.Write()
    assert np.allclose(read_mesh(path).GetCenter(), np.array(ball.GetCenter()) * [sign, sign, 1.0], atol=1e-4)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(ball: vtk.vtkPolyData, tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"mesh{suffix}"
    write_mesh(ball, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match="damaged"):
        read_mesh(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_foreign_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mesh{suffix}"
    path.write_text("hello, no mesh here\n" * 20)
    with pytest.raises(InputError, match="damaged"):
        read_mesh(path)


def test_a_text_ply_is_read_and_checked(ball: vtk.vtkPolyData, tmp_path: Path) -> None:
    writer = vtk.vtkPLYWriter()
    writer.SetInputData(ball)
    writer.SetFileTypeToASCII()
    writer.SetFileName(str(tmp_path / "mesh.ply"))
    writer.Write()
    assert read_mesh(tmp_path / "mesh.ply").GetNumberOfPolys() == ball.GetNumberOfPolys()
    lines = (tmp_path / "mesh.ply").read_text().splitlines(keepends=True)
    (tmp_path / "mesh.ply").write_text("".join(lines[: len(lines) // 2]))
    with pytest.raises(InputError, match="damaged"):
        read_mesh(tmp_path / "mesh.ply")


def test_missing_and_unknown_files(ball: vtk.vtkPolyData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_mesh(tmp_path / "nowhere.ply")
    with pytest.raises(InputError, match="not as 'mesh.obj'"):
        write_mesh(ball, tmp_path / "mesh.obj")
    (tmp_path / "mesh.obj").write_text("v 0 0 0")
    with pytest.raises(InputError, match="not from 'mesh.obj'"):
        read_mesh(tmp_path / "mesh.obj")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_nothing(ball: vtk.vtkPolyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ResourceError, match="^The disk is full"):
        write_mesh(ball, tmp_path / f"mesh{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_a_short_ply_is_noticed(ball: vtk.vtkPolyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = meshes._run

    def short(writer: vtk.vtkWriter, path: Path) -> None:
        run(writer, path)
        path.write_bytes(path.read_bytes()[:-100])

    monkeypatch.setattr(meshes, "_run", short)
    with pytest.raises(ResourceError, match="disk may be full"):
        write_mesh(ball, tmp_path / "mesh.ply")
    assert list(tmp_path.iterdir()) == []
