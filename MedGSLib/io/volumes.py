"""Volumes from files: NRRD, NIfTI, MetaImage and DICOM series, with their slice positions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from MedGSLib.errors import InputError
from MedGSLib.io import dicom, frame_files, images
from MedGSLib.volume import Volume

LARGEST_VALUE = 1e37
"""A tenth of what fits into single precision."""

Positions = Union[Sequence[float], str, Path, None]


def read_volume(path: Path, positions: Positions = None) -> Volume:
    """Read a volume from a file, a folder with one DICOM series, one file of a DICOM series, or a folder of picture frames.

    :param positions: slice positions in mm along k, as numbers, as text like ``0,3,7.5``, or as a text file; for files that cannot
        state irregular ones. They replace the slice spacing of the file, and the first slice stays where it is.
    :raises InputError: in one sentence, for whatever makes it unusable.
    """
    path = Path(path)
    if frame_files.is_frame_folder(path):
        volume = frame_files.read_frame_volume(path)
    elif path.is_dir() or dicom.is_dicom(path):
        volume = dicom.read_series(path)
    else:
        image = images.scalar_image(images.read_image(path), path)
        volume = Volume(sitk.GetArrayFromImage(image), images.ijk_to_ras(image, path), meta=_nrrd_thickness(path))
    _refuse_not_finite(volume.voxels, path)
    wanted = parse_positions(positions)
    return volume if wanted is None else volume.with_positions(wanted)


def parse_positions(positions: Positions) -> Optional[NDArray[np.float64]]:
    """Slice positions in mm from numbers, from text (separated by commas or blanks), or from a text file of those.

    :raises InputError: if something in it is not a number.
    """
    if positions is None:
        return None
    if isinstance(positions, (str, Path)):
        text = str(positions)
        if _is_file(text):
            text = Path(text).read_text(encoding="utf-8", errors="replace")
        elif isinstance(positions, Path):
            raise InputError(f"The file of slice positions {positions} does not exist.")
        words: Sequence[Union[str, float]] = text.replace(",", " ").replace(";", " ").split()
    else:
        words = positions
    numbers: List[float] = []
    for word in words:
        try:
            numbers.append(float(word))
        except ValueError:
            raise InputError(f"The slice positions must be numbers in mm (or a text file of them), and '{word}' is none.") from None
    return np.array(numbers, dtype=np.float64)


def _is_file(text: str) -> bool:
    """Whether text names a file; a long list of positions is longer than any file name may be."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _refuse_not_finite(voxels: NDArray, path: Path) -> None:
    if not np.issubdtype(voxels.dtype, np.floating):
        return
    bad = sum(int(np.count_nonzero(~np.isfinite(part))) for part in voxels)
    if not bad and voxels.size and max(abs(float(voxels.min())), abs(float(voxels.max()))) > LARGEST_VALUE:
        raise InputError(f"The values of {path} reach beyond {LARGEST_VALUE:g}, which is too large to compute with; scale them down.")
    if bad:
        raise InputError(
            f"The volume {path} has {bad} voxel{'s' if bad > 1 else ''} without a finite value (NaN or infinite); "
            "replace them, for example by the value of the background, and try again."
        )


def _nrrd_thickness(path: Path) -> Dict[str, str]:
    """The slice thickness of an NRRD header; SimpleITK passes this field on without its value."""
    if path.suffix.lower() not in (".nrrd", ".nhdr"):
        return {}
    with path.open("rb") as stream:
        for line in stream:
            if not line.strip():
                break
            name, _, value = line.decode("utf-8", errors="replace").partition(":")
            if name == "thicknesses":
                try:
                    thickness = float(value.split()[-1])
                except (ValueError, IndexError):
                    return {}
                return {"slice_thickness_mm": f"{thickness:g}"} if math.isfinite(thickness) and thickness > 0 else {}
    return {}
