"""How the worker is started: arguments, environment, options of each platform, process trees; and what the panel side imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from MedGSLib.job.detached import DetachedProcess, tail
from MedGSLib.job.folder import ProcessRecord
from MedGSLib.job.launch import LIBRARY_ROOT, WorkerCommand, clean_environment
from MedGSLib.job.process_tree import descendants, kill_tree, spawn_options, start_token

PANEL_MODULES = (
    "errors",
    "progress",
    "geometry",
    "volume",
    "job",
    "job.detached",
    "job.environment",
    "job.environment_install",
    "job.environment_plan",
    "job.events",
    "job.failures",
    "job.folder",
    "job.gpu",
    "job.launch",
    "job.probe",
    "job.process",
    "job.process_tree",
    "job.queue",
    "job.request",
    "job.result",
    "job.schema",
    "job.worker",
)


def test_panel_side_imports_only_the_standard_library_and_numpy():
    script = (
        "import importlib, json, sys\n"
        f"for name in {PANEL_MODULES!r}: importlib.import_module('MedGSLib.' + name)\n"
        "print(json.dumps([[name, getattr(module, '__file__', None) or ''] for name, module in sys.modules.items()]))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script], **_importing())
    installed = {name.partition(".")[0] for name, file in json.loads(done.stdout) if "site-packages" in file}
    assert installed == {"numpy"}, f"the panel side loads {installed}"
    listed = {f"job.{path.stem}" for path in (LIBRARY_ROOT / "MedGSLib" / "job").glob("*.py") if not path.stem.startswith("__")}
    assert listed <= set(PANEL_MODULES), f"not in the list above: {listed - set(PANEL_MODULES)}"


def _importing() -> dict:
    """Without site, only numpy's folder is on the path besides the library."""
    import numpy

    path = os.pathsep.join([str(LIBRARY_ROOT), str(Path(numpy.__file__).parents[1])])
    return {"env": {**os.environ, "PYTHONPATH": path}, "capture_output": True, "text": True, "check": True, "timeout": 30}


def test_environment_is_cleaned_of_slicer_and_python():
    slicer, system = str(Path("/opt/Slicer")), str(Path("/usr/bin"))
    base = {
        "PATH": os.pathsep.join([str(Path(slicer, "bin")), slicer, system, slicer + "-notes"]),
        "HOME": "/home/user",
        "SLICER_HOME": slicer,
        "PYTHONHOME": "/opt/Slicer/lib/Python",
        "PYTHONPATH": "/opt/Slicer/bin/Python",
        "PYTHONNOUSERSITE": "1",
        "LD_LIBRARY_PATH": "/opt/Slicer/lib",
        "DYLD_LIBRARY_PATH": "/x",
        "QT_PLUGIN_PATH": "/opt/Slicer/lib/QtPlugins",
        "ITK_AUTOLOAD_PATH": "/x",
        "VIRTUAL_ENV": "/x",
        "CUDA_VISIBLE_DEVICES": "1",
        "HTTPS_PROXY": "http://proxy:8080",
        "SSL_CERT_FILE": "/opt/Slicer/bin/../share/Slicer-5.12/Slicer.crt",
        "REQUESTS_CA_BUNDLE": "/etc/hospital.pem",
    }
    cleaned = clean_environment(base, {"EXTRA": "1"})
    kept = {name for name in cleaned if name in base}
    assert kept == {"PATH", "HOME", "CUDA_VISIBLE_DEVICES", "HTTPS_PROXY", "REQUESTS_CA_BUNDLE"}
    assert clean_environment({"SSL_CERT_FILE": "/etc/hospital.pem", "SLICER_HOME": slicer})["SSL_CERT_FILE"] == "/etc/hospital.pem"
    assert cleaned["PATH"] == os.pathsep.join([system, slicer + "-notes"])
    assert cleaned["EXTRA"] == "1" and cleaned["PYTHONUTF8"] == "1"
    assert base["PYTHONHOME"], "the variables of the panel's own process are not touched"


def test_worker_runs_this_library_whatever_the_folder_and_the_variables(tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong queue')")
    (tmp_path / "MedGSLib.py").write_text("raise SystemExit('the wrong library')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    command = WorkerCommand(Path(sys.executable))
    done = subprocess.run(
        command.argv("worker", "x", "y"), cwd=tmp_path, env=command.environ(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "worker JOBDIR" in done.stderr, done.stderr


def test_spawn_options_of_each_platform():
    assert spawn_options("linux") == spawn_options("darwin") == {"start_new_session": True}
    flags = spawn_options("win32")["creationflags"]
    assert flags & 0x200 and flags & 0x08000000, "own process group, no console window"


def test_windows_kills_the_tree_with_taskkill():
    calls = []
    kill_tree(4321, platform="win32", run=lambda argv, **options: calls.append((argv, options)))
    ((argv, options),) = calls
    assert argv == ["taskkill", "/PID", "4321", "/T", "/F"] and not options.get("shell") and options["timeout"] > 0
    assert options["creationflags"] == 0x08000000, "no console window flashes up"


def test_start_token_tells_processes_apart():
    assert start_token(os.getpid()) == start_token(os.getpid()) is not None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    token = start_token(child.pid)
    assert token is not None and token != start_token(os.getpid())
    assert ProcessRecord.of(child.pid).is_alive()
    assert not ProcessRecord(child.pid, token, "another-host").is_alive()
    assert not ProcessRecord(child.pid, "another boot:1", ProcessRecord.of(child.pid).host).is_alive()
    record = ProcessRecord.of(child.pid)
    child.kill()
    time.sleep(0.1)
    assert not record.is_alive(), "a zombie is not alive"
    child.wait()
    assert start_token(0) is None and start_token(-1) is None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_descendants_are_those_that_psutil_finds():
    nested = "subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)"
    script = f"import subprocess, sys; p = {nested}; print(p.pid, flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        assert {pid for pid, _ in descendants(os.getpid())} == {process.pid for process in psutil.Process().children(recursive=True)}
    finally:
        kill_tree(child.pid)
        for process in psutil.Process().children(recursive=True):
            process.kill()
        child.wait()


def test_detached_process_gets_exactly_its_arguments_and_variables(tmp_path):
    awkward = ["$HOME", "a b", '"', "';|&", "ä"]
    script = (
        "import sys, os, json; print(json.dumps([sys.argv[1:], os.environ.get('MARK'), os.getsid(0) == os.getpid()], ensure_ascii=False))"
    )
    environment = clean_environment(extra={"MARK": "yes"})
    process = DetachedProcess.start([sys.executable, "-c", script, *awkward], tmp_path, tmp_path / "console.log", environment)
    assert process.wait(10.0) and process.exit_code == 0
    assert json.loads(tail(tmp_path / "console.log")) == [awkward, "yes", True]


def test_tail_of_a_missing_or_binary_file(tmp_path):
    assert tail(tmp_path / "none") == ""
    (tmp_path / "log").write_bytes(b"x" * 100 + b"\xff end")
    assert tail(tmp_path / "log", 5).endswith(" end")
