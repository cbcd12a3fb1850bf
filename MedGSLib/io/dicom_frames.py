"""Enhanced multi-frame DICOM: every frame states its own place and scaling, which GDCM passes on for evenly spaced frames only."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from MedGSLib import geometry
from MedGSLib.errors import InputError

Scaling = Tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """One frame of a file: 4x4 from (column, row, mm along the normal) to RAS mm, (slope, intercept) of its values, its thickness."""

    plane_to_ras: NDArray[np.float64]
    scaling: Scaling
    thickness_mm: Optional[float]


def read_frames(path: Path) -> Optional[List[Frame]]:
    """The frames of a multi-frame file in the order of its pixels (DICOM PS3.3 C.7.6.16).

    :return: None for files whose frames state no places of their own.
    :raises InputError: if some of the frames lack their place.
    """
    import pydicom  # here, since Slicer's panel imports this package and never reads DICOM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that break a rule of DICOM in parts of the header that are not used
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        each = header.get("PerFrameFunctionalGroupsSequence")
        if not each:
            return None
        shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
        try:
            return [_frame([group, shared, header]) for group in each]
        except (AttributeError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"The frames of {path} do not all state their position, direction and pixel size.") from error


def rescaled(voxels: NDArray, frames: List[Frame]) -> NDArray:
    """The values (frames, rows, columns) that GDCM made with the scaling of the first frame, with that of each frame instead."""
    slope, intercept = frames[0].scaling
    if all(frame.scaling == (slope, intercept) for frame in frames) or slope == 0.0:
        return voxels
    stored = np.rint((voxels.astype(np.float64) - intercept) / slope)
    slopes, intercepts = (np.array([frame.scaling[part] for frame in frames])[:, None, None] for part in (0, 1))
    return stored * slopes + intercepts


def _frame(places: List[Any]) -> Frame:
    pixels = _group(places, "PixelMeasuresSequence")
    direction = np.array(_group(places, "PlaneOrientationSequence").ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    row_mm, column_mm = (float(mm) for mm in pixels.PixelSpacing)
    lps = np.eye(4)
    lps[:3, :2] = direction.T * (column_mm, row_mm)
    lps[:3, 2] = np.cross(*direction)
    lps[:3, 3] = np.array(_group(places, "PlanePositionSequence").ImagePositionPatient, dtype=np.float64)
    values = _group(places, "PixelValueTransformationSequence")
    scaling = (float(values.get("RescaleSlope", 1.0)), float(values.get("RescaleIntercept", 0.0)))
    thickness = pixels.get("SliceThickness")
    return Frame(geometry.flip_ras_lps(lps), scaling, None if thickness in (None, "") else float(thickness))


def _group(places: List[Any], name: str) -> Any:
    """The functional group of that name, of the frame itself or of all; the last place holds single attributes."""
    for place in places[:-1]:
        if place is not None and place.get(name):
            return place[name][0]
    return places[-1]
