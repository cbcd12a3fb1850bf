"""The stack of parallel slices that everything downstream works on."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from MedGSLib import geometry
from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix


@dataclass(frozen=True)
class Volume:
    """Voxels as a file holds them.

    ``voxels`` is ``[k, j, i]``; ``ijk_to_ras`` 4x4 float64 in mm. ``positions_mm`` (K,) gives irregular slice positions along the
    k axis, counted from the first slice (then column 2 of ``ijk_to_ras`` holds the median gap). ``meta`` holds header facts under
    the names ``slice_thickness_mm``, ``spacing_between_slices_mm``, ``study_date``, ``modality``, ``patient_id``,
    ``voxel_type`` (numpy name of the type in the file).
    """

    voxels: NDArray
    ijk_to_ras: Matrix
    positions_mm: Optional[NDArray[np.float64]] = None
    meta: Dict[str, str] = field(default_factory=dict)

    @property
    def shape_ijk(self) -> Tuple[int, int, int]:
        """Size along i, j, k."""
        k, j, i = self.voxels.shape
        return i, j, k

    def with_positions(self, positions: NDArray[np.float64]) -> Volume:
        """The same voxels with slices at ``positions`` (K,) mm along k, all increasing or all decreasing.

        The first slice stays where it is. Regular positions become the k spacing, others are kept as ``positions_mm``.

        :raises InputError: if their number or order does not fit the volume.
        """
        count = self.voxels.shape[0]
        if len(positions) != count:
            raise InputError(f"The volume has {count} slices along k, and {len(positions)} slice positions were given.")
        if count < 2:
            return self
        gaps = np.diff(positions)
        if not np.all(np.isfinite(positions)) or not (np.all(gaps > 0) or np.all(gaps < 0)):
            raise InputError("The slice positions must all increase or all decrease, without repeats.")
        distances = np.abs(positions - positions[0])
        even = geometry.regular_gap(distances)
        gap = even if even is not None else float(np.median(np.abs(gaps)))
        matrix = geometry.with_slice_gap(self.ijk_to_ras, gap)
        return replace(self, ijk_to_ras=matrix, positions_mm=distances if even is None else None)


@dataclass(frozen=True)
class Label:
    """One segment: the voxel value in the label map, and how it is called and coloured (RGB 0..1)."""

    value: int
    name: str
    color: Tuple[float, float, float] = (0.85, 0.4, 0.35)

    @property
    def file_name(self) -> str:
        """The name as part of a file name on any system."""
        return re.sub(r"[^\w.-]+", "_", self.name).strip("_.") or "segment"


def distinct_labels(labels: Sequence[Label]) -> Tuple[Label, ...]:
    """The labels with names that differ also as file names."""
    found: List[Label] = []
    for label in labels:
        taken = label.file_name.lower() in {other.file_name.lower() for other in found}
        found.append(replace(label, name=f"{label.name} ({label.value})") if taken else label)
    return tuple(found)


@dataclass(frozen=True)
class SliceStack:
    """S parallel slices of H x W pixels, in the order they were acquired along one axis of the source volume.

    :ivar image: float32 (S, H, W) in input units, or None when there is only a mask.
    :ivar occupancy: float32 (L, S, H, W) in 0..1, one channel a label, or None when there is only an image.
    :ivar labels: the L segments.
    :ivar annotated: bool (S,), the slices whose mask is to be believed (an annotated slice may be empty).
    :ivar positions_mm: float64 (S,), increasing from 0, along the stack direction.
    :ivar plane_to_ras: 4x4 float64, (column px, row px, mm along the stack, 1) to RAS mm; the third column is a unit vector.
    :ivar axis: 0, 1, 2 = i, j, k of the source volume.
    :ivar start_ijk: first voxel of the crop in the source volume.
    :ivar slice_thickness_mm: the thickness over which a slice averages, or None where unknown.
    :ivar meta: header facts as in :class:`Volume`.
    """

    image: Optional[NDArray[np.float32]]
    occupancy: Optional[NDArray[np.float32]]
    labels: Tuple[Label, ...]
    annotated: NDArray[np.bool_]
    positions_mm: NDArray[np.float64]
    plane_to_ras: Matrix
    axis: int = 2
    start_ijk: Tuple[int, int, int] = (0, 0, 0)
    slice_thickness_mm: Optional[float] = None
    meta: Dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> Tuple[int, int, int]:
        """(S, H, W)."""
        array = self.image if self.image is not None else self.occupancy
        assert array is not None
        return array.shape[-3], array.shape[-2], array.shape[-1]

    @property
    def gap_mm(self) -> float:
        """The median distance between neighbouring slices."""
        return float(np.median(np.diff(self.positions_mm)))

    @property
    def annotated_gap_mm(self) -> float:
        """The median distance between neighbouring annotated slices; of all slices where fewer than two are annotated."""
        if np.count_nonzero(self.annotated) < 2:
            return self.gap_mm
        return float(np.median(np.diff(self.positions_mm[self.annotated])))

    @property
    def pixel_mm(self) -> Tuple[float, float]:
        """Pixel size (row step, column step) in mm."""
        mm = geometry.spacing(self.plane_to_ras)
        return float(mm[1]), float(mm[0])

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """Slice coordinates t (S,) in units of the median gap; 0, 1, 2, ... where the stack is regular."""
        return self.positions_mm / self.gap_mm

    def index_to_ras(self, spacing_mm: float) -> Matrix:
        """4x4 from (column, row, output slice) of a dense array with slices every ``spacing_mm`` to RAS mm."""
        matrix = self.plane_to_ras.copy()
        matrix[:3, 2] *= spacing_mm
        return matrix

    def select(self, slices: NDArray[np.int64]) -> SliceStack:
        """The stack of the given slices only (increasing indices), e.g. with some left out for a self-check."""
        first = float(self.positions_mm[slices[0]])
        plane_to_ras = geometry.shifted_origin(self.plane_to_ras, (0.0, 0.0, first))
        return replace(
            self,
            image=None if self.image is None else self.image[slices],
            occupancy=None if self.occupancy is None else self.occupancy[:, slices],
            annotated=self.annotated[slices],
            positions_mm=self.positions_mm[slices] - first,
            plane_to_ras=plane_to_ras,
        )


def header_thickness_mm(meta: Dict[str, str], axis: int) -> Optional[float]:
    """The slice thickness in a volume's header, which is about k, for slices stacked along ``axis``; None where it says nothing usable."""
    if axis != 2:
        return None
    try:
        thickness = float(meta.get("slice_thickness_mm", "nan"))
    except ValueError:
        return None
    return thickness if math.isfinite(thickness) and thickness > 0 else None
