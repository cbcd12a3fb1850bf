from __future__ import annotations

import sys

import numpy as np
import pytest

from MedGSLib.baselines import masks
from MedGSLib.errors import InputError


def disc(radius: float, centre: tuple[float, float] = (20.0, 20.0), size: int = 41) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def radius_of(field: np.ndarray, level: float) -> float:
    return float(np.sqrt(np.count_nonzero(field > level) / np.pi))


@pytest.fixture
def cone() -> tuple[np.ndarray, np.ndarray]:
    """Discs whose radius falls linearly along an irregular stack: radius = 14 - 2 t."""
    coordinates = np.array([0.0, 1.0, 2.5, 4.0])
    return np.stack([disc(14 - 2 * t) for t in coordinates]), coordinates


def test_every_method_returns_the_given_slices(cone: tuple[np.ndarray, np.ndarray]) -> None:
    occupancy, coordinates = cone
    for name, method in masks.METHODS.items():
        field = method(occupancy, coordinates, coordinates)
        assert field.dtype == np.float32
        assert np.array_equal(field > masks.ISO_LEVELS[name], occupancy), name


def test_radius_of_a_cone_between_irregular_slices(cone: tuple[np.ndarray, np.ndarray]) -> None:
    occupancy, coordinates = cone
    for name, tolerance in (("sdf_linear", 0.35), ("sdf_cubic", 0.35), ("morphological", 0.7)):
        for t in (0.5, 1.75, 3.25):
            field = masks.METHODS[name](occupancy, coordinates, np.array([t]))[0]
            assert radius_of(field, masks.ISO_LEVELS[name]) == pytest.approx(14 - 2 * t, abs=tolerance), (name, t)


def test_nearest_is_a_staircase(cone: tuple[np.ndarray, np.ndarray]) -> None:
    occupancy, coordinates = cone
    field = masks.nearest(occupancy, coordinates, np.array([-3.0, 0.49, 0.51, 1.74, 1.76, 99.0]))
    assert [int(np.argmax([np.array_equal(slice_ > 0.5, mask) for mask in occupancy])) for slice_ in field] == [0, 0, 1, 1, 2, 3]


def test_cubic_follows_a_curved_profile_better_than_linear() -> None:
    coordinates = np.arange(7.0)
    profile = lambda t: 12 + 4 * np.sin(t)  # noqa: E731
    occupancy = np.stack([disc(profile(t)) for t in coordinates])
    wanted = np.array([1.5, 4.5])
    errors = {}
    for name in ("sdf_linear", "sdf_cubic"):
        field = masks.METHODS[name](occupancy, coordinates, wanted)
        errors[name] = max(abs(radius_of(slice_, 0.0) - profile(t)) for slice_, t in zip(field, wanted))
    assert errors["sdf_cubic"] < 0.75 * errors["sdf_linear"]


def test_distances_count_in_columns_on_anisotropic_pixels() -> None:
    y, x = np.mgrid[:21, :41]
    mask = np.hypot(2.0 * (y - 10), x - 20) <= 12
    field = masks.sdf_linear(np.stack([mask, mask]), np.arange(2.0), np.array([0.5]), pixel_mm=(1.0, 0.5))[0]
    assert field[10, 20] == pytest.approx(12.0, abs=0.6)
    assert field[14, 20] == pytest.approx(4.0, abs=0.6)


def test_few_slices_are_still_interpolated() -> None:
    two = np.stack([disc(10), disc(14)])
    assert radius_of(masks.sdf_cubic(two, np.arange(2.0), np.array([0.5]))[0], 0.0) == pytest.approx(12, abs=0.3)
    one = masks.sdf_linear(two[:1], np.zeros(1), np.array([0.0, 3.0]))
    assert np.array_equal(one[1] > 0, two[0])


def test_morphological_leaves_a_single_filled_slice_alone() -> None:
    occupancy = np.stack([np.zeros((41, 41), bool), disc(9), np.zeros((41, 41), bool)])
    field = masks.morphological(occupancy, np.arange(3.0), np.array([0.0, 0.5, 1.0, 2.0]))
    assert [bool(slice_.any()) for slice_ in field] == [False, False, True, False]


def test_a_missing_itk_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itk", None)
    with pytest.raises(InputError, match="itk-morphologicalcontourinterpolation"):
        masks.morphological(np.stack([disc(5), disc(6)]), np.arange(2.0), np.array([0.5]))
