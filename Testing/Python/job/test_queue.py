"""The queue starts one job at a time, in order."""

from __future__ import annotations

import shutil
import time

import pytest

from MedGSLib.errors import InputError
from MedGSLib.job.folder import JobFolder
from MedGSLib.job.process import JobController, JobState
from MedGSLib.job.queue import JobQueue


@pytest.fixture
def jobs(folder, control):
    """A function that makes controllers on copies of the job folder."""
    made = []

    def make(*behaviours):
        for behaviour in behaviours:
            copy = folder.path.with_name(f"job-{len(made)}")
            shutil.copytree(folder.path, copy)
            made.append(JobController(JobFolder(copy), control(behaviour)._command))
        return made

    yield make
    for job in made:
        job.stop()


def drain(queue: JobQueue, until, timeout_s: float = 20.0) -> list:
    """Poll the queue until the condition holds. :return: (job, event) pairs."""
    seen = []
    deadline = time.monotonic() + timeout_s
    while not until():
        assert time.monotonic() < deadline
        seen += queue.poll()
        time.sleep(0.02)
    return seen


def test_jobs_run_one_after_the_other_even_after_a_failure(jobs):
    queue = JobQueue()
    first, second, third = jobs("train", "no_memory", "quick")
    for job in (first, second, third):
        queue.submit(job)
    assert queue.active is first and queue.waiting == (second, third)
    assert second.state is JobState.IDLE
    most = 0

    def done() -> bool:
        nonlocal most
        most = max(most, sum(job.state.is_active for job in (first, second, third)))
        return queue.active is None

    seen = drain(queue, done)
    assert most == 1
    assert [job.state for job in (first, second, third)] == [JobState.SUCCEEDED, JobState.FAILED, JobState.SUCCEEDED]
    order = [job for job, _ in seen]
    assert order == sorted(order, key=[first, second, third].index)


def test_waiting_job_can_be_dropped_and_running_one_cancelled(jobs):
    queue = JobQueue()
    first, second, third = jobs("train", "train", "quick")
    for job in (first, second, third):
        queue.submit(job)
    with pytest.raises(InputError, match="already in the queue"):
        queue.submit(second)
    queue.cancel(second)
    assert queue.waiting == (third,)
    queue.cancel(first)
    drain(queue, lambda: queue.active is None)
    assert [job.state for job in (first, second, third)] == [JobState.CANCELLED, JobState.IDLE, JobState.SUCCEEDED]


def test_job_that_cannot_start_does_not_block_the_queue(jobs):
    queue = JobQueue()
    broken, good = jobs("quick", "quick")
    object.__setattr__(broken._command, "python", broken.folder.path / "no python")
    queue.submit(broken)
    queue.submit(good)
    assert broken.state is JobState.FAILED and queue.active is good
    drain(queue, lambda: queue.active is None)
    assert good.state is JobState.SUCCEEDED


def test_job_taken_over_goes_first_and_stop_ends_everything(jobs):
    queue = JobQueue()
    earlier, later = jobs("train", "train")
    earlier.start()
    queue.submit(earlier)
    queue.submit(later)
    assert queue.active is earlier and queue.waiting == (later,)
    queue.stop()
    assert earlier.state is JobState.CANCELLED and later.state is JobState.IDLE and queue.active is None and not queue.waiting
