"""The list of jobs: what is shown, told and deleted."""

from __future__ import annotations

import time

import pytest

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
pytest.importorskip("SimpleITK")

from panel_case import run  # noqa: E402


def test_jobs_are_listed_with_their_time_and_deleted_after_a_question(ready, slicer_stand_in, monkeypatch):
    ready.onReconstruct()
    run(ready, lambda: not ready.logic.session.isBusy)
    folder = ready.jobs.selected.path
    assert time.strftime("CTA_aorta_MedGS, %Y-%m-%d") in ready.ui.jobsComboBox.currentText
    ready.ui.deleteJobButton.click()
    assert slicer_stand_in.dialogs and "MB" in slicer_stand_in.dialogs[0] and folder.is_dir()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_: True)
    ready.ui.deleteJobButton.click()
    assert not folder.exists() and ready.ui.jobsComboBox.count == 0 and not ready.ui.deleteJobButton.enabled


def test_a_waiting_job_is_neither_deleted_nor_queued_again(ready, use, slicer_stand_in):
    use("slow")
    ready.onReconstruct()
    run(ready, lambda: ready.logic.session.current.last_event is not None)
    ready.ui.seedSpinBox.setValue(3)
    ready.onQueue()
    ready.jobs.refresh()
    ready.ui.jobsComboBox.currentIndex = 0
    assert "not started" in ready.ui.jobsComboBox.currentText
    assert not ready.ui.deleteJobButton.enabled and not ready.ui.resumeJobButton.enabled
    ready.jobs._withSelected(ready.jobs._delete)
    assert "runs or waits" in ready.ui.statusLabel.text and slicer_stand_in.dialogs == []
    ready.jobs._withSelected(ready.resumeFolder)
    assert "already in the queue" in ready.ui.statusLabel.text and ready.logic.session.waiting == 1


def test_a_job_that_ended_without_its_scene_is_told_once(ready, case):
    ready.onReconstruct()
    job = ready.logic.session.current
    assert job._process.wait(30.0) and job.folder.result_file.is_file()
    ready.enter()
    assert "has finished" not in ready.ui.statusLabel.text, "it is followed"
    ready.logic.session._watched, ready.logic.session._queue._active = [], None  # as if the application had been started anew
    ready.jobs._told.clear()
    ready.enter()
    assert "The last job of this scene has finished" in ready.ui.statusLabel.text and ready.ui.importJobButton.enabled
    ready.progress.say("")
    ready.enter()
    assert ready.ui.statusLabel.text == ""
    ready.jobs._told.clear()
    ready.ui.importJobButton.click()
    ready.enter()
    assert ready.ui.statusLabel.text == "", "it is in the scene"


def test_all_jobs_and_comparisons_are_deleted_but_not_what_runs(ready, use, monkeypatch, slicer_stand_in):
    ready.onReconstruct()
    run(ready, lambda: not ready.logic.session.isBusy)
    done = ready.logic.session.current.folder
    comparison = slicer_stand_in.folder / "MedGS" / "comparisons" / "compare-1"
    comparison.mkdir(parents=True)
    (comparison / "comparison.json").write_text("{}")
    use("slow")
    ready.onReconstruct()
    ready.ui.deleteAllJobsButton.click()
    assert "Delete 1 jobs and 1 comparisons" in slicer_stand_in.dialogs[0] and done.path.is_dir()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_: True)
    ready.ui.deleteAllJobsButton.click()
    assert not done.path.exists() and not comparison.exists()
    assert ready.logic.session.current.folder.path.is_dir() and ready.ui.jobsComboBox.count == 1
