"""Rigid alignment of a follow-up with the baseline, and the evidence that it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix, flip_ras_lps, transform_points
from MedGSLib.io.ascii_path import ascii_path
from MedGSLib.io.atomic import atomic_write

Method = Literal["image", "surface", "given", "none"]

FLIP = flip_ras_lps(np.eye(4))
"""RAS to LPS and back."""
LARGEST_ROTATION_DEG = 45.0
"""No patient lies turned by more than this between two dates."""


@dataclass(frozen=True)
class Registration:
    """How a follow-up was brought onto the baseline.

    :ivar matrix: 4x4 rigid, follow-up RAS mm to baseline RAS mm.
    :ivar method: what it was computed from.
    :ivar captured: False when the evidence says that the alignment failed; growth must then not be shown.
    :ivar residual_mm: expected error of the alignment at the segment (root mean square), 0 where it is unknown.
    :ivar message: one sentence about the outcome.
    :ivar quality: the figures behind ``captured``.
    """

    matrix: Matrix
    method: Method
    captured: bool = True
    residual_mm: float = 0.0
    message: str = ""
    quality: dict[str, float] = field(default_factory=dict)

    @property
    def shift_mm(self) -> float:
        """Length of the translation part."""
        return float(np.linalg.norm(self.matrix[:3, 3]))

    @property
    def rotation_deg(self) -> float:
        """Angle of the rotation part."""
        return rotation_deg(self.matrix)

    def as_dict(self) -> dict[str, Any]:
        """:return: the registration, ready for JSON."""
        return {
            "method": self.method,
            "captured": self.captured,
            "residual_mm": self.residual_mm,
            "rotation_deg": self.rotation_deg,
            "shift_mm": self.shift_mm,
            "followup_to_baseline_ras": self.matrix.tolist(),
            "message": self.message,
            "quality": self.quality,
        }


def rotation_deg(matrix: Matrix) -> float:
    """Angle in degrees of the rotation in a 4x4 rigid transform."""
    return float(np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1.0) / 2.0, -1.0, 1.0))))


def no_registration() -> Registration:
    """The identity, for time points that share their frame already."""
    return Registration(np.eye(4), "none", message="The time points were taken as they lie, without registration.")


def given_registration(matrix: Matrix) -> Registration:
    """A transform that the caller vouches for.

    :raises InputError: if it is not rigid.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if (
        matrix.shape != (4, 4)
        or not np.allclose(matrix[:3, :3].T @ matrix[:3, :3], np.eye(3), atol=1e-3)
        or np.linalg.det(matrix[:3, :3]) < 0
    ):
        raise InputError("The given transform is not rigid, so distances measured through it would not be those of the patient.")
    return Registration(matrix, "given", message="The given transform was used.")


def read_transform(path: Path) -> Matrix:
    """The 4x4 RAS matrix, follow-up to baseline, of a transform file (.tfm, .txt, .h5, .mat) as Slicer and ITK save it.

    ITK files map points of the fixed (baseline) image to the moving one, in LPS; this undoes both.

    :raises InputError: if the file is missing or not a linear transform.
    """
    if not path.is_file():
        raise InputError(f"The transform file {path} does not exist.")
    try:
        transform = sitk.ReadTransform(ascii_path(path))
        if not transform.IsLinear():
            raise InputError(f"The transform in {path} is not linear; only rigid transforms can be used.")
        return fixed_to_moving_lps(lps_matrix(transform))
    except RuntimeError as error:
        raise InputError(f"The file {path} cannot be read as a transform.") from error


def write_transform(path: Path, matrix: Matrix) -> None:
    """Write a follow-up-to-baseline RAS matrix as an ITK transform file that Slicer loads as the same transform."""
    with atomic_write(path) as temporary:
        sitk.WriteTransform(itk_transform(fixed_to_moving_lps(matrix)), ascii_path(temporary))


def inverse(matrix: Matrix) -> Matrix:
    """The inverse of a 4x4."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def fixed_to_moving_lps(matrix: Matrix) -> Matrix:
    """Between a follow-up-to-baseline matrix in RAS and the baseline-to-follow-up matrix in LPS that ITK uses; its own inverse."""
    return FLIP @ inverse(matrix) @ FLIP


def disagreement_mm(first: Matrix, second: Matrix, points: NDArray[np.float64]) -> float:
    """Root mean square distance between the images of points (N, 3) under two transforms."""
    difference = transform_points(first, points) - transform_points(second, points)
    return float(np.sqrt((difference**2).sum(axis=1).mean()))


def lps_matrix(transform: sitk.Transform) -> Matrix:
    """4x4 of a linear SimpleITK transform, in its own LPS frame."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([np.array(transform.TransformPoint(tuple(unit))) - origin for unit in np.eye(3)])
    matrix[:3, 3] = origin
    return matrix


def itk_transform(matrix_lps: Matrix) -> sitk.AffineTransform:
    """The SimpleITK transform of a 4x4 LPS matrix; the counterpart of :func:`lps_matrix`."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix_lps[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix_lps[:3, 3].tolist())
    return transform
