"""Folders of picture frames (0000.png, 0001.png, ...) as volumes."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.io import dicom
from MedGSLib.volume import Label, Volume

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
FRAME_FOLDER = "original"
MASK_FOLDERS = ("masks", "mask")
MASK_ENDING = "_mask"
MASK_LABEL = Label(1, "mask")
MOST_SEGMENTS = 10
"""Masks with more values than this and 0 have smooth edges, others may be label maps."""
GREY_MODES = ("L", "F", "I", "I;16", "I;16B", "I;16L")

Spacing = Tuple[float, float, float]


def frame_folder(folder: Path) -> Path:
    """The folder that holds the frames: ``original`` inside the given one where there is such, else the given one itself."""
    inner = folder / FRAME_FOLDER
    return inner if inner.is_dir() else folder


def frame_files(folder: Path) -> List[Path]:
    """The frames in a folder, by the numbers in their names (frame 2 before frame 10); mask files and hidden files are left out."""
    return [path for path in _pictures(frame_folder(folder)) if not path.stem.endswith(MASK_ENDING)]


def is_frame_folder(path: Path) -> bool:
    """Whether ``path`` is a folder with frames, and not one of DICOM files with pictures among them."""
    return path.is_dir() and bool(frame_files(path)) and not any(dicom.is_dicom(each) for each in path.iterdir())


def is_mask_folder(path: Path) -> bool:
    """Whether ``path`` is a folder of pictures that may be masks; see :func:`is_frame_folder`."""
    return path.is_dir() and bool(_pictures(frame_folder(path))) and not any(dicom.is_dicom(each) for each in path.iterdir())


def mask_files(folder: Path, frames: Sequence[Path]) -> Dict[int, Path]:
    """The mask files of a dataset by frame number: those in ``masks/`` or ``mask/``, or ``NAME_mask`` beside the frames.

    :raises InputError: if a file in ``masks/`` or ``mask/`` belongs to no frame.
    """
    beside = [path for path in _pictures(frame_folder(folder)) if path.stem.endswith(MASK_ENDING)]
    return masks_by_frame(beside, frames) | masks_by_frame(mask_folder_files(folder), frames)


def mask_folder_files(folder: Path) -> List[Path]:
    """The pictures in ``masks/`` and ``mask/`` of a dataset, by the numbers in their names."""
    return [path for name in MASK_FOLDERS if (folder / name).is_dir() for path in _pictures(folder / name)]


def masks_by_frame(masks: Sequence[Path], frames: Sequence[Path]) -> Dict[int, Path]:
    """Frame number to mask file: by the name of the frame, with or without ``_mask``, or else by the numbers in the names.

    :raises InputError: naming a mask that belongs to no frame, or to one that has a mask already.
    """
    by_name = {frame.stem: index for index, frame in enumerate(frames)}
    by_numbers: Dict[Tuple[int, ...], List[int]] = {}
    for number, frame in enumerate(frames):
        by_numbers.setdefault(tuple(_numbers(frame.stem)), []).append(number)
    found: Dict[int, Path] = {}
    for path in masks:
        stem = path.stem[: -len(MASK_ENDING)] if path.stem.endswith(MASK_ENDING) else path.stem
        candidates = by_numbers.get(tuple(_numbers(stem)), [])
        index = by_name.get(stem, candidates[0] if len(candidates) == 1 else None)
        if index is None or index in found:
            reason = "belongs to no frame" if index is None else f"belongs to the same frame as {found[index].name}"
            raise InputError(f"The mask {path} {reason}; give each mask the name of its frame.")
        found[index] = path
    return found


def masks_on(folder: Path, image: Path, volume: Volume) -> Tuple[Volume, List[int]]:
    """The masks in a folder of pictures on the slices that they were drawn on, which alone give them a place.

    :param image: where ``volume`` was read from; the masks of a folder of frames are known by name, others by their order.
    :return: label map on the grid of ``volume``, and the numbers of the slices that have a mask.
    :raises InputError: if masks and slices do not correspond.
    """
    files = _pictures(frame_folder(folder))
    count, rows, columns = volume.voxels.shape
    if is_frame_folder(image):
        found = masks_by_frame(files, frame_files(image))
    elif len(files) == count:
        found = dict(enumerate(files))
    else:
        raise InputError(f"The folder {folder} holds {len(files)} masks, and the image {count} slices along k; give one for each slice.")
    order = sorted(found)
    masks = read_mask_volume([found[index] for index in order]).voxels
    if masks.shape[1:] != (rows, columns):
        size = f"{masks.shape[2]} x {masks.shape[1]} pixels, and the slices of the image {columns} x {rows}"
        raise InputError(f"The masks in {folder} have {size}.")
    voxels = np.zeros(volume.voxels.shape, dtype=np.uint8)
    voxels[order] = masks
    return Volume(voxels, volume.ijk_to_ras), order


def read_frame_volume(folder: Path, spacing_mm: Spacing = (1.0, 1.0, 1.0)) -> Volume:
    """The grey values of a folder of frames, one slice a frame; colour is turned into luminance.

    :param spacing_mm: pixel width, pixel height, distance of the frames. Columns run to the left, rows to the back and frames
        upwards, as when such files are opened in 3D Slicer.
    :raises InputError: if there are no frames, or if they differ in size or are damaged.
    """
    files = frame_files(folder)
    if not files:
        raise InputError(f"The folder {folder} holds no frames ({', '.join(SUFFIXES)}).")
    return Volume(_stacked(files, index_colors=False), frame_matrix(spacing_mm))


def read_mask_volume(files: Sequence[Path], spacing_mm: Spacing = (1.0, 1.0, 1.0)) -> Volume:
    """Mask frames as a label map of the values 0 and 1 (above half of the brightest value), so that 0/1, 0/255 and smooth edges all do."""
    grey = _stacked(files, index_colors=True)
    values = np.unique(grey)
    if 1 < np.count_nonzero(values) <= MOST_SEGMENTS:
        text = "The masks in %s hold the values %s; those above half of the largest are taken as the segment, the others as background."
        logger.warning(text, files[0].parent, ", ".join(f"{value:g}" for value in values if value))
    return Volume((grey > 0.5 * grey.max()).astype(np.uint8), frame_matrix(spacing_mm))


def read_mask_folder(folder: Path) -> Volume:
    """The pictures in a folder as a label map, see :func:`read_mask_volume`."""
    return read_mask_volume(_pictures(frame_folder(folder)))


def frame_matrix(spacing_mm: Spacing) -> NDArray[np.float64]:
    """4x4 from (column, row, frame) to RAS mm.

    :raises InputError: if a spacing is not positive.
    """
    if min(spacing_mm) <= 0:
        raise InputError(f"The spacing of frames must be positive, and is {' x '.join(f'{mm:g}' for mm in spacing_mm)} mm.")
    return geometry.flip_ras_lps(np.diag([*spacing_mm, 1.0]))


def _pictures(folder: Path) -> List[Path]:
    """The picture files in a folder by the numbers in their names; not those with a dot in front, as macOS puts beside each copied file."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    return sorted(files, key=lambda path: (_numbers(path.stem), path.name))


def _numbers(stem: str) -> List[int]:
    return [int(number) for number in re.findall(r"\d+", stem)]


def _stacked(files: Sequence[Path], index_colors: bool) -> NDArray:
    frames = [_grey(path, index_colors) for path in files]
    for path, frame in zip(files, frames):
        if frame.shape != frames[0].shape:
            raise InputError(
                f"The frame {path} has {frame.shape[1]} x {frame.shape[0]} pixels, and {files[0].name} has "
                f"{frames[0].shape[1]} x {frames[0].shape[0]}; all must be equal."
            )
    return np.stack(frames)


def _grey(path: Path, index_colors: bool) -> NDArray:
    try:
        with Image.open(path) as picture:
            as_is = picture.mode in GREY_MODES or (index_colors and picture.mode == "P")
            return np.asarray(picture if as_is else picture.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"The frame {path} cannot be read: it is damaged or of an unknown kind.") from error
