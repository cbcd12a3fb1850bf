"""The step between SimpleITK images (LPS) and :class:`Volume` (RAS), and reading files as images without surprises."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Mapping, Optional

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from MedGSLib import geometry
from MedGSLib.errors import InputError, ResourceError
from MedGSLib.geometry import Matrix
from MedGSLib.io.atomic import cut_short
from MedGSLib.volume import Volume

SHEAR_TOLERANCE = 0.01
"""Largest cosine between two image axes that still counts as a right angle."""

WRITABLE = (".nrrd", ".nii", ".nii.gz", ".mha")

FORMATS = "NRRD, NIfTI, MHA, MHD, a folder with one DICOM series, or a folder of frames"


def read_image(path: Path) -> sitk.Image:
    """Read any file that SimpleITK reads, and refuse a missing, damaged or sheared one in one sentence.

    :raises InputError: see above.
    :raises ResourceError: if it does not fit into memory.
    """
    if not path.is_file():
        raise InputError(f"The file {path} does not exist.")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        text = str(error)
        if "orthonormal" in text:
            raise sheared(path) from error
        if "allocat" in text.lower():
            raise ResourceError(f"There is not enough memory to read {path}.") from error
        raise InputError(f"The file {path} cannot be read: it is damaged, or not one of {FORMATS}.") from error
    if not nifti_is_complete(path):
        raise InputError(f"The file {path} is incomplete: it ends before its last voxel, so copy or export it again.")
    return image


def sheared(source: Path) -> InputError:
    """:return: the refusal of a grid whose axes do not stand at right angles."""
    return InputError(
        f"The axes of {source} do not stand at right angles (a tilted gantry or a sheared export), "
        "so resample it onto a regular grid first, for example with 'Resample Scalar/Vector/DWI Volume' in 3D Slicer."
    )


def scalar_image(image: sitk.Image, source: Path) -> sitk.Image:
    """The one 3-D scalar volume in ``image``; axes of length one beyond the third are dropped.

    :raises InputError: if there are several volumes, several values a voxel, or only a flat picture.
    """
    if image.GetDimension() == 2:
        raise InputError(f"The file {source} holds a single flat picture, and a volume of at least 2 slices is needed.")
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
    if image.GetDimension() > 3:
        raise InputError(
            f"The file {source} holds {image.GetSize()[-1]} volumes (a time series); save the one you want as a file of its own."
        )
    if image.GetNumberOfComponentsPerPixel() > 1 or "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"The file {source} holds several values per voxel (colour, vector or complex), and one grey value is needed.")
    return image


def ijk_to_ras(image: sitk.Image, source: Path) -> Matrix:
    """:return: the 4x4 voxel-to-RAS matrix of a 3-D image.

    :raises InputError: if its axes are not at right angles.
    """
    direction = np.array(image.GetDirection(), dtype=np.float64).reshape(3, 3)
    if np.abs(direction.T @ direction - np.eye(3)).max() > SHEAR_TOLERANCE:
        raise sheared(source)
    lps = np.eye(4)
    lps[:3, :3] = direction * np.array(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    return geometry.flip_ras_lps(lps)


def set_geometry(image: sitk.Image, matrix: Matrix) -> sitk.Image:
    """Give a 3-D image the place that the 4x4 voxel-to-RAS ``matrix`` states; returns the same image."""
    lps = geometry.flip_ras_lps(matrix)
    mm = geometry.spacing(lps)
    image.SetSpacing(mm.tolist())
    image.SetDirection((lps[:3, :3] / mm).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def to_image(voxels: NDArray, matrix: Matrix) -> sitk.Image:
    """:return: a SimpleITK image of ``[k, j, i]`` voxels at the place of the 4x4 voxel-to-RAS ``matrix``."""
    plain = voxels.astype(np.uint8) if voxels.dtype == np.bool_ else voxels
    return set_geometry(sitk.GetImageFromArray(np.ascontiguousarray(plain)), matrix)


def write_image(path: Path, volume: Volume, header: Optional[Mapping[str, str]] = None) -> None:
    """Write a regular volume, compressed, straight to ``path`` (use within :func:`MedGSLib.io.atomic.atomic_write`).

    :param header: text fields for formats that have them (NRRD, MetaImage).
    :raises InputError: for a suffix that is not one of ``WRITABLE``.
    :raises ResourceError: if not all of it reached the disk.
    """
    if not path.name.lower().endswith(WRITABLE):
        raise InputError(f"A volume can be written as {', '.join(WRITABLE)}, not as '{path.suffix}'.")
    image = to_image(volume.voxels, volume.ijk_to_ras)
    for key, value in (header or {}).items():
        image.SetMetaData(key, " ".join(value.split()))
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
        complete = nifti_is_complete(path)
    except RuntimeError as error:
        raise cut_short(path) from error
    if not complete:
        raise cut_short(path)


def nifti_is_complete(path: Path) -> bool:
    """Whether a NIfTI file holds all the bytes that its header promises; files of other formats always pass.

    The reader of SimpleITK fills the voxels that a truncated NIfTI file lacks with arbitrary values and reports no error.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return True
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            needed = _nifti_size(stream.read(348))
            if not packed:
                return path.stat().st_size >= needed
        return _gzip_claims(path, needed) or _gzip_holds(path, needed)
    except (EOFError, OSError, struct.error, zlib.error):
        return False


def _nifti_size(header: bytes) -> int:
    """Bytes of a NIfTI-1 file by its header (nifti1.h), in either byte order."""
    order = "<" if struct.unpack("<i", header[:4])[0] == 348 else ">"
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
