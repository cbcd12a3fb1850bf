"""Meshes in and out: RAS in memory, LPS in files with the frame in the header, as Slicer does."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple

import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.io.atomic import atomic_write, cut_short

SPACE_FIELD = "SPACE"
HEADER = "MedGS mesh in mm; SPACE=LPS"


def write_mesh(mesh: vtk.vtkPolyData, path: Path) -> None:
    """Write a mesh given in RAS mm as .vtp, .stl or .ply in LPS mm, whole or not at all.

    A .vtp keeps all point and cell data, a .ply shows the active point scalars as colours, a .stl has room for neither.

    :raises InputError: for another suffix.
    :raises ResourceError: if the disk is full.
    """
    path = Path(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(f"A mesh can be written as .vtp, .stl or .ply, not as '{path.name}'.")
    flipped = flipped_mesh(mesh)
    with atomic_write(path) as temporary:
        writer(flipped, temporary)


def read_mesh(path: Path) -> vtk.vtkPolyData:
    """Read a .vtp, .stl or .ply into RAS mm; a file that does not state its frame is taken as LPS, as Slicer does.

    :raises InputError: if it is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"The mesh {path} does not exist.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"A mesh can be read from .vtp, .stl or .ply, not from '{path.name}'.")
    mesh, header = reader(path)
    if mesh.GetNumberOfPoints() == 0 or mesh.GetNumberOfPolys() + mesh.GetNumberOfStrips() == 0:
        raise InputError(f"The mesh {path} cannot be read: it is damaged or holds no triangles.")
    if "SPACE=RAS" in header.upper().replace(" ", ""):
        return mesh
    return flipped_mesh(mesh)


def flipped_mesh(mesh: vtk.vtkPolyData) -> vtk.vtkPolyData:
    """The mesh in the other of RAS and LPS, normals and vectors included; faces keep their order, as the flip is a rotation."""
    flipped = vtk.vtkPolyData()
    flipped.ShallowCopy(mesh)
    points = vtk.vtkPoints()
    points.SetDataType(mesh.GetPoints().GetDataType() if mesh.GetPoints() else vtk.VTK_FLOAT)
    if mesh.GetNumberOfPoints():
        own = vtk_to_numpy(mesh.GetPoints().GetData())
        points.SetData(numpy_to_vtk(geometry.flip_ras_lps(own).astype(own.dtype), deep=True))
    flipped.SetPoints(points)
    for attributes in (flipped.GetPointData(), flipped.GetCellData()):
        _flip_directions(attributes)
    flipped.GetFieldData().RemoveArray(SPACE_FIELD)
    return flipped


def _flip_directions(attributes: vtk.vtkDataSetAttributes) -> None:
    for get, put in ((attributes.GetNormals, attributes.SetNormals), (attributes.GetVectors, attributes.SetVectors)):
        array = get()
        if array is not None:
            own = vtk_to_numpy(array)
            turned = numpy_to_vtk(geometry.flip_ras_lps(own).astype(own.dtype), deep=True)
            turned.SetName(array.GetName())
            put(turned)


def _run(writer: vtk.vtkWriter, path: Path) -> None:
    writer.SetFileName(str(path))
    if not writer.Write() or writer.GetErrorCode():
        raise cut_short(path)


def _write_vtp(mesh: vtk.vtkPolyData, path: Path) -> None:
    space = vtk.vtkStringArray()
    space.SetName(SPACE_FIELD)
    space.InsertNextValue("LPS")
    tagged = vtk.vtkPolyData()
    tagged.ShallowCopy(mesh)
    tagged.GetFieldData().AddArray(space)
    writer = vtk.vtkXMLPolyDataWriter()
    writer.SetInputData(tagged)
    writer.SetDataModeToAppended()
    writer.EncodeAppendedDataOff()
    writer.SetCompressorTypeToZLib()
    _run(writer, path)


def _write_stl(mesh: vtk.vtkPolyData, path: Path) -> None:
    writer = vtk.vtkSTLWriter()
    writer.SetInputData(mesh)
    writer.SetFileTypeToBinary()
    writer.SetHeader(HEADER)
    _run(writer, path)


def _write_ply(mesh: vtk.vtkPolyData, path: Path) -> None:
    writer = vtk.vtkPLYWriter()
    writer.SetInputData(mesh)
    writer.SetFileTypeToBinary()
    writer.AddComment("SPACE=LPS")
    scalars = mesh.GetPointData().GetScalars()
    if scalars is not None and scalars.GetName():
        table = vtk.vtkLookupTable()
        table.SetRange(scalars.GetRange())
        table.Build()
        writer.SetColorModeToDefault()
        writer.SetArrayName(scalars.GetName())
        writer.SetLookupTable(table)
    _run(writer, path)
    if not _ply_is_complete(path):
        # The writer of VTK does not notice that the disk is full.
        raise cut_short(path)


def _read_vtp(path: Path) -> Tuple[vtk.vtkPolyData, str]:
    with path.open("rb") as stream:
        stream.seek(max(path.stat().st_size - 64, 0))
        if not stream.read().rstrip().endswith(b"</VTKFile>"):
            return vtk.vtkPolyData(), ""
    reader = vtk.vtkXMLPolyDataReader()
    mesh = _output(reader, path)
    space = mesh.GetFieldData().GetAbstractArray(SPACE_FIELD)
    return mesh, f"SPACE={space.GetValue(0)}" if isinstance(space, vtk.vtkStringArray) and space.GetNumberOfValues() else ""


def _read_stl(path: Path) -> Tuple[vtk.vtkPolyData, str]:
    reader = vtk.vtkSTLReader()
    mesh = _output(reader, path)
    return mesh, reader.GetHeader() or ""


def _read_ply(path: Path) -> Tuple[vtk.vtkPolyData, str]:
    if not _ply_is_complete(path):
        return vtk.vtkPolyData(), ""
    reader = vtk.vtkPLYReader()
    mesh = _output(reader, path)
    comments = reader.GetComments()
    return mesh, "\n".join(comments.GetValue(index) for index in range(comments.GetNumberOfValues()))


def _output(reader: vtk.vtkPolyDataAlgorithm, path: Path) -> vtk.vtkPolyData:
    """What the reader makes of the file; empty after an error, which the caller words, so VTK's own messages are dropped."""
    failed: List[str] = []
    for source in (reader, reader.GetExecutive()):
        source.AddObserver(vtk.vtkCommand.ErrorEvent, lambda _caller, event: failed.append(event))
    reader.SetFileName(str(path))
    reader.Update()
    return vtk.vtkPolyData() if failed or reader.GetErrorCode() else reader.GetOutput()


def _ply_is_complete(path: Path) -> bool:
    """Whether a .ply holds at least the bytes (binary) or lines (text) that its header promises, counting faces as triangles.

    The reader of VTK crashes the process on a truncated file. Sizes as in Turk, The PLY Polygon File Format, 1994.
    """
    counts: List[int] = []
    sizes: List[int] = []
    text = False
    with path.open("rb") as stream:
        if stream.readline().strip() != b"ply":
            return False
        for line in stream:
            words = line.decode("ascii", errors="replace").split()
            if words[:1] == ["end_header"]:
                break
            if words[:1] == ["format"]:
                text = words[1:2] == ["ascii"]
            elif words[:1] == ["element"] and len(words) == 3 and words[2].isdigit():
                counts.append(int(words[2]))
                sizes.append(0)
            elif words[:1] == ["property"] and sizes:
                sizes[-1] += _ply_property_size(words[1:])
        else:
            return False
        if text:
            return sum(1 for line in stream if line.strip()) >= sum(counts)
        return path.stat().st_size - stream.tell() >= sum(count * size for count, size in zip(counts, sizes))


def _ply_property_size(words: Sequence[str]) -> int:
    if words[0] != "list":
        return _PLY_SIZES.get(words[0], 0)
    triangle = 3 if "vertex_ind" in words[-1] else 0
    return _PLY_SIZES.get(words[1], 0) + triangle * _PLY_SIZES.get(words[2], 0)


_PLY_SIZES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}
_WRITERS: Dict[str, Callable[[vtk.vtkPolyData, Path], None]] = {".vtp": _write_vtp, ".stl": _write_stl, ".ply": _write_ply}
_READERS: Dict[str, Callable[[Path], Tuple[vtk.vtkPolyData, str]]] = {".vtp": _read_vtp, ".stl": _read_stl, ".ply": _read_ply}
