"""What the reader of SimpleITK leaves unsaid about a NIfTI file: whether it is complete, and whether its header contradicts itself."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import List, Tuple

import numpy as np
from numpy.typing import NDArray

from MedGSLib import geometry
from MedGSLib.geometry import Matrix

HEADER_BYTES = 348
NIFTI_2_BYTES = 540
GZIP_MARK = b"\x1f\x8b"


def is_nifti(path: Path) -> bool:
    """Whether the file is called like a NIfTI file of one part."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def is_nifti_2(path: Path) -> bool:
    """Whether a file of that name is in the second version of the format, which SimpleITK does not read."""
    if not is_nifti(path):
        return False
    try:
        return NIFTI_2_BYTES in (int.from_bytes(_header(path)[:4], order) for order in ("little", "big"))
    except (EOFError, OSError, zlib.error):
        return False


def is_complete(path: Path) -> bool:
    """Whether a NIfTI file holds all the bytes that its header promises; files of other formats always pass.

    The reader of SimpleITK fills the voxels that a truncated NIfTI file lacks with arbitrary values and reports no error.
    """
    if not is_nifti(path):
        return True
    try:
        needed = _promised_bytes(_header(path))
        if not _is_packed(path):
            return path.stat().st_size >= needed
        return _gzip_claims(path, needed) or _gzip_holds(path, needed)
    except (EOFError, OSError, struct.error, zlib.error):
        return False


def contradiction_mm(path: Path, shape_ijk: Tuple[int, ...], used: Matrix) -> float:
    """How far (mm) a corner of the volume is from where another part of the header puts it than the one that was believed.

    A header may state the place of a volume as a quaternion with a spacing (qform) and as a matrix (sform).

    :param used: 4x4 from voxels to RAS mm, as the file was read.
    """
    corners = np.stack(np.meshgrid(*[(0.0, float(count - 1)) for count in shape_ijk], indexing="ij"), axis=-1).reshape(-1, 3)
    read = geometry.transform_points(used, corners)
    apart = [np.linalg.norm(geometry.transform_points(stated, corners) - read, axis=1).max() for stated in _stated(_header(path))]
    return float(max(apart, default=0.0))


def _stated(header: bytes) -> List[Matrix]:
    """The matrices (4x4 to RAS mm) that the header states, as in nifti1.h."""
    from scipy.spatial.transform import Rotation  # here, since Slicer's panel writes images and need not have scipy for it

    order = _byte_order(header)
    qform, sform = struct.unpack(order + "2h", header[252:256])
    unit_mm = {1: 1000.0, 3: 0.001}.get(header[123] & 7, 1.0)
    found: List[Matrix] = []
    if sform > 0:
        found.append(np.vstack([np.array(struct.unpack(order + "12f", header[280:328])).reshape(3, 4) * unit_mm, [0, 0, 0, 1]]))
    if qform > 0:
        matrix: NDArray[np.float64] = np.eye(4)
        handed, *spacing = struct.unpack(order + "4f", header[76:92])
        b, c, d, *origin = struct.unpack(order + "6f", header[256:280])
        turn = Rotation.from_quat([b, c, d, max(1.0 - b * b - c * c - d * d, 0.0) ** 0.5]).as_matrix()
        matrix[:3, :3] = turn * np.array([*spacing[:2], spacing[2] * (-1.0 if handed < 0 else 1.0)]) * unit_mm
        matrix[:3, 3] = np.array(origin) * unit_mm
        found.append(matrix)
    return [matrix for matrix in found if np.isfinite(matrix).all()]


def _is_packed(path: Path) -> bool:
    with path.open("rb") as raw:
        return raw.read(2) == GZIP_MARK


def _header(path: Path) -> bytes:
    with gzip.open(path, "rb") if _is_packed(path) else path.open("rb") as stream:
        return stream.read(HEADER_BYTES)


def _byte_order(header: bytes) -> str:
    return "<" if struct.unpack("<i", header[:4])[0] == HEADER_BYTES else ">"


def _promised_bytes(header: bytes) -> int:
    """Bytes of a NIfTI-1 file by its header (nifti1.h), in either byte order."""
    order = _byte_order(header)
    dim = struct.unpack(order + "8h", header[40:56])
    bits = struct.unpack(order + "h", header[72:74])[0]
    offset = int(struct.unpack(order + "f", header[108:112])[0])
    return offset + int(np.prod(dim[1 : dim[0] + 1], dtype=np.int64)) * bits // 8


def _gzip_claims(path: Path, needed: int) -> bool:
    """Whether the trailer of a gzip file states ``needed`` bytes; a truncated file ends in arbitrary ones."""
    with path.open("rb") as stream:
        stream.seek(-4, 2)
        return struct.unpack("<I", stream.read(4))[0] == needed % 2**32


def _gzip_holds(path: Path, needed: int) -> bool:
    """Whether a gzip file unpacks to at least ``needed`` bytes."""
    held = 0
    with gzip.open(path, "rb") as stream:
        while block := stream.read(1 << 22):
            held += len(block)
    return held >= needed
