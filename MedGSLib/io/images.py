"""The step between SimpleITK images (LPS) and :class:`Volume` (RAS), and reading files as images without surprises."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Mapping, Optional, Tuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from MedGSLib import geometry
from MedGSLib.errors import InputError, ResourceError
from MedGSLib.geometry import Matrix
from MedGSLib.io import nifti
from MedGSLib.io.ascii_path import ascii_path, is_unreadable_name
from MedGSLib.io.atomic import cut_short
from MedGSLib.volume import Volume

logger = logging.getLogger(__name__)

SHEAR_TOLERANCE = 0.01
"""Largest cosine between two image axes that still counts as a right angle."""

SAME_PLACE_VOXELS = 0.1
"""Two statements of a volume's place that differ by less are the same."""

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
        image = sitk.ReadImage(ascii_path(path))
    except RuntimeError as error:
        text = str(error)
        if "orthonormal" in text:
            raise sheared(path) from error
        if "allocat" in text.lower():
            raise ResourceError(f"There is not enough memory to read {path}.") from error
        if nifti.is_nifti_2(path):
            raise InputError(f"The file {path} is in the format NIfTI-2, which is not read; save it as NIfTI-1 or NRRD.") from error
        if is_unreadable_name(path):
            raise InputError(f"The file {path} cannot be read on Windows because of letters in its path; rename or move it.") from error
        raise InputError(f"The file {path} cannot be read: it is damaged, or not one of {FORMATS}.") from error
    if not nifti.is_complete(path):
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
    ras = geometry.flip_ras_lps(lps)
    if nifti.is_nifti(source):
        _warn_of_contradiction(source, image.GetSize(), ras)
    return ras


def _warn_of_contradiction(source: Path, shape_ijk: Tuple[int, ...], ras: Matrix) -> None:
    apart = nifti.contradiction_mm(source, shape_ijk, ras)
    if apart > SAME_PLACE_VOXELS * geometry.spacing(ras).min():
        logger.warning(
            "The header of %s states its place in several ways (qform, sform, spacing) that differ by up to %.3g mm; "
            "it is read as ITK does, so check that image and mask lie on each other.",
            source,
            apart,
        )


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
        sitk.WriteImage(image, ascii_path(path), useCompression=True)
        complete = nifti.is_complete(path)
    except RuntimeError as error:
        raise cut_short(path) from error
    if not complete:
        raise cut_short(path)
