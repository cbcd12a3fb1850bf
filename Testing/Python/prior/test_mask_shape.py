from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedGSLib.baselines import masks as baselines
from MedGSLib.metrics import dice
from MedGSLib.prior.mask_distance import slice_signed_distances
from MedGSLib.prior.mask_shape import interpolate_shape

PIXELS = [(1.0, 1.0), (0.8, 1.6), (2.0, 1.0), (0.35, 0.35)]
SPAN_MM = 44.0


def depth_of(shape: str, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A level set in mm, positive inside, of shapes whose stacks are oblique to their own axes."""
    if shape == "sphere":
        return 15.0 - np.sqrt((z - 21.3) ** 2 + (y - 20.8) ** 2 + (x - 23.1) ** 2)
    if shape == "ellipsoid":
        u, v, w = 0.8 * (z - 21) + 0.6 * (x - 23), y - 22, -0.6 * (z - 21) + 0.8 * (x - 23)
        return 8.0 * (1 - np.sqrt((u / 18) ** 2 + (v / 10) ** 2 + (w / 8) ** 2))
    if shape == "cylinder":
        return 7.0 - np.hypot(x - 10 - 0.55 * z, y - 22) * np.cos(np.arctan(0.55))
    return 0.42 * (z - 2.1) - np.hypot(y - 22, x - 22)  # cone


def sampled(shape: str, positions: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
    y = np.arange(0, SPAN_MM, pixel_mm[0])[None, :, None]
    x = np.arange(0, SPAN_MM, pixel_mm[1])[None, None, :]
    return depth_of(shape, positions[:, None, None], y, x) > 0


def interpolated(shape: str, coordinates: np.ndarray, wanted: np.ndarray, gap_mm: float, pixel_mm: tuple[float, float]) -> dict[str, float]:
    """Volume Dice on the wanted slices, of the shape networks and of both signed-distance baselines."""
    occupancy = sampled(shape, coordinates * gap_mm, pixel_mm)
    truth = sampled(shape, wanted * gap_mm, pixel_mm)
    distances = slice_signed_distances(occupancy, pixel_mm=pixel_mm)
    found = interpolate_shape(distances, coordinates, wanted, (gap_mm / pixel_mm[0], gap_mm / pixel_mm[1]))
    linear = baselines.interpolate_linear(distances, coordinates, wanted)
    return {"shape": dice(found > 0, truth), "linear": dice(linear > 0, truth)}


@pytest.mark.parametrize("pixel_mm", PIXELS)
@pytest.mark.parametrize("shape", ["sphere", "ellipsoid", "cylinder", "cone"])
def test_analytic_shapes_on_any_pixels(shape: str, pixel_mm: tuple[float, float]) -> None:
    coordinates = np.arange(9.0)
    wanted = (np.arange(8)[:, None] + np.array([0.25, 0.5, 0.75])).ravel()
    scores = interpolated(shape, coordinates, wanted, 5.0, pixel_mm)
    assert scores["shape"] > 0.96
    if shape in ("sphere", "ellipsoid"):
        assert 1 - scores["shape"] < 0.7 * (1 - scores["linear"])


def test_a_shape_ends_between_slices_as_it_should() -> None:
    scores = interpolated("sphere", np.arange(6.0), np.arange(5) + 0.5, 8.0, (1.0, 1.0))
    assert 1 - scores["shape"] < 0.6 * (1 - scores["linear"])


def test_annotated_slices_keep_their_distance_and_outer_ones_are_continued() -> None:
    coordinates = np.array([0.0, 1.0, 2.0, 3.0])
    distances = slice_signed_distances(sampled("sphere", 10 + 6.0 * coordinates, (1.0, 1.0)))
    field = interpolate_shape(distances, coordinates, np.array([-1.0, 0.0, 0.5, 1.0, 3.0, 4.0]), (6.0, 6.0))
    assert field.dtype == np.float32 and field.shape == (6, 44, 44)
    assert np.array_equal(field[[0, 1, 3, 4, 5]], distances[[0, 0, 1, 3, 3]])


def test_irregular_gaps_are_interpolated_at_their_own_positions() -> None:
    coordinates = np.array([0.0, 1.0, 2.0, 4.0, 5.0, 6.5, 7.5])
    wanted = np.array([0.5, 1.4, 2.5, 3.0, 3.5, 4.3, 5.75])
    scores = interpolated("ellipsoid", coordinates, wanted, 4.5, (1.0, 1.0))
    assert scores["shape"] > 0.94
    assert scores["shape"] > scores["linear"]


def test_the_field_is_a_distance_in_columns_near_the_surface() -> None:
    coordinates, pixel_mm = np.arange(9.0), (1.2, 0.6)
    wanted = np.array([3.5, 4.5])
    distances = slice_signed_distances(sampled("cylinder", 5.0 * coordinates, pixel_mm), pixel_mm=pixel_mm)
    field = interpolate_shape(distances, coordinates, wanted, (5.0 / 1.2, 5.0 / 0.6))
    x = np.arange(field.shape[2]) * 0.6
    for slice_, t in zip(field, wanted):
        row = slice_[round(22 / 1.2)]
        left, right = np.interp(0, row[x < 10 + 0.55 * 5 * t], x[x < 10 + 0.55 * 5 * t]), x[row > 0].max()
        assert right - left == pytest.approx(2 * 7.0 / np.cos(np.arctan(0.55)), abs=0.9)
        near = np.abs(row) < 3
        assert np.abs(np.diff(row[near & (x < 14)])).mean() == pytest.approx(1.0, abs=0.25)


def test_no_mask_and_two_slices_and_a_single_one() -> None:
    empty = np.full((3, 12, 14), -3.5, np.float32)
    assert np.all(interpolate_shape(empty, np.arange(3.0), np.array([0.5, 1.0]), (4.0, 4.0)) < 0)
    two = slice_signed_distances(sampled("cylinder", np.array([10.0, 16.0]), (1.0, 1.0)))
    middle = interpolate_shape(two, np.arange(2.0), np.array([0.5]), (6.0, 6.0))
    assert dice(middle > 0, sampled("cylinder", np.array([13.0]), (1.0, 1.0))) > 0.94
    assert np.array_equal(interpolate_shape(two[:1], np.zeros(1), np.zeros(1), (6.0, 6.0)), two[:1])


@pytest.mark.parametrize("every", [3, 5])
def test_a_real_spleen_is_closer_than_with_signed_distances(shared_data: Path, every: int) -> None:
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / "ct_abdomen_ts_3mm" / "slab30_seg.nii.gz")))
    mask = labels == 1
    filled = np.argwhere(mask.any(axis=0))
    (top, left), (bottom, right) = filled.min(axis=0) - 6, filled.max(axis=0) + 7
    mask = mask[: (len(mask) - 1) // every * every + 1, top:bottom, left:right]
    kept = np.arange(0, len(mask), every)
    between = np.setdiff1d(np.arange(len(mask)), kept)
    distances = slice_signed_distances(mask[kept])
    found = interpolate_shape(distances, kept / every, between / every, (float(every), float(every)))
    others = [method(mask[kept], kept.astype(float), between.astype(float)) for method in (baselines.sdf_linear, baselines.sdf_cubic)]
    assert dice(found > 0, mask[between]) > max(dice(other > 0, mask[between]) for other in others)
