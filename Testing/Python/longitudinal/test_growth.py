"""Rates, trends and the repeatability band."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from MedGSLib.longitudinal import growth
from MedGSLib.longitudinal.distance import add_point_values
from MedGSLib.mesh import POSITION_ARRAY, occupancy_to_mesh

DATES = [datetime.date(2020, 1, 1), datetime.date(2022, 1, 1), datetime.date(2024, 1, 1)]


def test_rates_need_dates_and_differences_need_more_than_the_band() -> None:
    years = growth.years_between(DATES[0], DATES[1])
    change = growth.Change("max_diameter", "mm", 50.0, 54.0, 1.0, years)
    assert change.per_year == pytest.approx(2.0, rel=0.01)
    assert change.percent_per_year == pytest.approx(4.0, rel=0.01)
    assert change.as_dict()["verdict"] == "changed"
    undated = growth.Change("max_diameter", "mm", 50.0, 50.5, 1.0, growth.years_between(None, DATES[1]))
    assert undated.per_year is None
    assert undated.as_dict()["verdict"] == "within measurement error"
    assert growth.Change("volume", "cm3", 9.0, 5.0, 1.0, years).significant


def test_a_trend_needs_three_dates() -> None:
    line = growth.trend("volume", "cm3", DATES, [10.0, 14.0, 18.0])
    assert line is not None
    assert line.per_year == pytest.approx(2.0, rel=0.01)
    assert line.r_squared == pytest.approx(1.0, abs=1e-4)
    assert growth.trend("volume", "cm3", DATES[:2], [10.0, 14.0]) is None
    assert growth.trend("volume", "cm3", [*DATES[:2], None], [10.0, 14.0, 18.0]) is None
    assert growth.trend("volume", "cm3", [DATES[0], DATES[0], DATES[1]], [10.0, 14.0, 18.0]) is None


def test_the_wall_is_least_certain_where_it_lies_along_the_slices() -> None:
    block = np.zeros((20, 20, 20), np.float32)
    block[5:15, 5:15, 5:15] = 1
    surface = occupancy_to_mesh(block, np.eye(4))
    sampling = growth.Sampling(1.0, 6.0, (0.0, 0.0, 1.0))
    sd = growth.wall_sd_mm(surface, sampling)
    heights = np.array([surface.GetPoint(index)[2] for index in range(surface.GetNumberOfPoints())])
    assert sd[heights > 14.4].max() == pytest.approx(np.hypot(0.15, 0.35 * 6.0), rel=0.02)
    assert sd[np.abs(heights - 9.5) < 1].max() == pytest.approx(0.15, rel=0.02)
    assert np.all(growth.wall_sd_mm(surface, sampling, observer_sd_mm=1.0) > sd)
    add_point_values(surface, POSITION_ARRAY, np.full(len(sd), 1.645))
    assert growth.wall_sd_mm(surface, sampling)[np.abs(heights - 9.5) < 1] == pytest.approx(1.0, abs=0.02)


def test_a_bare_mesh_has_the_uncertainty_of_its_edges() -> None:
    block = np.zeros((9, 9, 9), np.float32)
    block[3:6, 3:6, 3:6] = 1
    fine, coarse = (growth.wall_sd_mm(occupancy_to_mesh(block, np.diag([mm, mm, mm, 1.0])), None)[0] for mm in (1.0, 3.0))
    assert 0 < fine < coarse


def test_bands_grow_with_every_source_of_error() -> None:
    one = np.ones(1)
    still = growth.distance_band_mm(one, one, 0.0)[0]
    assert still == pytest.approx(1.96 * np.sqrt(2.0))
    assert growth.distance_band_mm(one, one, 1.0)[0] > still
    assert growth.diameter_band_mm(0.3, 0.4) == pytest.approx(1.96 * 0.5)
    assert growth.volume_band_cm3(0.3, 100.0, 0.3, 100.0) > growth.volume_band_cm3(0.2, 100.0, 0.2, 100.0)
    thin, thick = (growth.Sampling(1.0, gap, (0.0, 0.0, 1.0)) for gap in (1.0, 5.0))
    assert growth.length_band_mm(thick, thick) > growth.length_band_mm(thin, thick) > growth.length_band_mm(None, None) == 0.0
