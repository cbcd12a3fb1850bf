"""A worker process whose reconstruction is a script: ``python scripted_worker.py BEHAVIOUR JOBDIR``.

The behaviours of ``RECONSTRUCTIONS`` run inside the real :func:`MedGSLib.job.worker.run_job`; those of ``RAW`` stand for workers
that don't keep to the protocol.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))

from MedGSLib.job.worker import run_job
from MedGSLib.progress import Reporter

STEPS = 40
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def train(_request, folder, progress, resume):
    """40 steps of 0.04 s with a checkpoint after each; the model counts the steps that it has seen, over all runs."""
    checkpoint = folder.output / "checkpoint.json"
    done = json.loads(checkpoint.read_text())["done"] if resume else 0
    reporter = Reporter(progress)
    reporter.start("fit", STEPS)
    for step in range(done + 1, STEPS + 1):
        time.sleep(0.04)
        temporary = checkpoint.with_suffix(".tmp")
        temporary.write_text(json.dumps({"done": step}))
        temporary.replace(checkpoint)
        reporter.step(step, loss=1.0 / step, psnr=20.0 + step, gpu_mem_mb=float("nan"))
    return quick(_request, folder, progress, resume, steps=STEPS, first=done + 1)


def quick(_request, folder, progress, _resume, **metrics):
    """Write three outputs and a preview at once."""
    reporter = Reporter(progress)
    reporter.start("mesh", 1)
    (folder.output / "volume.nrrd").write_bytes(b"NRRD" * 1000)
    (folder.output / "mesh.vtp").write_bytes(b"<VTKFile/>")
    (folder.output / "preview.png").write_bytes(b"PNG")
    reporter.step(1)
    return {"metrics": {"psnr": 31.5, **metrics}, "timings": {"fit_s": 1.5}, "versions": {"torch": "none"}}


def large(_request, folder, progress, resume):
    """Outputs of 128 MiB."""
    result = quick(_request, folder, progress, resume)
    with (folder.output / "uncertainty.nrrd").open("wb") as stream:
        stream.truncate(128 << 20)
    return result


def no_memory(*_):
    """As numpy does."""
    raise MemoryError("Unable to allocate 12.0 GiB for an array with shape (9, 9) and data type float32")


def no_gpu_memory(*_):
    """As torch does."""
    raise RuntimeError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.25 GiB is free. Process 1"
    )


def disk_full(_request, folder, progress, _resume):
    """Write more than the system lets this process write."""
    import resource

    Reporter(progress).start("write")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    (folder.output / "volume.nrrd").write_bytes(bytes(1 << 20))


def crash(_request, _folder, progress, _resume):
    """Die in native code."""
    Reporter(progress).start("fit", 10)
    os.kill(os.getpid(), signal.SIGSEGV)


def deaf(_request, _folder, progress, _resume):
    """Work for a minute without reporting any progress."""
    Reporter(progress).start("prior")
    time.sleep(60)


def native(_request, folder, progress, _resume):
    """Be inside a library call that no Python signal handler interrupts, with a child."""
    _spawn(folder.path, ["child"])
    Reporter(progress).start("prior")
    libc = ctypes.CDLL(None)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            libc.usleep(900_000)
        except KeyboardInterrupt:
            continue


def noisy(request, folder, progress, resume):
    """Print garbage to standard output and error, and into the events, half-written lines included."""
    sys.stdout.buffer.write(b"\xff\xfe garbage {\n[1, 2\nnull\n")
    sys.stdout.flush()
    sys.stderr.write("Traceback (most recent call last): not really\n")
    with folder.events_file.open("ab") as stream:
        stream.write(b'\x00\xff\n{"stage": 7}\n[]\n{"stage":"fit","step":' + b"9" * 200_000 + b"\n" + b'{"stage":"fit","step":')
    return quick(request, folder, progress, resume)


def nothing(*_):
    """End without any output."""
    return {}


def missing_package(*_):
    """As a Python without the package does."""
    import package_that_nobody_has  # noqa: F401 the import is to fail


def stubborn(path: Path) -> int:
    """Ignore the cancel file and SIGTERM, with a child in the group, a grandchild, and one that left the session."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nested = f"import subprocess, time; p = subprocess.Popen({SLEEP!r}); print(p.pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", nested], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    grandchild = int(parent.stdout.readline())
    stray = subprocess.Popen(SLEEP, start_new_session=True)
    (path / "children.json").write_text(json.dumps([parent.pid, grandchild, stray.pid]))
    _emit(path, {"stage": "fit", "step": 1, "total": 9})
    while True:
        time.sleep(0.2)
        _emit(path, {"stage": "fit", "level": "heartbeat"})


def polite_with_stray(path: Path) -> int:
    """Obey the cancel file, and leave a child of another session behind."""
    stray = subprocess.Popen(SLEEP, start_new_session=True)
    same_group = subprocess.Popen(SLEEP)
    (path / "children.json").write_text(json.dumps([stray.pid, same_group.pid]))
    _emit(path, {"stage": "fit", "step": 1, "total": 9})
    while not (path / "cancel.request").exists():
        time.sleep(0.02)
    return 4


def silent(path: Path) -> int:
    """Say one thing, then nothing for 1.5 s, then end as it should not."""
    _emit(path, {"stage": "fit", "step": 1, "total": 9})
    time.sleep(1.5)
    _emit(path, {"stage": "fit", "step": 2, "total": 9})
    time.sleep(60)
    return 0


def lying(_path: Path) -> int:
    """Claim success without a result."""
    return 0


def failing_with_result(path: Path) -> int:
    """Leave a valid result, and an exit code that says no."""
    run_job(path, quick)
    return 1


def tampering(path: Path) -> int:
    """Change an output after the manifest was written."""
    code = run_job(path, quick)
    (path / "output" / "mesh.vtp").write_bytes(b"<VTKfile/>")
    return code


def _emit(path: Path, event: dict) -> None:
    with (path / "events.jsonl").open("a") as stream:
        stream.write(json.dumps(event) + "\n")


def _spawn(path: Path, names: list) -> None:
    pids = [subprocess.Popen(SLEEP).pid for _ in names]
    (path / "children.json").write_text(json.dumps(pids))


RECONSTRUCTIONS = (train, quick, no_memory, large, no_gpu_memory, disk_full, crash, deaf, native, noisy, nothing, missing_package)
RAW = (stubborn, polite_with_stray, silent, lying, failing_with_result, tampering)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    wanted, job = sys.argv[1], Path(sys.argv[2])
    for behaviour in RAW:
        if behaviour.__name__ == wanted:
            sys.exit(behaviour(job))
    for behaviour in RECONSTRUCTIONS:
        if behaviour.__name__ == wanted:
            sys.exit(run_job(job, behaviour))
    sys.exit(f"no behaviour {wanted}")
