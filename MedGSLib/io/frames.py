"""The frame-folder workflow: DATASET/original/0000.png, ... with DATASET/masks/ as a stack of slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from MedGSLib.errors import InputError
from MedGSLib.io.frame_files import MASK_LABEL, Spacing, frame_files, mask_files, read_frame_volume, read_mask_volume
from MedGSLib.io.stack import build_stack
from MedGSLib.volume import SliceStack


def read_frames(folder: Path, spacing_mm: Spacing = (1.0, 1.0, 1.0), with_masks: bool = True) -> SliceStack:
    """Read a dataset folder, uncropped; a frame without a mask file counts as not annotated.

    :param folder: holds the frames, or ``original/`` with the frames and ``masks/`` (or ``mask/``) with masks of the same names.
    :param spacing_mm: pixel width, pixel height, distance of the frames.
    :param with_masks: False leaves masks aside; a folder without any gives an image-only stack in any case.
    :raises InputError: if it holds fewer than two frames, or frames or masks that cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The folder of frames {folder} does not exist.")
    image = read_frame_volume(folder, spacing_mm)
    frames = frame_files(folder)
    files = mask_files(folder, frames) if with_masks else {}
    if not files:
        return build_stack(image, axis="k", margin_mm=None)
    masks = read_mask_volume(list(files.values()), spacing_mm)
    if masks.voxels.shape[1:] != image.voxels.shape[1:]:
        raise InputError(f"The masks in {folder} differ in size from the frames.")
    voxels = np.zeros(image.voxels.shape, dtype=np.uint8)
    voxels[list(files)] = masks.voxels
    annotated = "list:" + ",".join(str(index) for index in files)
    return build_stack(image, replace(masks, voxels=voxels), [MASK_LABEL], axis="k", margin_mm=None, annotated=annotated)
