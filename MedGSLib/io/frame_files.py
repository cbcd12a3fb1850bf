"""Folders of picture frames (0000.png, 0001.png, ...) as volumes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.io import dicom
from MedGSLib.volume import Volume

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
FRAME_FOLDER = "original"
MASK_FOLDERS = ("masks", "mask")
MASK_ENDING = "_mask"
GREY_MODES = ("L", "F", "I", "I;16", "I;16B", "I;16L")

Spacing = Tuple[float, float, float]


def frame_folder(folder: Path) -> Path:
    """The folder that holds the frames: ``original`` inside the given one where there is such, else the given one itself."""
    inner = folder / FRAME_FOLDER
    return inner if inner.is_dir() else folder


def frame_files(folder: Path) -> List[Path]:
    """The frames in a folder, by the numbers in their names (frame 2 before frame 10); mask files are left out."""
    files = [path for path in frame_folder(folder).iterdir() if path.suffix.lower() in SUFFIXES and not path.stem.endswith(MASK_ENDING)]
    return sorted(files, key=lambda path: (_numbers(path.stem), path.name))


def is_frame_folder(path: Path) -> bool:
    """Whether ``path`` is a folder with frames, and not one of DICOM files with pictures among them."""
    return path.is_dir() and bool(frame_files(path)) and not any(dicom.is_dicom(each) for each in path.iterdir())


def mask_files(folder: Path, frames: Sequence[Path]) -> Dict[int, Path]:
    """The mask files of a dataset by frame number: ``masks/NAME`` or ``mask/NAME``, or ``NAME_mask`` beside the frame."""
    named = {path.stem: path for name in MASK_FOLDERS if (folder / name).is_dir() for path in frame_files(folder / name)}
    beside = {path.stem: path for path in frame_folder(folder).iterdir() if path.stem.endswith(MASK_ENDING)}
    found = {index: named.get(frame.stem) or beside.get(frame.stem + MASK_ENDING) for index, frame in enumerate(frames)}
    return {index: path for index, path in found.items() if path is not None}


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
    return Volume((grey > 0.5 * grey.max()).astype(np.uint8), frame_matrix(spacing_mm))


def frame_matrix(spacing_mm: Spacing) -> NDArray[np.float64]:
    """4x4 from (column, row, frame) to RAS mm.

    :raises InputError: if a spacing is not positive.
    """
    if min(spacing_mm) <= 0:
        raise InputError(f"The spacing of frames must be positive, and is {' x '.join(f'{mm:g}' for mm in spacing_mm)} mm.")
    return geometry.flip_ras_lps(np.diag([*spacing_mm, 1.0]))


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
