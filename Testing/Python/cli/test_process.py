"""``medgs reconstruct`` as a real process on a small phantom: events, cancelling, being killed, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from MedGSLib.demo import write_inputs
from MedGSLib.phantom import Acquisition, make_aneurysm

ROOT = Path(__file__).resolve().parents[3]
RESULTS = (
    "volume.nrrd",
    "occupancy.nrrd",
    "segmentation.nrrd",
    "mesh.vtp",
    "mesh.stl",
    "mesh.ply",
    "model.medgs",
    "report.json",
    "preview.png",
)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    write_inputs(make_aneurysm(acquisition=Acquisition(size=(40, 40, 12), pixel_mm=2.6, gap_mm=10.0)), folder)
    return folder


def command(case: Path, output: Path, *more: str) -> list[str]:
    line = [sys.executable, "-m", "MedGSLib.cli", "reconstruct", str(case / "ct.nrrd"), "--mask", str(case / "aneurysm.seg.nrrd")]
    line += ["-o", str(output), "--preset", "fast", "--gaussians", "2500", "--scale", "3", "--device", "cpu", "--threads", "1"]
    return [*line, "--json-events", *more]


def start(line: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_fit(process: subprocess.Popen[str], steps: int) -> None:
    for line in process.stdout:
        event = json.loads(line)
        if event["stage"] == "fit" and event["step"] >= steps:
            return
    pytest.fail(f"The fit never came: {process.stderr.read()}")


def test_every_line_is_an_event_and_every_result_is_there(case, tmp_path):
    done = subprocess.run(command(case, tmp_path / "out", "--iterations", "30"), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"prior", "fit", "render", "surface", "write"} <= {event["stage"] for event in events}
    assert events[-1]["stage"] == "result"
    fit = [event for event in events if event["stage"] == "fit" and event["step"]]
    assert [event["step"] for event in fit] == sorted(event["step"] for event in fit) and fit[-1]["step"] == 30
    assert all("eta_s" in event for event in fit[1:])
    assert [name for name in RESULTS if not (tmp_path / "out" / name).is_file()] == []
    assert not (tmp_path / "out" / "checkpoint").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_cancelled_run_leaves_no_results_and_resumes(case, tmp_path):
    output = tmp_path / "out"
    process = start(command(case, output, "--mode", "mask", "--iterations", "1000"))
    wait_for_fit(process, 100)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 4 and err.endswith("medgs: Cancelled on request.\n")
    assert json.loads(out.splitlines()[-1])["exit_code"] == 4
    assert [name for name in RESULTS if (output / name).exists()] == []
    assert list(output.rglob(".partial-*")) == []
    resumed = subprocess.run(
        command(case, output, "--mode", "mask", "--iterations", "1000", "--resume"), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((output / "report.json").read_text())["fit"]["resumed_from"] >= 100


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_full_disk_is_one_sentence(case, tmp_path):
    # A limit on the size of files stands for a full disk: the write fails in the middle.
    script = f"ulimit -f 64; exec {' '.join(command(case, tmp_path / 'out', '--mode', 'mask', '--iterations', '5'))}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.startswith("medgs: ") and done.stderr.count("\n") == 1
    assert list((tmp_path / "out").rglob(".partial-*")) == [] and not (tmp_path / "out" / "report.json").exists()
