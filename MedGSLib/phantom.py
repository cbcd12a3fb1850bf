"""A synthetic CT of an abdominal aortic aneurysm whose true surface, diameter and volume are known.

It is the input of ``medgs demo`` and the yardstick of the longitudinal tests: the same anatomy can be scanned at two dates with
growth of known size and place, other slice thickness and phase, another patient position and other noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.geometry import Matrix, transform_points
from MedGSLib.phantom_shape import AneurysmShape, AneurysmSurface
from MedGSLib.phantom_tissue import tissue_hu
from MedGSLib.volume import Label, Volume

ANEURYSM = Label(1, "aneurysm", (0.80, 0.25, 0.22))
LUMEN = Label(1, "lumen", (0.85, 0.15, 0.15))
THROMBUS = Label(2, "thrombus", (0.85, 0.70, 0.45))


@dataclass(frozen=True)
class Acquisition:
    """How the phantom is scanned.

    :ivar size: pixels along i and j, and slices.
    :ivar thickness_mm: the thickness that a slice averages over; None means the slice gap.
    :ivar phase: shift of all slices along the stack, as a fraction of the gap.
    :ivar center_mm: the middle of the field of view in RAS.
    :ivar tilt_deg: rotation of the scan about R, A and S (xyz Euler angles); 0 is a plain axial scan.
    :ivar noise_hu: standard deviation of the noise in the image.
    :ivar split: label lumen and thrombus apart (1 and 2) instead of the whole aneurysm (1).
    """

    size: tuple[int, int, int] = (88, 88, 24)
    pixel_mm: float = 1.2
    gap_mm: float = 5.0
    thickness_mm: float | None = None
    phase: float = 0.0
    center_mm: tuple[float, float, float] = (0.0, -12.0, 0.0)
    tilt_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    noise_hu: float = 15.0
    seed: int = 0
    split: bool = False
    study_date: str = "20250101"

    def ijk_to_ras(self) -> Matrix:
        """The grid of the scan: i to the left, j to posterior, k to superior, then tilted."""
        direction = Rotation.from_euler("xyz", self.tilt_deg, degrees=True).as_matrix() @ np.diag([-1.0, -1.0, 1.0])
        matrix = np.eye(4)
        matrix[:3, :3] = direction * (self.pixel_mm, self.pixel_mm, self.gap_mm)
        middle = (np.array(self.size) - 1.0) / 2.0 - (0.0, 0.0, self.phase)
        matrix[:3, 3] = np.array(self.center_mm) - matrix[:3, :3] @ middle
        return matrix


@dataclass(frozen=True)
class AneurysmTruth:
    """What is true of the scanned aneurysm; ``pose`` maps the anatomy's own frame to RAS mm."""

    shape: AneurysmShape
    pose: Matrix = field(default_factory=lambda: np.eye(4))

    @cached_property
    def surface(self) -> AneurysmSurface:
        """The implicit surface in the anatomy's own frame."""
        return AneurysmSurface(self.shape)

    def signed_distance(self, points_ras: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance of RAS points (N, 3) to the outer wall in mm, positive inside."""
        return self.surface.signed_distance(transform_points(np.asarray(np.linalg.inv(self.pose), np.float64), points_ras))

    @property
    def max_diameter_mm(self) -> float:
        """Largest outer-to-outer diameter perpendicular to the centreline."""
        return self.surface.max_diameter_mm()

    @property
    def volume_mm3(self) -> float:
        """Volume within the outer wall."""
        return self.surface.volume_mm3()

    @property
    def length_mm(self) -> float:
        """Length of the centreline from end to end."""
        return self.surface.length_mm()

    def centerline_ras(self, count: int = 101) -> NDArray[np.float64]:
        """Points (count, 3) on the centreline, from inferior to superior."""
        limit = self.shape.half_length_mm
        return transform_points(self.pose, self.surface.centerline(np.linspace(-limit, limit, count)))

    def growth_place_ras(self) -> NDArray[np.float64]:
        """The wall point (3,) at the top of the growth."""
        angle = float(np.deg2rad(self.shape.growth_angle_deg))
        return transform_points(self.pose, self.surface.wall_point(self.shape.growth_z_mm, angle))

    def mesh(self, step_mm: float = 1.0) -> vtkPolyData:
        """The true outer wall as triangles in RAS mm; every point lies exactly on it."""
        return self.surface.mesh(self.pose, step_mm)


@dataclass(frozen=True)
class AneurysmPhantom:
    """A scan of the phantom: CT image, label map on the same grid, what the labels mean, and the truth."""

    image: Volume
    labels: Volume
    segments: tuple[Label, ...]
    truth: AneurysmTruth


def make_aneurysm(
    shape: AneurysmShape | None = None, acquisition: Acquisition | None = None, pose: Matrix | None = None
) -> AneurysmPhantom:
    """Scan the synthetic aneurysm.

    Partial volume is made by averaging sub-samples over each thick voxel; a voxel belongs to the segment when at least half of it
    does. The same arguments always give the same scan.

    :param pose: 4x4 rigid, the anatomy's own frame to RAS mm (how the patient lies); identity by default.
    """
    shape = shape or AneurysmShape()
    acquisition = acquisition or Acquisition()
    truth = AneurysmTruth(shape, np.eye(4) if pose is None else np.asarray(pose, dtype=np.float64))
    matrix = acquisition.ijk_to_ras()
    to_anatomy = np.linalg.inv(truth.pose) @ matrix
    columns, rows, slices = acquisition.size
    offsets = _subsamples(acquisition)
    j, i = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    hu = np.empty((slices, rows, columns))
    shares = np.empty((2, slices, rows, columns))
    for k in range(slices):
        index = np.stack([i, j, np.full_like(i, k)], axis=-1)[None].astype(np.float64) + offsets[:, None, None]
        values, wall, lumen = tissue_hu(transform_points(to_anatomy, index.reshape(-1, 3)), truth.surface)
        hu[k] = values.reshape(-1, rows, columns).mean(axis=0)
        shares[:, k] = np.stack([wall, lumen]).reshape(2, -1, rows, columns).mean(axis=1)
    meta = {
        "modality": "CT",
        "patient_id": "MedGS phantom",
        "study_date": acquisition.study_date,
        "slice_thickness_mm": f"{acquisition.thickness_mm or acquisition.gap_mm:g}",
        "spacing_between_slices_mm": f"{acquisition.gap_mm:g}",
    }
    image = np.round(hu + _noise(hu.shape, acquisition)).astype(np.int16)
    voxels, segments = _label_map(shares, acquisition.split)
    return AneurysmPhantom(Volume(image, matrix, meta=meta), Volume(voxels, matrix, meta=meta), segments, truth)


def _subsamples(acquisition: Acquisition) -> NDArray[np.float64]:
    """Sub-sample positions (N, 3) in a voxel, in index units: 2 x 2 in plane, about every mm through the slice thickness, and the centre.

    N is odd, so that no voxel is exactly half inside: where the wall runs along the pixels, such ties would all fall to one side.
    """
    thickness = acquisition.thickness_mm or acquisition.gap_mm
    through = max(3, int(np.ceil(thickness)))
    k = ((np.arange(through) + 0.5) / through - 0.5) * thickness / acquisition.gap_mm
    in_plane = np.array([-0.25, 0.25])
    grid = np.stack(np.meshgrid(in_plane, in_plane, k, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.concatenate([grid, np.zeros((1, 3))])


def _noise(shape: tuple[int, ...], acquisition: Acquisition) -> NDArray[np.float64]:
    """Noise with the short in-plane correlation of a reconstructed CT."""
    white = np.random.default_rng(acquisition.seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(white, (0.0, 0.6, 0.6))
    return smooth * (acquisition.noise_hu / smooth.std())


def _label_map(shares: NDArray[np.float64], split: bool) -> tuple[NDArray[np.uint8], tuple[Label, ...]]:
    wall, lumen = shares >= 0.5
    if not split:
        return wall.astype(np.uint8), (ANEURYSM,)
    return np.where(lumen, LUMEN.value, THROMBUS.value * wall).astype(np.uint8), (LUMEN, THROMBUS)
