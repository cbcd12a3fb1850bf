"""Rigid registration of two volumes on stable anatomy by mutual information (Mattes et al. 2003, in SimpleITK)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial.transform import Rotation

from MedGSLib.geometry import Matrix, spacing, transform_points
from MedGSLib.io.images import to_image
from MedGSLib.longitudinal.registration import (
    FLIP,
    LARGEST_ROTATION_DEG,
    Registration,
    disagreement_mm,
    fixed_to_moving_lps,
    inverse,
    itk_transform,
    lps_matrix,
)
from MedGSLib.progress import Reporter
from MedGSLib.volume import Volume

logger = logging.getLogger(__name__)

LEVELS = (5.0, 2.5, 1.25)
"""Voxel size of each pyramid level in units of the finest spacing; an axis that is coarser in the data keeps its own."""
SAMPLES = (15_000, 30_000, 50_000)
ITERATIONS = (80, 80, 100)
BINS = 40
SEED = 7
MINIMUM_OVERLAP = 0.25
MINIMUM_SIMILARITY = 0.06
LARGEST_DISAGREEMENT_MM = 2.5
SIGNIFICANT = 1.96


@dataclass(frozen=True)
class Side:
    """One of the two images: float32, and where its anatomy is stable (uint8, same grid)."""

    image: sitk.Image
    stable: sitk.Image


def stable_anatomy(volume: Volume, segment: NDArray[np.bool_] | None, margin_mm: float = 6.0) -> NDArray[np.bool_]:
    """Where a volume may be used for registration: beyond ``margin_mm`` of the segment, and not in the padding that some exports add.

    :param segment: bool (K, J, I), on the grid of the volume; None where there is none.
    :return: bool (K, J, I).
    """
    voxels = volume.voxels
    stable = np.ones(voxels.shape, dtype=bool)
    lowest = voxels.min()
    if lowest < -1024 and np.mean(voxels == lowest) > 0.001:
        stable &= voxels != lowest
    if segment is not None and segment.any():
        mm_kji = spacing(volume.ijk_to_ras)[::-1]
        stable &= distance_transform_edt(~segment, sampling=mm_kji) > margin_mm
    return stable


def register_images(
    baseline: Volume,
    followup: Volume,
    *,
    baseline_stable: NDArray[np.bool_] | None = None,
    followup_stable: NDArray[np.bool_] | None = None,
    points_ras: NDArray[np.float64] | None = None,
    starts: Sequence[Matrix] = (),
    reporter: Reporter | None = None,
) -> Registration:
    """Bring ``followup`` onto ``baseline`` by what both show of the stable anatomy.

    The registration runs in both directions, each over a pyramid and from several starts; the result is the mean of the two. Its
    residual at ``points_ras`` combines their disagreement with a jackknife over four parts of the anatomy. An alignment that differs
    from the identity by less than the residual explains is not applied. Too small an overlap, images that do not explain each other,
    or directions that contradict each other mean that the alignment was not captured.

    :param baseline_stable: bool (K, J, I), voxels to use (see :func:`stable_anatomy`); None for all.
    :param points_ras: where accuracy matters (N, 3), baseline RAS mm; None for the corners of the baseline volume.
    :param starts: further first guesses, 4x4 follow-up to baseline in RAS, beside the identity and aligned volume centres.
    """
    reporter = reporter or Reporter()
    base_mm = float(max(spacing(baseline.ijk_to_ras).min(), spacing(followup.ijk_to_ras).min()))
    fixed, moving = (
        [_at_level(_side(volume, stable), level * base_mm) for level in LEVELS]
        for volume, stable in ((baseline, baseline_stable), (followup, followup_stable))
    )
    points = _corners(baseline) if points_ras is None else points_ras
    guesses = [np.eye(4), _center_shift(baseline, followup), *starts]
    reporter.start("registering", 3)
    forward = _register(fixed, moving, base_mm, [fixed_to_moving_lps(guess) for guess in guesses])
    reporter.step(1)
    backward = _register(moving, fixed, base_mm, [inverse(forward), *(inverse(fixed_to_moving_lps(guess)) for guess in guesses)])
    reporter.step(2)
    both = [fixed_to_moving_lps(forward), fixed_to_moving_lps(inverse(backward))]
    in_followup = transform_points(inverse(both[0]), points)
    matrix = mean_rigid(both[0], both[1], in_followup.mean(axis=0))
    similarity, overlap = _agreement(fixed[1], moving[1], fixed_to_moving_lps(matrix))
    quality = {
        "disagreement_mm": disagreement_mm(both[0], both[1], in_followup),
        "moved_mm": disagreement_mm(matrix, np.eye(4), in_followup),
        "similarity": similarity,
        "overlap": overlap,
    }
    result = _judged(Registration(matrix, "image", quality=quality), 0.5 * float(spacing(baseline.ijk_to_ras).max()))
    if result.captured:
        quality["jackknife_mm"] = _jackknife_mm(fixed[-1], moving[-1], forward, base_mm, transform_points(FLIP, points))
        residual = float(np.hypot(quality["disagreement_mm"] / 2.0, quality["jackknife_mm"]))
        result = _described(replace(result, residual_mm=residual))
    reporter.step(3)
    return result


def _jackknife_mm(fixed: Side, moving: Side, solution: Matrix, base_mm: float, points_lps: NDArray[np.float64]) -> float:
    """Standard error of a registration at points, from repeating its last level with each quarter of the anatomy left out (Tukey)."""
    stable = sitk.GetArrayFromImage(fixed.stable) > 0
    where = np.argwhere(stable)
    first, second = np.argsort(np.ptp(where, axis=0))[-2:]
    high = [np.indices(stable.shape, sparse=True)[axis] > np.median(where[:, axis]) for axis in (first, second)]
    moved = []
    for quarter in range(4):
        left_out = (high[0] == bool(quarter & 1)) & (high[1] == bool(quarter & 2))
        rest = sitk.GetImageFromArray((stable & ~left_out).astype(np.uint8))
        rest.CopyInformation(fixed.stable)
        matrix, _ = _optimized(Side(fixed.image, rest), moving, solution, len(LEVELS) - 1, base_mm)
        moved.append(transform_points(matrix, points_lps))
    spread = np.stack(moved) - np.mean(moved, axis=0)
    return float(np.sqrt(0.75 * (spread**2).sum(axis=(0, 2)).mean()))


def mean_rigid(first: Matrix, second: Matrix, center: NDArray[np.float64]) -> Matrix:
    """The rigid transform halfway between two, so that ``center`` (3,) goes to the mean of its two images."""
    rotations = Rotation.from_matrix(np.stack([first[:3, :3], second[:3, :3]]))
    mean = np.eye(4)
    mean[:3, :3] = rotations.mean().as_matrix()
    target = (transform_points(first, center) + transform_points(second, center)) / 2.0
    mean[:3, 3] = target - mean[:3, :3] @ center
    return mean


def _judged(result: Registration, disagreement_limit_mm: float) -> Registration:
    quality = result.quality
    reasons = []
    if quality["overlap"] < MINIMUM_OVERLAP:
        reasons.append(f"only {quality['overlap']:.0%} of the stable anatomy lies in both volumes")
    if quality["similarity"] < MINIMUM_SIMILARITY:
        reasons.append("the two images do not show the same anatomy")
    if quality["disagreement_mm"] > max(LARGEST_DISAGREEMENT_MM, disagreement_limit_mm):
        reasons.append(f"the two directions of the registration differ by {quality['disagreement_mm']:.1f} mm")
    if result.rotation_deg > LARGEST_ROTATION_DEG:
        reasons.append(f"it would turn the patient by {result.rotation_deg:.0f} degrees")
    if reasons:
        return replace(result, captured=False, message=f"The registration failed: {'; '.join(reasons)}.")
    return result


def _described(result: Registration) -> Registration:
    """A captured registration in words; one that moves less than its own error is replaced by the identity."""
    quality = result.quality
    if quality["moved_mm"] < SIGNIFICANT * result.residual_mm:
        message = f"The volumes lie on each other already, within the error of the registration ({result.residual_mm:.2f} mm)."
        return replace(result, matrix=np.eye(4), message=message)
    moved = f"{result.rotation_deg:.1f} degrees, {quality['moved_mm']:.1f} mm at the segment"
    message = f"The volumes were registered on stable anatomy: {moved}, error {result.residual_mm:.2f} mm."
    return replace(result, message=message)


def _side(volume: Volume, stable: NDArray[np.bool_] | None) -> Side:
    used = volume.voxels if stable is None or not stable.any() else volume.voxels[stable]
    low, high = np.percentile(used, (0.5, 99.5))
    clipped = np.clip(volume.voxels, low, high).astype(np.float32)
    mask = np.ones(volume.voxels.shape, np.uint8) if stable is None else stable.astype(np.uint8)
    return Side(to_image(clipped, volume.ijk_to_ras), to_image(mask, volume.ijk_to_ras))


def _corners(volume: Volume) -> NDArray[np.float64]:
    top = np.array(volume.shape_ijk, dtype=np.float64) - 1.0
    unit = np.stack(np.meshgrid([0.0, 1.0], [0.0, 1.0], [0.0, 1.0]), axis=-1).reshape(-1, 3)
    return transform_points(volume.ijk_to_ras, unit * top)


def _center_shift(baseline: Volume, followup: Volume) -> Matrix:
    shift = np.eye(4)
    shift[:3, 3] = _corners(baseline).mean(axis=0) - _corners(followup).mean(axis=0)
    return shift


def _at_level(side: Side, level_mm: float) -> Side:
    factors = [
        max(1, min(int(level_mm / mm), size // 8 or 1)) for mm, size in zip(side.image.GetSpacing(), side.image.GetSize(), strict=True)
    ]
    mask = sitk.BinShrink(sitk.Cast(side.stable, sitk.sitkFloat32), factors) > 0.5
    return Side(sitk.BinShrink(side.image, factors), mask)


def _register(fixed: Sequence[Side], moving: Sequence[Side], base_mm: float, starts_lps: Sequence[Matrix]) -> Matrix:
    """Fixed-to-moving 4x4 in LPS: the best start after the coarsest level, refined over the other levels."""
    tried = [_optimized(fixed[0], moving[0], start, 0, base_mm) for start in starts_lps]
    matrix = min(tried, key=lambda outcome: outcome[1])[0]
    for level in range(1, len(LEVELS)):
        matrix, _ = _optimized(fixed[level], moving[level], matrix, level, base_mm)
    return matrix


def _optimized(fixed: Side, moving: Side, start_lps: Matrix, level: int, base_mm: float) -> tuple[Matrix, float]:
    """One level of gradient descent on the negative mutual information; the metric is +inf where the images do not overlap.

    Only the fixed image is masked: a mask on the moving one as well would reward sliding out of it.
    """
    voxels = max(1, int(sitk.GetArrayViewFromImage(fixed.stable).sum()))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricFixedMask(fixed.stable)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMetricSamplingStrategy(method.RANDOM)
    total = fixed.image.GetNumberOfPixels()
    method.SetMetricSamplingPercentage(min(1.0, max(SAMPLES[level] / voxels, 64 / total)), SEED)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0,
        minStep=1e-3,
        numberOfIterations=ITERATIONS[level],
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-8,
        estimateLearningRate=method.Once,
        maximumStepSizeInPhysicalUnits=LEVELS[level] * base_mm / 2.0,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    transform = sitk.Euler3DTransform()
    size = np.array(fixed.image.GetSize(), dtype=np.float64)
    transform.SetCenter(fixed.image.TransformContinuousIndexToPhysicalPoint(((size - 1.0) / 2.0).tolist()))
    _set_matrix(transform, start_lps)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed.image, moving.image)
    except RuntimeError as error:
        # ITK refuses starts at which too few samples fall into both images; another start or level goes on from there.
        logger.debug("A registration level was skipped: %s", error)
        return start_lps, np.inf
    return lps_matrix(transform), method.GetMetricValue()


def _set_matrix(transform: sitk.Euler3DTransform, matrix_lps: Matrix) -> None:
    """Set rotation and translation so that the transform maps as ``matrix_lps`` whatever its centre is."""
    center = np.array(transform.GetCenter())
    transform.SetMatrix(Rotation.from_matrix(matrix_lps[:3, :3]).as_matrix().ravel().tolist(), 1e-6)
    transform.SetTranslation((transform_points(matrix_lps, center) - center).tolist())


def _agreement(fixed: Side, moving: Side, fixed_to_moving_lps: Matrix) -> tuple[float, float]:
    """How much the images tell of each other (2 MI / (H1 + H2), 0..1), and the share of the fixed mask that lies in both."""
    transform = itk_transform(fixed_to_moving_lps)
    resampled = sitk.GetArrayFromImage(sitk.Resample(moving.image, fixed.image, transform, sitk.sitkLinear, 0.0))
    inside = sitk.GetArrayFromImage(sitk.Resample(moving.stable, fixed.image, transform, sitk.sitkNearestNeighbor, 0)) > 0
    wanted = sitk.GetArrayFromImage(fixed.stable) > 0
    both = inside & wanted
    if both.sum() < 64:
        return 0.0, 0.0
    counts = np.histogram2d(sitk.GetArrayFromImage(fixed.image)[both], resampled[both], bins=24)[0]
    joint = counts / counts.sum()
    rows, columns, cells = (_entropy(part) for part in (joint.sum(axis=1), joint.sum(axis=0), joint.ravel()))
    similarity = 2.0 * (rows + columns - cells) / max(rows + columns, 1e-12)
    return float(similarity), float(both.sum() / max(wanted.sum(), 1))


def _entropy(share: NDArray[np.float64]) -> float:
    filled = share[share > 0]
    return float(-(filled * np.log(filled)).sum())
