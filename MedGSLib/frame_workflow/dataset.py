"""What of a dataset folder a pipeline trains on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from MedGSLib.config import Mode
from MedGSLib.errors import InputError
from MedGSLib.io.frame_files import MASK_FOLDERS, mask_folder_files, read_mask_volume
from MedGSLib.io.frames import MASK_LABEL, read_frames
from MedGSLib.io.stack import build_stack
from MedGSLib.volume import SliceStack


def read_dataset(folder: Path, mode: Mode, spacing_mm: tuple[float, float, float]) -> SliceStack:
    """The frames, the masks or both of ``folder``, uncropped.

    :param spacing_mm: pixel width, pixel height, distance of the frames.
    :raises InputError: if what the mode needs is missing or cannot be used.
    """
    if mode == "mask":
        return _masks_alone(folder, spacing_mm)
    stack = read_frames(folder, spacing_mm, with_masks=mode == "joint")
    if mode == "joint" and stack.occupancy is None:
        raise InputError(f"The dataset '{folder}' has no masks in '{folder / MASK_FOLDERS[1]}'; add them, or choose --pipeline img.")
    return stack


def _masks_alone(folder: Path, spacing_mm: tuple[float, float, float]) -> SliceStack:
    """The masks as a stack; frames without a mask keep their place and count as not annotated."""
    if (folder / "original").is_dir():
        stack = read_frames(folder, spacing_mm)
        if stack.occupancy is not None:
            return replace(stack, image=None)
    files = mask_folder_files(folder)
    if len(files) < 2:
        raise InputError(f"The dataset '{folder}' has {len(files)} masks, and at least 2 are needed for --pipeline seg.")
    return build_stack(None, read_mask_volume(files, spacing_mm), [MASK_LABEL], axis="k", margin_mm=None, annotated="all")
