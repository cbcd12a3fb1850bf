"""DICOM series: slices sorted by where ImagePositionPatient puts them, irregular positions kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, List, Sequence

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.io import dicom_frames, images
from MedGSLib.volume import Volume

logger = logging.getLogger(__name__)

META_TAGS = {
    "slice_thickness_mm": "0018|0050",
    "spacing_between_slices_mm": "0018|0088",
    "study_date": "0008|0020",
    "modality": "0008|0060",
    "patient_id": "0010|0020",
}
IMAGE_UID = "0008|0018"
SERIES_UID = "0020|000e"
SERIES_DESCRIPTION = "0008|103e"
SAME_PLACE_MM = 1e-3
SAME_DIRECTION = 1e-3
EXACT_PX = 0.05
"""Slices shifted sideways by less than this part of a pixel lie straight above each other."""
LARGEST_SHIFT_PX = 0.5
"""Slices shifted further than this from a straight line do not form one grid."""


@dataclass(frozen=True)
class Slice:
    """One image of a series: voxels ``(1, rows, columns)``, place in RAS mm, header facts, and its UID (empty: unknown)."""

    voxels: NDArray
    ijk_to_ras: NDArray[np.float64]
    meta: Dict[str, str]
    uid: str = ""


def is_dicom(path: Path) -> bool:
    """Whether the file carries the mark of DICOM part 10, whatever its name."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def read_series(path: Path) -> Volume:
    """Read the one series in a folder, or the series that a DICOM file belongs to.

    :raises InputError: if the folder holds none or several, or if its images do not form one stack of parallel slices.
    """
    slices = [each for name in _series_files(path) for each in _read_slices(name)]
    if len(slices) == 1:
        return Volume(slices[0].voxels, slices[0].ijk_to_ras, meta=slices[0].meta)
    return stack_slices(slices, path)


def stack_slices(slices: Sequence[Slice], source: Path) -> Volume:
    """Sort slices along their common normal and stack them.

    The position of a slice is the projection of its ImagePositionPatient on the normal (DICOM PS3.3 C.7.6.2.1.1). Copies of an image are
    left out.

    :raises InputError: if sizes, directions or positions do not make one stack.
    """
    slices = _without_copies(slices, source)
    first = slices[0]
    if any(each.voxels.shape != first.voxels.shape or len(each.voxels) != 1 for each in slices):
        raise InputError(f"The images in {source} differ in size, so they do not form one volume.")
    if any(np.abs(each.ijk_to_ras[:3, :2] - first.ijk_to_ras[:3, :2]).max() > SAME_DIRECTION for each in slices):
        raise InputError(
            f"The images in {source} differ in direction or pixel size (a localizer, perhaps), so they do not form one volume."
        )
    row, column = (first.ijk_to_ras[:3, c] / np.linalg.norm(first.ijk_to_ras[:3, c]) for c in (0, 1))
    normal = np.cross(row, column)
    places = np.array([each.ijk_to_ras[:3, 3] for each in slices])
    along = (places - places[0]) @ normal
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    if len(gaps) == 0 or gaps.min() < SAME_PLACE_MM:
        raise InputError(
            f"The series in {source} has several images at the same position (time points, phases or echoes, or positions are missing); "
            "export one of them as a series of its own."
        )
    pixel_mm = float(geometry.spacing(first.ijk_to_ras)[:2].min())
    direction = _stack_direction(places[order], normal, pixel_mm, source)
    positions = (along[order] - along[order[0]]) / float(direction @ normal)
    matrix = np.eye(4)
    matrix[:3, :2] = first.ijk_to_ras[:3, :2]
    matrix[:3, 2] = direction * np.median(np.diff(positions))
    matrix[:3, 3] = places[order[0]]
    voxels = np.concatenate([slices[index].voxels for index in order])
    volume = Volume(voxels, matrix, meta=slices[order[0]].meta).with_positions(positions)
    if volume.positions_mm is not None:
        _warn_of_gaps(volume.positions_mm, source)
    return volume


def _without_copies(slices: Sequence[Slice], source: Path) -> List[Slice]:
    """The slices without those that repeat UID, place and voxels of an earlier one, as when files were copied twice."""
    kept: Dict[str, Slice] = {}
    found: List[Slice] = []
    for each in slices:
        earlier = kept.setdefault(each.uid, each)
        same_place = np.array_equal(earlier.ijk_to_ras, each.ijk_to_ras)
        if earlier is each or not each.uid or not (same_place and np.array_equal(earlier.voxels, each.voxels)):
            found.append(each)
    if len(found) < len(slices):
        logger.warning("Copies of other images in %s were left out: %d.", source, len(slices) - len(found))
    return found


def _stack_direction(places: NDArray[np.float64], normal: NDArray[np.float64], pixel_mm: float, source: Path) -> NDArray[np.float64]:
    """Unit vector along which the corners (S, 3) of sorted slices lie; the normal itself where it leads through all of them.

    :raises InputError: if they lie on no straight line, or if it is not at right angles to the slices.
    """
    steps = places - places[0]
    if np.linalg.norm(steps - np.outer(steps @ normal, normal), axis=1).max() <= EXACT_PX * pixel_mm:
        return normal
    direction: NDArray[np.float64] = steps[-1] / np.linalg.norm(steps[-1])
    if np.linalg.norm(direction - (direction @ normal) * normal) > images.SHEAR_TOLERANCE:
        raise images.sheared(source)
    sideways = steps - np.outer(steps @ normal / (direction @ normal), direction)
    shift = float(np.linalg.norm(sideways, axis=1).max())
    if shift > LARGEST_SHIFT_PX * pixel_mm:
        raise InputError(f"The images in {source} are shifted sideways against each other by {shift:.2g} mm, so they form no regular grid.")
    return direction


def _warn_of_gaps(positions_mm: NDArray[np.float64], source: Path) -> None:
    gaps = np.diff(positions_mm)
    found = geometry.lattice(positions_mm)
    missing = 0 if found is None else int(found[1][-1]) + 1 - len(positions_mm)
    if missing:
        text = "Slices seem to be missing in %s: %d (gaps of %.3g to %.3g mm); what lies there is interpolated."
        logger.warning(text, source, missing, gaps.min(), gaps.max())
        return
    text = "The slices of %s are spaced irregularly (%.3g to %.3g mm); their true positions are used."
    logger.warning(text, source, gaps.min(), gaps.max())


def _series_files(path: Path) -> List[str]:
    folder = path if path.is_dir() else path.parent
    series = {
        uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    }
    if path.is_file():
        for names in series.values():
            if str(path) in names or path.resolve() in (Path(name).resolve() for name in names):
                return list(names)
        return [str(path)]
    if not series:
        raise InputError(f"The folder {folder} holds no DICOM images; give the folder that directly contains those of one series.")
    _warn_of_others(folder, series.values())
    if len(series) > 1:
        listed = "; ".join(f"{_describe(names[0])} with {len(names)} images, e.g. {Path(names[0]).name}" for names in series.values())
        raise InputError(
            f"The folder {folder} holds {len(series)} DICOM series ({listed}); name one file of the series you want instead of the folder."
        )
    return list(next(iter(series.values())))


def _warn_of_others(folder: Path, series: Iterable[Sequence[str]]) -> None:
    """Say which DICOM files take no part, since one of them may be a damaged slice."""
    known = {Path(name).name for names in series for name in names}
    others = sorted(each.name for each in folder.iterdir() if each.name not in known and is_dicom(each))
    if others:
        logger.warning(
            "%d DICOM files in %s are damaged or hold no image and were left out: %s", len(others), folder, ", ".join(others[:10])
        )


def _describe(name: str) -> str:
    reader = _reader(name)
    reader.ReadImageInformation()
    text = _tag(reader, SERIES_DESCRIPTION) or _tag(reader, SERIES_UID)
    return f"'{text}'"


def _reader(name: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(name)
    return reader


def _tag(reader: sitk.ImageFileReader, tag: str) -> str:
    return reader.GetMetaData(tag).strip("\0 ") if reader.HasMetaDataKey(tag) else ""


def _read_slices(name: str) -> List[Slice]:
    """The images of a file: one, the frames of an enhanced multi-frame file, or a whole volume where frames state no places."""
    reader = _reader(name)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"The DICOM file {name} cannot be read: it is damaged, or holds no image of a supported kind.") from error
    image = images.scalar_image(image, Path(name))
    facts = {key: _tag(reader, tag) for key, tag in META_TAGS.items()}
    meta = {key: value for key, value in facts.items() if value}
    voxels = sitk.GetArrayFromImage(image)
    frames = dicom_frames.read_frames(Path(name)) if len(voxels) > 1 else None
    if frames is None:
        return [Slice(voxels, images.ijk_to_ras(image, Path(name)), meta, _tag(reader, IMAGE_UID))]
    if len(frames) != len(voxels):
        raise InputError(f"The DICOM file {name} is damaged: it holds {len(voxels)} frames and describes {len(frames)}.")
    thickness = {} if frames[0].thickness_mm is None else {"slice_thickness_mm": f"{frames[0].thickness_mm:g}"}
    values = dicom_frames.rescaled(voxels, frames)
    return [Slice(part[None], frame.plane_to_ras, {**meta, **thickness}) for part, frame in zip(values, frames)]
