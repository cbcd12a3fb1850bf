"""The report says where the result lies, what it was made with, and holds nothing that JSON cannot."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import MedGSLib
from MedGSLib.config import preset_config
from MedGSLib.io.atomic import write_json
from MedGSLib.mesh import occupancy_to_mesh
from MedGSLib.preparation import prepare
from MedGSLib.prior.image_config import PriorConfig
from MedGSLib.progress import Reporter
from MedGSLib.report import NOTICE, describe, remarks, versions
from MedGSLib.self_check import SelfCheck
from MedGSLib.training.fit import FitReport
from MedGSLib.volume import Label, SliceStack

FIT = FitReport(iterations=150, resumed_from=20, loss=0.5, gaussians=99)
MATRIX = np.diag([0.5, 2.0, 1.0, 1.0])


def described(
    positions=(0.0, 3.0, 6.0, 9.0), mode: str = "joint", check: SelfCheck | None = None, shift: float = 0.0, **found: object
) -> dict:
    """The report of a small box; ``found`` goes into what the preparation says of the slice profile."""
    occupancy = np.zeros((1, len(positions), 12, 14), np.float32)
    occupancy[:, 1:3, 3:9, 4:10] = 1.0
    image = np.random.default_rng(0).random(occupancy.shape[1:]).astype(np.float32)
    annotated = np.arange(len(positions)) != 2
    stack = SliceStack(image, occupancy, (Label(4, "box"),), annotated, np.array(positions), MATRIX, axis=1, start_ijk=(5, 6, 7))
    config = replace(preset_config("fast", scale=3, mode=mode), prior=PriorConfig(method="linear"))
    prepared = prepare(stack, config, Reporter())
    channels = prepared.targets.channels
    rendered = np.zeros((len(prepared.grid), channels, 12, 14), np.float32)
    if prepared.slices is not None:
        known = prepared.grid.acquired >= 0
        rendered[prepared.grid.acquired[known], 0] = prepared.slices[known] + shift
    prepared.report["profile"] |= found
    field = np.zeros((10, 12, 14), np.float32)
    field[3:7, 3:9, 4:10] = 1.0
    mesh = occupancy_to_mesh(field, stack.index_to_ras(1.0))
    return describe(prepared, config, FIT, "because", rendered, {"box": mesh} if mode != "image" else {}, check)


def test_acquired_slices_beside_the_output_slices_are_remarked():
    report = described(positions=(0.0, 3.0, 6.0, 10.1))
    assert not report["geometry"]["all_acquired_planes_on_grid"]
    assert "1 of 4 acquired slices lie between two output slices" in report["remarks"][0]


def test_geometry_is_that_of_the_stack():
    geometry = described()["geometry"]
    assert geometry["slice_axis"] == "j" and geometry["crop_start_ijk"] == (5, 6, 7)
    assert (geometry["input_slices"], geometry["output_slices"], geometry["rows_columns"]) == (4, 10, (12, 14))
    assert geometry["pixel_mm"] == (2.0, 0.5) and geometry["input_gap_mm"] == 3.0 and geometry["output_spacing_mm"] == 1.0
    assert geometry["annotated_gap_mm"] == 4.5
    assert geometry["acquired_output_slices"] == [0, 3, 6, 9] and geometry["all_acquired_planes_on_grid"]
    assert geometry["annotated_input_slices"] == [0, 1, 3]
    assert geometry["plane_to_ras"] == MATRIX.tolist()


def test_planes_off_the_grid_are_owned_up_to():
    geometry = described(positions=(0.0, 2.6, 6.1, 9.3))["geometry"]
    assert not geometry["all_acquired_planes_on_grid"] and -1 in geometry["acquired_output_slices"]


def test_fit_provenance_and_notice_are_named():
    report = described(shift=0.1)
    assert report["fit"]["gaussians"] == 99 and report["fit"]["resumed_from"] == 20 and report["fit"]["iterations"] == 150
    assert report["fit"]["gaussians_on_acquired_slices_psnr_db"] == pytest.approx(20.0, abs=0.01)
    assert report["notice"] == NOTICE and report["backend"] == "because"
    assert (report["mode"], report["preset"], report["seed"]) == ("joint", "fast", 0)
    assert report["versions"]["medgs"] == MedGSLib.__version__ == versions()["medgs"]
    assert report["self_check"] is None


def test_segments_have_their_size_and_how_sure_it_is():
    segment = described()["segments"]["box"]
    assert segment["volume_cm3"] == pytest.approx(4 * 6 * 6 * (0.5 * 2.0 * 1.0) / 1000.0, rel=0.15)
    assert segment["closed"] and segment["manifold"] and not segment["position_error_is_calibrated"]
    check = SelfCheck(2, masks={"box": {"contour_error_q90_mm": 1.0}})
    calibrated = described(check=check)
    assert calibrated["segments"]["box"]["position_error_is_calibrated"]
    assert calibrated["self_check"]["left_out_slices"] == 2


def test_the_volume_by_areas_stands_beside_that_of_the_mesh():
    positions = tuple(1.5 * k for k in range(7))
    stack = SliceStack(None, np.zeros((1, 7, 12, 14), np.float32), (Label(1, "box"),), np.ones(7, bool), np.array(positions), MATRIX)
    stack.occupancy[0, 1:6, 3:9, 4:10] = 1.0
    config = preset_config("fast", mode="mask", scale=3)
    prepared = prepare(stack, config, Reporter())
    rendered = np.zeros((19, 1, 12, 14), np.float32)
    mesh = occupancy_to_mesh(np.pad(np.ones((13, 6, 6)), ((3, 3), (3, 3), (4, 4))), stack.index_to_ras(0.5))
    segment = describe(prepared, config, FIT, "because", rendered, {"box": mesh}, None)["segments"]["box"]
    full = 36 * 0.5 * 2.0 * 5 * 1.5 / 1000.0
    assert segment["volume_by_areas_cm3"] == pytest.approx(full)
    assert segment["volume_by_areas_standard_error_cm3"] == pytest.approx(full / 5 * 2 / np.sqrt(480.0), rel=1e-6)
    few = described()["segments"]["box"]
    assert few["volume_by_areas_cm3"] is None and few["volume_by_areas_standard_error_cm3"] is None


def test_parts_that_are_not_there_are_null():
    only_mask, only_image = described(mode="mask"), described(mode="image")
    assert only_mask["window"] is None and only_mask["fit"]["gaussians_on_acquired_slices_psnr_db"] is None
    assert only_image["segments"] == {} and "mask_prior" not in only_image["preparation"]


def test_a_report_is_strict_json_even_with_figures_that_do_not_exist(tmp_path):
    check = SelfCheck(2, masks={"box": {"contour_error_q90_mm": math.nan}}, image={"medgs": {"psnr_db": 30.0, "ssim": math.nan}})
    write_json(tmp_path / "report.json", described(check=check))
    loaded = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert loaded["self_check"]["image"]["medgs"]["ssim"] is None
    assert not described(check=check)["segments"]["box"]["position_error_is_calibrated"]


def test_what_is_out_of_the_ordinary_is_remarked_on():
    assert described()["remarks"] == []
    doubtful = {"doubtful": True, "reason": "The slices are thinner.", "width_in_gaps": 1.0}
    assert described(**doubtful, used_width_in_gaps=0.8)["remarks"] == ["The slices are thinner. The reconstruction takes 80 % of it."]
    wanted = described(**doubtful, used_width_in_gaps=1.0)["remarks"]
    assert "asked for" in wanted[0]
    ignored = {"doubtful": True, "reason": "The header is wrong.", "width_in_gaps": 10.0, "used_width_in_gaps": 0.0}
    assert described(**ignored)["remarks"][0].startswith("The header is wrong. The reconstruction takes the slices as thin")
    (blended,) = described(check=SelfCheck(5, alternative="cubic", share=0.7))["remarks"]
    assert "'cubic'" in blended and "30 %" in blended


@pytest.mark.parametrize(("width_of_slice", "percent"), [(lambda k: 4 + k // 2, 50), (lambda k: 4 + k, None), (lambda k: 6, None)])
def test_a_mask_drawn_on_thicker_slices_is_remarked_on(width_of_slice, percent):
    occupancy = np.zeros((1, 9, 20, 20), np.float32)
    for k in range(9):
        occupancy[0, k, 2 : 2 + width_of_slice(k), 2:9] = 1.0
    stack = SliceStack(None, occupancy, (Label(1, "liver"),), np.ones(9, bool), np.arange(9.0), MATRIX)
    config = preset_config("fast", mode="mask", scale=2, self_check=False)
    found = remarks(prepare(stack, config, Reporter()), config, None)
    assert [("liver" in remark, f"{percent} %" in remark) for remark in found] == ([] if percent is None else [(True, True)])


def test_overlapping_slices_are_remarked_on():
    image = np.linspace(0, 1, 6, dtype=np.float32)[:, None, None] + np.random.default_rng(0).random((1, 12, 14)).astype(np.float32)
    stack = SliceStack(image, None, (), np.ones(6, bool), np.arange(6.0), MATRIX)
    config = replace(preset_config("standard", scale=2, mode="image"), prior=PriorConfig(method="linear"))
    prepared = prepare(stack, config, Reporter())
    overlap, unchecked = remarks(prepared, config, None)
    assert "overlap" in overlap and "unchecked" in unchecked
