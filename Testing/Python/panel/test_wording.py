"""What the panel says, and how it guesses durations; needs neither Qt nor MRML."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from MedGSLib.job.events import JobEvent
from MedGSLib.job.failures import Failure
from MedGSLib.job.process import JobState
from MedGSLib.panel import wording
from MedGSLib.panel.calibration import START_UP_S, Calibration

REPORT = {
    "preset": "standard",
    "backend": "The GPU rasterizer is used: gsplat.",
    "geometry": {"output_slices": 100, "rows_columns": [100, 100]},
    "segments": {"aorta": {"volume_cm3": 36.02, "area_cm2": 66.2, "max_diameter_mm": 80.3, "closed": True}},
    "self_check": {
        "image": {"medgs": {"psnr_db": 31.52}, "linear": {"psnr_db": 29.0}},
        "masks": {"aorta": {"dice_medgs": 0.951, "dice_sdf_linear": 0.944}},
    },
}


def job(state: JobState, event: JobEvent | None = None, failure: Failure | None = None) -> SimpleNamespace:
    """What the panel reads of a job controller."""
    return SimpleNamespace(state=state, last_event=event, failure=failure, elapsed_s=75.0)


def test_status_names_stage_elapsed_and_time_left():
    event = JobEvent("fit", step=30, total=120, eta_s=61.0)
    running = job(JobState.RUNNING, event)
    assert wording.statusText(running, 2) == "Fitting the Gaussians, 1 min 15 s elapsed, about 1 min 1 s left in this step, 2 waiting."
    assert wording.percent(running) == 25
    assert "Starting the worker" in wording.statusText(job(JobState.STARTING))
    assert "has not answered" in wording.statusText(job(JobState.HUNG, event))
    assert wording.statusText(None) == "" and wording.percent(None) is None


def test_ends_are_one_sentence_and_a_next_step():
    assert wording.statusText(job(JobState.SUCCEEDED)) == "Done in 1 min 15 s."
    failed = job(JobState.FAILED, failure=Failure("The disk is full.", "Free some disk space and try again."))
    assert wording.statusText(failed) == "The disk is full. Free some disk space and try again."


def test_log_holds_messages_and_new_stages_only():
    assert wording.logLine(JobEvent("fit", step=0, total=10)) == "[Fitting the Gaussians]"
    assert wording.logLine(JobEvent("fit", step=3, total=10)) == ""
    assert (
        wording.logLine(JobEvent("end", level="error", message="No memory.", next_step="Use Fast.")) == "[End] ERROR: No memory. Use Fast."
    )


def test_summary_compares_with_linear_interpolation():
    text = wording.summary(REPORT, ["24 of 33 slices are interpolated."])
    assert text.splitlines() == [
        "aorta: volume 36.02 cm3, surface 66.2 cm2, largest diameter 80.3 mm",
        "Self-check on left-out slices: image 31.5 dB, linear interpolation 29.0 dB.",
        "Self-check of aorta: Dice 0.951, linear interpolation of contours 0.944.",
        "24 of 33 slices are interpolated.",
        "Research use only, not for diagnosis.",
    ]
    assert wording.summary({}, []) == "Research use only, not for diagnosis."
    assert wording.summary({"remarks": ["The slices overlap."]}, []).startswith("The slices overlap.\n")


def test_summary_sets_the_volume_beside_what_the_drawn_slices_say():
    segment = {"volume_cm3": 36.02, "volume_by_areas_cm3": 36.5, "volume_by_areas_standard_error_cm3": 0.208}
    line = "aorta: volume 36.02 cm3, by the areas of the drawn slices 36.50 +- 0.21 cm3"
    assert wording.summary({"segments": {"aorta": segment}}, []).splitlines()[0] == line
    too_few = segment | {"volume_by_areas_cm3": None, "volume_by_areas_standard_error_cm3": None}
    assert wording.summary({"segments": {"aorta": too_few}}, []).splitlines()[0] == "aorta: volume 36.02 cm3"


def test_estimates_come_from_runs_on_this_computer():
    calibration = Calibration()
    assert "rough guess" in calibration.sentence(1_000_000, "standard", True)
    calibration.learn(REPORT, START_UP_S + 50.0)
    again = Calibration(calibration.text)
    assert (
        again.sentence(2_000_000, "standard", True)
        == f"About 1 min {40 + START_UP_S:.0f} s for 2.0 million output voxels (measured on this computer)."
    )
    assert "rough guess" in again.sentence(2_000_000, "standard", False)
    again.learn(REPORT, START_UP_S + 100.0)
    assert "1 min 23 s" in again.sentence(1_000_000, "standard", True)
    assert again.sentence(0, "fast", False) == ""


@pytest.mark.parametrize("text", ["{", "[1]", '{"cpu/fast": "x", "cpu/high": -1}'])
def test_damaged_settings_are_forgotten(text):
    assert "rough guess" in Calibration(text).sentence(1_000_000, "fast", False)


def test_unusable_reports_teach_nothing():
    calibration = Calibration()
    for report in ({}, {**REPORT, "preset": "mine"}, {**REPORT, "geometry": {}}):
        calibration.learn(report, 100.0)
    assert calibration.text == "{}"


def test_stages_of_the_library_have_names():
    sources = (Path(wording.__file__).parents[1]).rglob("*.py")
    used = {word for path in sources for word in ("prior", "fit", "render", "surface", "write") if f'"{word}"' in path.read_text()}
    assert used <= set(wording.STAGES)
