"""The worker itself: in this process with injected work, and as a process with the library's own reconstruction."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from MedGSLib.errors import EXIT_BAD_INPUT, EXIT_CANCELLED, EXIT_DONE, EXIT_FAILURE, BackendError
from MedGSLib.job import worker
from MedGSLib.job.folder import JobFolder
from MedGSLib.job.launch import WorkerCommand
from MedGSLib.job.process import JobController, JobState
from MedGSLib.job.request import JobGeometry, JobInputs, JobRequest
from MedGSLib.job.worker import run_job
from MedGSLib.progress import ProgressEvent, Reporter
from MedGSLib.volume import Label


def write_one(_request, folder, progress, _resume):
    """The least work there is."""
    Reporter(progress).start("fit", 1)
    (folder.output / "volume.nrrd").write_bytes(b"x")
    return {"metrics": {"psnr": 1.0}}


def events(folder: JobFolder) -> list:
    """The documents of events.jsonl."""
    return [json.loads(line) for line in folder.events_file.read_text(encoding="utf-8").splitlines()]


def test_events_go_to_the_file_and_to_stdout_alike(folder, capsys):
    assert run_job(folder.path, write_one) == EXIT_DONE
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == events(folder)
    assert [event["stage"] for event in printed] == ["start", "fit", "finish", "done"]


def test_work_gets_the_validated_request(folder):
    seen = []
    run_job(folder.path, lambda request, *rest: seen.append(request) or write_one(request, *rest))
    assert seen[0].parameters == {"preset": "fast", "scale": 2} and seen[0].inputs.labels[0].name == "Aorta"


def test_folder_or_request_that_cannot_be_used(tmp_path, folder, capsys):
    assert run_job(tmp_path / "nowhere", write_one) == EXIT_BAD_INPUT
    (folder.path / "mask.nrrd").unlink()
    assert run_job(folder.path, write_one) == EXIT_BAD_INPUT
    assert events(folder)[-1]["message"].startswith("The input file mask.nrrd")
    folder.request_file.write_text("{")
    assert run_job(folder.path, write_one) == EXIT_BAD_INPUT
    assert "damaged" in events(folder)[-1]["message"] and events(folder)[-1]["exit_code"] == EXIT_BAD_INPUT
    assert "no job folder" in capsys.readouterr().err


def test_observer_cancels_by_answering_false(folder):
    seen = []

    def work(_request, _folder, progress, _resume):
        reporter = Reporter(progress)
        reporter.start("fit", 100)
        for step in range(100):
            reporter.step(step)
            time.sleep(0.01)

    def stop(event: ProgressEvent) -> bool:
        seen.append(event)
        return event.step < 20

    assert run_job(folder.path, work, stop=stop) == EXIT_CANCELLED
    assert 20 <= seen[-1].step < 60 and not folder.result_file.exists()
    assert events(folder)[-1]["exit_code"] == EXIT_CANCELLED


def test_cancel_left_from_before_does_not_stop_a_new_run(folder):
    folder.cancel_file.touch()
    assert run_job(folder.path, write_one) == EXIT_DONE


def test_errors_of_the_library_keep_their_sentence_and_code(folder):
    def work(*_):
        raise BackendError("gsplat was asked for and is not installed.")

    assert run_job(folder.path, work) == EXIT_FAILURE
    last = events(folder)[-1]
    assert last["message"] == "gsplat was asked for and is not installed." and last["next_step"] and last["level"] == "error"


def test_steps_are_thinned_out_but_stages_and_messages_are_not(folder, monkeypatch):
    monkeypatch.setattr(worker, "STEP_INTERVAL_S", 1e6)

    def work(request, job, progress, resume):
        for step in range(500):
            progress(ProgressEvent("fit", step, 500, message="half" if step == 250 else ""))
        progress(ProgressEvent("fit", 500, 500))
        return write_one(request, job, progress, resume)

    run_job(folder.path, work)
    steps = [event["step"] for event in events(folder) if event["stage"] == "fit" and event.get("total") == 500]
    assert {0, 250, 500} <= set(steps) and len(steps) < 20


def test_heartbeats_and_previews(folder, monkeypatch):
    monkeypatch.setattr(worker, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(worker, "PREVIEW_INTERVAL_S", 0.0)

    def work(request, job, progress, resume):
        time.sleep(0.7)
        (job.output / "preview_live.png").write_bytes(b"1")
        progress(ProgressEvent("fit", message="a"))
        (job.output / "preview_live.png").write_bytes(b"2")
        os.utime(job.output / "preview_live.png", (1, 1))
        progress(ProgressEvent("fit", message="b"))
        return write_one(request, job, progress, resume)

    run_job(folder.path, work)
    found = events(folder)
    assert sum(event["level"] == "heartbeat" for event in found) >= 2
    assert [event["preview"] for event in found if "preview" in event] == ["output/preview_live.png"] * 2


def test_closed_standard_output_does_not_stop_the_work(folder, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(closed, "isatty", lambda: False, raising=False)
    monkeypatch.setattr(sys, "stdout", type("Closed", (), {"isatty": lambda _: False, "write": closed.write, "flush": closed.flush})())
    assert run_job(folder.path, write_one) == EXIT_DONE


def test_worker_leaves_no_threads_and_no_log_handlers(folder):
    threads, handlers = threading.active_count(), list(logging.getLogger("MedGSLib").handlers)
    run_job(folder.path, write_one)
    assert threading.active_count() == threads and logging.getLogger("MedGSLib").handlers == handlers


RADIUS_MM = 11.0


@pytest.fixture
def ball(tmp_path) -> JobFolder:
    """A ball of radius 11 mm in 9 slices 4 mm apart, oblique, with checkpoints at every chance."""
    simple_itk = pytest.importorskip("SimpleITK")
    pytest.importorskip("torch")
    z, y, x = np.meshgrid(np.arange(9) * 4.0, np.arange(32), np.arange(32), indexing="ij")
    radius = np.sqrt((z - 16) ** 2 + (y - 15.5) ** 2 + (x - 15.5) ** 2)
    image = (1000 / (1 + np.exp(radius - RADIUS_MM))).astype(np.float32)
    turn = np.radians(20.0)
    directions = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = directions * [1, 1, 4]
    request = JobRequest(
        JobInputs("image.nrrd", "mask.nrrd", (Label(3, "Ball"),)),
        JobGeometry.from_matrix(matrix),
        {"preset": "fast", "scale": 2, "device": "cpu", "threads": 1, "overrides": {"iterations": 60, "checkpoint_interval_s": 0.0}},
        title="Ball",
    )
    folder = JobFolder.create(tmp_path, request)
    for name, array in (("image.nrrd", image), ("mask.nrrd", (radius < RADIUS_MM).astype(np.uint8) * 3)):
        picture = simple_itk.GetImageFromArray(array)
        picture.SetSpacing((1.0, 1.0, 4.0))
        picture.SetDirection((np.diag([-1.0, -1, 1]) @ directions).ravel().tolist())
        simple_itk.WriteImage(picture, str(folder.path / name))
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX signals")
def test_library_job_killed_in_the_fit_resumes_to_a_sound_result(ball, until):
    controller = JobController(ball, WorkerCommand(Path(sys.executable)))
    try:
        controller.start()
        until(controller, lambda seen: controller.state.is_final or any(e.stage == "fit" and e.step > 5 for e in seen), timeout_s=120)
        assert not controller.state.is_final, controller.failure
        os.kill(ball.process().pid, signal.SIGKILL)
        until(controller, lambda _: controller.state.is_final)
        assert controller.state is JobState.FAILED and ball.has_checkpoint()

        controller.start()
        until(controller, lambda _: controller.state.is_final, timeout_s=120)
        assert controller.state is JobState.SUCCEEDED, controller.failure
    finally:
        controller.stop()
    result = controller.result
    assert result is not None and not ball.has_checkpoint()
    for kind in ("volume", "occupancy", "segmentation", "mesh", "model", "report", "preview"):
        path = result.path(ball.path, kind)
        assert path is not None and path.is_file(), kind
    (measures,) = result.metrics["segments"].values()
    assert measures["volume_cm3"] == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3 / 1000, rel=0.05)
    assert result.metrics["fit"]["resumed_from"] > 0 and result.timings["total_s"] > 0
