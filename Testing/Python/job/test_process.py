"""The controller with real worker processes: start, progress, cancel, kill, crash, hang, garbage, disk full, resume, take over."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from MedGSLib.errors import EXIT_NO_RESOURCES, InputError
from MedGSLib.job.folder import FolderState
from MedGSLib.job.launch import WorkerCommand
from MedGSLib.job.process import JobController, JobState, import_finished
from MedGSLib.job.process_tree import kill_tree

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX signals")


def alive(pids: list) -> list:
    """Those of the processes that still run; zombies don't."""
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def gone(pids: list, within_s: float = 1.0) -> bool:
    """Whether all processes are gone, waiting a moment for the system to clear up."""
    deadline = time.monotonic() + within_s
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pids)


def children(folder) -> list:
    """The processes that the scripted worker started."""
    return json.loads((folder.path / "children.json").read_text())


def worker_pid(folder) -> int:
    """The process that works on the folder."""
    record = folder.process()
    assert record is not None
    return record.pid


def test_success_reports_progress_and_a_verified_result(control, to_end, folder):
    controller = control("train")
    assert controller.state is JobState.IDLE
    controller.start()
    assert controller.state is JobState.STARTING
    events = to_end(controller)
    assert controller.state is JobState.SUCCEEDED and controller.failure is None
    steps = [event.step for event in events if event.stage == "fit"]
    assert steps == sorted(steps) and steps[-1] == 40 and len(steps) >= 5
    last = [event for event in events if event.stage == "fit"][-1]
    assert last.fraction == 1.0 and last.psnr == 60.0 and last.loss == pytest.approx(1 / 40) and last.gpu_mem_mb is None
    assert any(event.eta_s for event in events)
    assert controller.result is not None and controller.result.metrics["psnr"] == 31.5
    assert controller.result.path(folder.path, "mesh", ".vtp") == folder.path / "output" / "mesh.vtp"
    assert not any("checkpoint" in output.file for output in controller.result.outputs)
    assert import_finished(folder).outputs == controller.result.outputs
    assert controller.poll() == []


def test_preview_is_announced(control, to_end):
    controller = control("quick")
    controller.start()
    events = to_end(controller)
    assert {event.preview for event in events if event.preview} <= {"output/preview.png"}
    assert controller.result is not None and controller.result.path(Path(), "preview") == Path("output/preview.png")


def test_poll_and_start_do_not_block(control):
    controller = control("train")
    started = time.monotonic()
    controller.start()
    assert time.monotonic() - started < 0.5
    longest = 0.0
    while controller.state.is_active:
        before = time.monotonic()
        controller.poll()
        longest = max(longest, time.monotonic() - before)
        time.sleep(0.02)
    assert longest < 0.25


@posix_only
def test_large_outputs_are_checked_in_few_turns_of_a_main_thread_that_keeps_the_interpreter(control, folder):
    """As Slicer's does between two polls."""
    controller = control("large")
    controller.start()
    assert gone([worker_pid(folder)], within_s=20.0)
    idle = ctypes.PyDLL(None).usleep
    polls = 0
    while controller.state.is_active:
        controller.poll()
        idle(100_000)
        polls += 1
    assert controller.state is JobState.SUCCEEDED and polls < 40


@posix_only
def test_cancel_of_a_job_that_has_finished_leaves_its_result(control, to_end, folder):
    controller = control("quick")
    controller.start()
    assert gone([worker_pid(folder)], within_s=20.0)
    controller.cancel()
    to_end(controller)
    assert controller.state is JobState.SUCCEEDED and folder.state() is FolderState.FINISHED


@posix_only
def test_late_worker_is_killed_by_the_poll_where_no_other_thread_runs(control, until, folder, monkeypatch):
    monkeypatch.setattr(threading.Timer, "start", lambda _timer: None)
    controller = control("stubborn")
    controller.start()
    until(controller, lambda events: bool(events))
    pids = [worker_pid(folder), *children(folder)]
    controller.cancel()
    _, seconds = until(controller, lambda _: controller.state.is_final)
    assert seconds < 2.0 and controller.state is JobState.CANCELLED and gone(pids, within_s=0.3)


@pytest.mark.parametrize("behaviour", ["train", "deaf"])
def test_cancel_is_obeyed_politely(control, until, folder, behaviour):
    controller = control(behaviour, cancel_grace_s=5.0)
    controller.start()
    until(controller, lambda events: any(event.stage in ("fit", "prior") for event in events))
    pid = worker_pid(folder)
    controller.cancel()
    assert controller.state is JobState.CANCELLING
    events, seconds = until(controller, lambda _: controller.state.is_final)
    assert controller.state is JobState.CANCELLED and seconds < 2.0
    assert events[-1].exit_code == 4, "the worker itself said that it was cancelled"
    assert gone([pid]) and not folder.result_file.exists() and folder.state() is FolderState.CANCELLED
    with pytest.raises(InputError, match="not finished"):
        import_finished(folder)


@posix_only
@pytest.mark.parametrize("behaviour", ["stubborn", "native"])
def test_ignored_cancel_kills_the_whole_tree_within_two_seconds(control, until, folder, behaviour):
    controller = control(behaviour)
    controller.start()
    until(controller, lambda events: any(event.stage in ("fit", "prior") for event in events))
    pids = [worker_pid(folder), *children(folder)]
    assert alive(pids) == pids
    controller.cancel()
    _, seconds = until(controller, lambda _: controller.state.is_final)
    assert seconds < 2.0 and controller.state is JobState.CANCELLED
    assert gone(pids, within_s=0.3), f"left behind: {alive(pids)}"


@posix_only
def test_cancel_kills_in_time_even_where_nobody_polls(control, until, folder):
    controller = control("stubborn")
    controller.start()
    until(controller, lambda events: bool(events))
    pids = [worker_pid(folder), *children(folder)]
    controller.cancel()
    time.sleep(1.9)
    assert gone(pids[1:], within_s=0.1) and gone(pids[:1], within_s=0.1)


@posix_only
def test_polite_end_leaves_no_stray_children(control, until, folder):
    controller = control("polite_with_stray")
    controller.start()
    until(controller, lambda events: bool(events))
    pids = children(folder)
    controller.cancel()
    until(controller, lambda _: controller.state.is_final)
    assert controller.state is JobState.CANCELLED and gone(pids)


@posix_only
def test_stop_ends_a_stubborn_job_before_it_returns(control, until, folder):
    controller = control("stubborn")
    controller.start()
    until(controller, lambda events: bool(events))
    pids = [worker_pid(folder), *children(folder)]
    before = time.monotonic()
    controller.stop()
    assert time.monotonic() - before < 2.2 and controller.state is JobState.CANCELLED and gone(pids, 0.2)


@posix_only
def test_kill_9_is_noticed_and_resumed_from_the_checkpoint(control, until, to_end, folder):
    controller = control("train")
    controller.start()
    until(controller, lambda events: any(event.step >= 12 for event in events))
    os.kill(worker_pid(folder), signal.SIGKILL)
    _, seconds = until(controller, lambda _: controller.state.is_final)
    assert seconds < 1.0 and controller.state is JobState.FAILED and controller.failure is not None
    assert "ended from outside" in controller.failure.sentence and "checkpoint" in controller.failure.next_step
    assert folder.state() is FolderState.INTERRUPTED and folder.has_checkpoint()

    controller.start()
    events = to_end(controller)
    assert controller.state is JobState.SUCCEEDED and controller.result is not None
    assert any("Going on" in event.message for event in events)
    assert controller.result.metrics["steps"] == 40 and controller.result.metrics["first"] >= 12, "it did not begin anew"


@posix_only
def test_native_crash_is_named(control, to_end):
    controller = control("crash")
    controller.start()
    to_end(controller)
    assert controller.state is JobState.FAILED and controller.failure is not None
    assert "crashed (SIGSEGV)" in controller.failure.sentence


def test_hung_worker_is_noticed_and_may_recover(control, until):
    controller = control("silent", hang_after_s=0.6)
    controller.start()
    until(controller, lambda _: controller.state is JobState.RUNNING)
    _, seconds = until(controller, lambda _: controller.state is JobState.HUNG)
    assert seconds > 0.3
    until(controller, lambda _: controller.state is JobState.RUNNING)
    controller.cancel()
    until(controller, lambda _: controller.state is JobState.CANCELLED)


def test_heartbeats_keep_a_worker_without_progress_from_counting_as_hung(control, until):
    controller = control("deaf", hang_after_s=2.8)
    controller.start()
    until(controller, lambda events: any(event.stage == "prior" for event in events))
    deadline = time.monotonic() + 4.5
    while time.monotonic() < deadline:
        controller.poll()
        assert controller.state is JobState.RUNNING
        time.sleep(0.05)


def test_sleeping_computer_does_not_count_as_a_hung_worker(control, until):
    now = [0.0]
    controller = control("silent", hang_after_s=60.0, clock=lambda: now[0])
    controller.start()
    until(controller, lambda _: controller.state is JobState.RUNNING)
    now[0] += 36000.0
    controller.poll()
    assert controller.state is JobState.RUNNING


def test_garbage_on_stdout_and_in_events_does_no_harm(control, to_end, folder):
    controller = control("noisy")
    controller.start()
    events = to_end(controller)
    assert controller.state is JobState.SUCCEEDED
    assert [event.stage for event in events if not event.preview][-3:] == ["mesh", "finish", "done"]
    assert b"garbage" in folder.console_file.read_bytes()


@pytest.mark.parametrize(
    ("behaviour", "sentence", "next_step"),
    [
        ("no_memory", "computer ran out of memory", "Fast"),
        ("no_gpu_memory", "2.50 GiB more needed, 1.25 GiB of 7.79 GiB free", "smaller"),
        pytest.param("disk_full", "disk is full", "Free some disk space", marks=posix_only),
        ("missing_package", "lacks the package package_that_nobody_has", "Environment"),
        ("nothing", "without writing any output", "again"),
    ],
)
def test_failures_are_one_sentence_and_one_next_step(control, to_end, folder, behaviour, sentence, next_step):
    controller = control(behaviour)
    controller.start()
    events = to_end(controller)
    assert controller.state is JobState.FAILED and controller.failure is not None and controller.result is None
    assert sentence in controller.failure.sentence and next_step in controller.failure.next_step
    assert controller.failure.sentence.endswith(".") and "\n" not in controller.failure.sentence
    assert events[-1].exit_code == controller.failure.exit_code
    if behaviour in ("no_memory", "no_gpu_memory", "disk_full"):
        assert controller.failure.exit_code == EXIT_NO_RESOURCES
        assert "Traceback" in folder.log_file.read_text(encoding="utf-8")
    assert folder.state() is FolderState.FAILED


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [("lying", "missing"), ("failing_with_result", "without finishing"), ("tampering", "output/mesh.vtp of the job was changed")],
)
def test_success_needs_exit_code_0_and_a_valid_manifest(control, to_end, behaviour, sentence):
    controller = control(behaviour)
    controller.start()
    to_end(controller)
    assert controller.state is JobState.FAILED and controller.failure is not None and controller.result is None
    assert sentence in controller.failure.sentence


def test_missing_interpreter_is_a_failure_not_an_exception(folder):
    controller = JobController(folder, WorkerCommand(folder.path / "no such python"))
    controller.start()
    assert controller.state is JobState.FAILED and controller.failure is not None
    assert "cannot be started" in controller.failure.sentence


def test_running_job_is_taken_over_after_a_restart(control, until, to_end, folder):
    first = control("train")
    first.start()
    until(first, lambda events: any(event.step >= 5 for event in events))

    second = control("train")
    with pytest.raises(InputError, match="already running"):
        second.start()
    assert folder.state() is FolderState.RUNNING
    second.attach()
    events = to_end(second)
    assert second.state is JobState.SUCCEEDED and second.result is not None
    assert events[0].stage == "start", "a controller that takes over sees the events from the beginning"
    to_end(first)
    assert first.state is JobState.SUCCEEDED


@posix_only
def test_job_taken_over_can_be_cancelled(control, until, folder):
    first = control("stubborn")
    first.start()
    until(first, lambda events: bool(events))
    second = control("stubborn")
    second.attach()
    until(second, lambda _: second.state is JobState.RUNNING)
    pids = [worker_pid(folder), *children(folder)]
    second.cancel()
    _, seconds = until(second, lambda _: second.state.is_final)
    assert seconds < 2.0 and second.state is JobState.CANCELLED and gone(pids, 0.3)


@pytest.mark.parametrize(("behaviour", "state"), [("quick", JobState.SUCCEEDED), ("no_memory", JobState.FAILED)])
def test_end_that_came_while_nobody_watched_is_judged_from_the_folder(control, to_end, behaviour, state):
    first = control(behaviour)
    first.start()
    to_end(first)
    later = control(behaviour)
    later.attach()
    to_end(later)
    assert later.state is state and (later.result is None) == (state is JobState.FAILED)


def test_recycled_process_number_is_not_taken_for_the_worker(control, to_end, folder):
    record = {"pid": os.getpid(), "token": "another boot:1", "host": socket.gethostname()}
    folder.process_file.write_text(json.dumps(record))
    folder.events_file.write_text('{"stage":"fit"}\n')
    assert folder.state() is FolderState.INTERRUPTED
    controller = control("quick")
    controller.attach()
    to_end(controller)
    assert controller.state is JobState.FAILED, "and this process, whose number it is, still lives"


@posix_only
def test_worker_behind_a_launcher_succeeds_and_is_cancelled(control, to_end, until, folder):
    stubborn = control("stubborn", launcher=True)
    stubborn.start()
    until(stubborn, lambda events: bool(events))
    launcher = worker_pid(folder)
    pids = [launcher, *(child.pid for child in psutil.Process(launcher).children(recursive=True)), *children(folder)]
    assert len(set(pids)) >= 5
    taking_over = control("stubborn", launcher=True)
    taking_over.attach()
    until(taking_over, lambda _: taking_over.state is JobState.RUNNING)
    taking_over.cancel()
    until(taking_over, lambda _: taking_over.state.is_final)
    assert taking_over.state is JobState.CANCELLED and gone(pids, 0.3)

    controller = control("quick", launcher=True)
    controller.start()
    to_end(controller)
    assert controller.state is JobState.SUCCEEDED, controller.failure


@posix_only
def test_kill_tree_finds_a_process_without_a_group_and_children_that_left_it():
    nested = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)"
    script = f"import subprocess, sys, time; print({nested}.pid, flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    stray = int(child.stdout.readline())
    kill_tree(child.pid)
    assert child.wait(timeout=1.0) == -signal.SIGKILL and gone([stray])


def test_attach_to_a_job_never_started(control):
    with pytest.raises(InputError, match="never started"):
        control("quick").attach()


def test_second_worker_in_the_same_folder_is_refused(control, until, folder):
    controller = control("train")
    controller.start()
    until(controller, lambda events: bool(events))
    second = subprocess.run(
        WorkerCommand(Path(sys.executable)).argv("worker", str(folder.path)), capture_output=True, text=True, timeout=20, check=False
    )
    assert second.returncode == 2 and "already working" in second.stderr
    until(controller, lambda _: controller.state is JobState.SUCCEEDED)


def test_finished_folder_is_left_as_it_is(control, to_end, folder):
    controller = control("quick")
    controller.start()
    to_end(controller)
    before = folder.result_file.stat().st_mtime_ns
    again = control("no_memory")
    again.start()
    to_end(again)
    assert again.state is JobState.SUCCEEDED and folder.result_file.stat().st_mtime_ns == before
