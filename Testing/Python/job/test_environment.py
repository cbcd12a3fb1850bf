"""The private environment: plan, consent, a real offline installation, cancel, repair, damage, delete; and the probe."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from MedGSLib.errors import InputError, MedGSError, ResourceError
from MedGSLib.job import environment_install, environment_plan
from MedGSLib.job.detached import DetachedProcess
from MedGSLib.job.environment import EnvironmentProbe, ManagedEnvironment, PythonSource, resolve_interpreter
from MedGSLib.job.environment_install import Installer, InstallState, check_disk_space
from MedGSLib.job.environment_plan import InstallOptions, InstallPlan, InstallStep, TorchBuild, choose_build, installation_plan
from MedGSLib.job.gpu import GpuFacts, query_gpu
from MedGSLib.job.launch import WorkerCommand, clean_environment
from MedGSLib.job.probe import one_line, probe

PYTHON = Path(sys.executable)
TINY = TorchBuild("cpu", "1.0", None, 1, 1, "It is a test.")
RTX = GpuFacts("NVIDIA RTX 4070", "550.54", 12282, (8, 9))


def wheel(folder: Path, name: str, version: str = "1.0") -> Path:
    """A wheel with one module, made by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text)}")
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(inside, text)
    return path


def finish(installer: Installer, timeout_s: float = 300.0) -> str:
    """Poll to the end. :return: the log."""
    deadline = time.monotonic() + timeout_s
    log = ""
    while installer.state is InstallState.RUNNING:
        assert time.monotonic() < deadline, log
        log += installer.poll()
        time.sleep(0.02)
    return log + installer.poll()


def script_plan(root: Path, *scripts: str, optional: tuple = ()) -> InstallPlan:
    """A plan whose steps are little Python programs."""
    steps = tuple(
        InstallStep(f"step {index}", (str(PYTHON), "-c", script), clean_environment(), index in optional)
        for index, script in enumerate(scripts)
    )
    return InstallPlan(ManagedEnvironment(root), TINY, steps)


def test_requirements_are_those_of_the_project():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [line for line in project["dependencies"] if not line.startswith("torch")] == list(environment_plan.REQUIREMENTS)


@pytest.mark.parametrize(
    ("gpu", "system", "machine", "tag", "gsplat", "reason"),
    [
        (None, "linux", "x86_64", "cpu", False, "No NVIDIA card"),
        (RTX, "linux", "x86_64", "cu124", True, "RTX 4070"),
        (RTX, "win32", "AMD64", "cu124", True, "RTX 4070"),
        (RTX, "darwin", "arm64", "cpu", False, "no ready-made"),
        (RTX, "linux", "aarch64", "cpu", False, "no ready-made"),
        (GpuFacts("NVIDIA RTX 4070", "470.1", 1, (8, 9)), "linux", "x86_64", "cpu", False, "driver 470.1 is too old"),
        (GpuFacts("NVIDIA RTX 4070", "526.1", 1, (8, 9)), "win32", "AMD64", "cpu", False, "at least 528"),
        (GpuFacts("NVIDIA RTX 5090", "575.1", 1, (12, 0)), "linux", "x86_64", "cu128", False, "no ready-made gsplat"),
        (GpuFacts("Tesla K80", "535.1", 1, (3, 7)), "linux", "x86_64", "cpu", False, "too old for the ready-made"),
    ],
)
def test_build_fits_the_machine(gpu, system, machine, tag, gsplat, reason):
    build = choose_build(gpu, system, machine)
    assert build.tag == tag and (build.gsplat is not None) == gsplat and reason in build.reason and build.index.endswith(tag)


def nvidia_smi(stdout: str, code: int = 0, fail_on: str = "never"):
    """A stand-in for subprocess.run."""

    def run(argv, **_):
        assert argv[0] == "nvidia-smi"
        return SimpleNamespace(returncode=6 if fail_on in argv[1] else code, stdout="" if fail_on in argv[1] else stdout)

    return run


def missing_program(*_, **__):
    """subprocess.run where there is no such program."""
    raise FileNotFoundError("nvidia-smi")


def test_gpu_facts_from_nvidia_smi():
    two = "NVIDIA H200, 570.133.20, 143771, 9.0\nNVIDIA T4, 570.133.20, 15360, 7.5\n"
    assert query_gpu(nvidia_smi(two)) == GpuFacts("NVIDIA H200", "570.133.20", 143771, (9, 0))
    assert query_gpu(nvidia_smi("Quadro, 390.1, 4096\n", fail_on="compute_cap")) == GpuFacts("Quadro", "390.1", 4096)
    assert query_gpu(missing_program) is None
    assert query_gpu(nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver", 9)) is None
    assert query_gpu(nvidia_smi("")) is None and query_gpu(nvidia_smi("x, y, z\n")) is None


def test_plan_names_every_command_and_keeps_passwords_out_of_them(tmp_path):
    (tmp_path / "ca.pem").write_text("x")
    options = InstallOptions(proxy="http://user:secret@proxy:8080", ca_file=tmp_path / "ca.pem")
    plan = installation_plan(
        ManagedEnvironment(tmp_path / "env"), Path("/slicer/PythonSlicer"), choose_build(RTX, "linux", "x86_64"), options
    )
    commands = [step.argv for step in plan.steps]
    uv = str(tmp_path / "env" / "installer" / "bin" / ("uv.exe" if sys.platform == "win32" else "uv"))
    assert commands[0][:4] == ("/slicer/PythonSlicer", "-m", "pip", "install") and "--target" in commands[0]
    assert commands[1][:5] == (uv, "python", "install", "3.10", "--install-dir")
    assert commands[2][:2] == (uv, "venv")
    assert "torch==2.4.0" in commands[3] and "https://download.pytorch.org/whl/cu124" in commands[3]
    assert "numba>=0.60" in commands[4] and "jaxtyping" in commands[4]
    assert "gsplat==1.5.3+pt24cu124" in commands[5] and [step.optional for step in plan.steps] == [False] * 5 + [True, False]
    assert commands[-1][-2:] == ("probe", "--strict")
    for step in plan.steps:
        assert "secret" not in " ".join(step.argv) and "secret" not in repr(step)
        assert step.environment["HTTPS_PROXY"].endswith("@proxy:8080") and step.environment["SSL_CERT_FILE"].endswith("ca.pem")
        assert step.environment["UV_CACHE_DIR"].startswith(str(tmp_path / "env"))
    assert "3.3 GB" in plan.summary() and "7.0 GB" in plan.summary() and str(tmp_path / "env") in plan.summary()
    assert not (tmp_path / "env").exists(), "a plan does nothing"


def test_offline_plan_downloads_nothing(tmp_path):
    wheel(tmp_path / "wheels", "torch")
    options = InstallOptions(offline_folder=tmp_path / "wheels")
    plan = installation_plan(ManagedEnvironment(tmp_path / "env"), PYTHON, choose_build(None), options)
    for step in plan.steps:
        assert not any("http" in argument for argument in step.argv) and step.environment["UV_OFFLINE"] == "1"
    assert "--mirror" in plan.steps[1].argv and sum("--no-index" in step.argv for step in plan.steps) == 3
    assert "from the offline folder" in plan.summary()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (InstallOptions(proxy="proxy and port"), "proxy must look like"),
        (InstallOptions(proxy="ftp://proxy"), "proxy must look like"),
        (InstallOptions(ca_file=Path("/no/ca.pem")), "does not exist"),
        (InstallOptions(offline_folder=Path("/no/wheels")), "no wheels"),
        (InstallOptions(base_python=Path("/no/python")), "no Python"),
    ],
)
def test_unusable_options_are_refused(tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        installation_plan(ManagedEnvironment(tmp_path / "env"), PYTHON, TINY, options)


@pytest.mark.parametrize("consent", [False, None, 0, 1, "yes"])
def test_nothing_happens_without_consent(tmp_path, consent):
    started = []
    installer = Installer(script_plan(tmp_path / "env", "pass"), start_process=lambda *args: started.append(args))
    with pytest.raises(MedGSError, match="consent"):
        installer.start(consent) if consent is not None else installer.start()
    assert not started and not (tmp_path / "env").exists() and installer.state is InstallState.IDLE


def test_real_offline_installation_damage_and_delete(tmp_path, monkeypatch):
    """venv and pip for real, from a folder of hand-made wheels, with the network switched off."""
    wheels = tmp_path / "wheels"
    wheel(wheels, "torch")
    wheel(wheels, "tinynumbers", "2.5")
    monkeypatch.setattr(environment_plan, "REQUIREMENTS", ("tinynumbers>=2",))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    environment = ManagedEnvironment(tmp_path / "env with blank ü")
    plan = installation_plan(environment, PYTHON, TINY, InstallOptions(offline_folder=wheels, base_python=PYTHON))
    assert [step.title for step in plan.steps][0] == "Make the environment" and len(plan.steps) == 4
    importable = "import torch, tinynumbers; print('checked', tinynumbers.__version__)"
    check = InstallStep("Check", (str(environment.python), "-c", importable), plan.steps[0].environment)
    plan = InstallPlan(environment, TINY, (*plan.steps[:-1], check), offline=True)

    installer = Installer(plan)
    installer.start(consent=True)
    log = finish(installer)
    assert installer.state is InstallState.SUCCEEDED, log
    assert "checked 2.5" in log and "=== Install PyTorch" in log and installer.progress == 1.0
    assert environment.is_ready() and environment.packages()["tinynumbers"] == "2.5" and environment.size_bytes() > 1000
    environment.check()
    assert resolve_interpreter(None, environment, PYTHON).source is PythonSource.MANAGED

    next(environment.root.glob("venv/[lL]ib/**/tinynumbers-*.dist-info/RECORD")).write_text("changed")
    with pytest.raises(MedGSError, match="changed after its installation"):
        environment.check()
    environment.delete()
    assert not environment.root.exists()
    with pytest.raises(InputError, match="press Install"):
        resolve_interpreter(None, environment, None)


def test_repair_takes_the_record_away_first_and_writes_it_last(tmp_path):
    environment = ManagedEnvironment(tmp_path / "env")
    environment.python.parent.mkdir(parents=True)
    environment.python.touch()
    (environment.root / "medgs-environment.txt").touch()
    plan = script_plan(environment.root, "import time; time.sleep(0.3)")
    for _ in range(2):
        installer = Installer(plan)
        installer.start(consent=True)
        assert not environment.is_ready()
        finish(installer)
        assert environment.is_ready()
    failing = Installer(script_plan(environment.root, "raise SystemExit(1)"))
    failing.start(consent=True)
    finish(failing)
    assert not environment.is_ready()
    with pytest.raises(MedGSError, match="not installed completely"):
        environment.check()


def test_failed_step_stops_and_is_explained(tmp_path):
    script = "import sys; print('error: dns error: failed to lookup address'); sys.exit(2)"
    installer = Installer(script_plan(tmp_path / "env", "print('one')", script, "print('never')"))
    installer.start(consent=True)
    log = finish(installer)
    assert installer.state is InstallState.FAILED and installer.failure is not None
    assert "could not be reached" in installer.failure.sentence and "offline folder" in installer.failure.next_step
    assert "one" in log and "never" not in log and not ManagedEnvironment(tmp_path / "env").is_ready()


def test_failed_optional_step_leaves_a_warning(tmp_path):
    installer = Installer(script_plan(tmp_path / "env", "import sys; sys.exit(1)", "print('on')", optional=(0,)))
    installer.start(consent=True)
    assert "on" in finish(installer) and installer.state is InstallState.SUCCEEDED
    assert len(installer.warnings) == 1 and "'step 0' failed and was left out" in installer.warnings[0]


def test_program_that_cannot_be_started_is_a_failure(tmp_path):
    plan = InstallPlan(ManagedEnvironment(tmp_path / "env"), TINY, (InstallStep("x", (str(tmp_path / "no"),), clean_environment()),))
    installer = Installer(plan)
    installer.start(consent=True)
    assert installer.state is InstallState.FAILED and installer.failure is not None and "cannot be started" in installer.failure.sentence


def test_installation_can_be_cancelled_with_its_children(tmp_path):
    child = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print('ready', flush=True)"
    )
    import psutil

    others = set(psutil.Process().children(recursive=True))
    installer = Installer(script_plan(tmp_path / "env", child + "; time.sleep(60)", "pass"))
    installer.start(consent=True)
    log = ""
    while "ready" not in log:
        log += installer.poll()
        time.sleep(0.02)
    ours = set(psutil.Process().children(recursive=True)) - others
    before = time.monotonic()
    installer.cancel()
    assert time.monotonic() - before < 2.0 and installer.state is InstallState.CANCELLED
    psutil.wait_procs(ours, timeout=1.0)
    assert not [process for process in ours if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not ManagedEnvironment(tmp_path / "env").is_ready() and "Cancelled" in installer.failure.sentence


def test_disk_space_is_checked_first(tmp_path):
    check_disk_space(tmp_path / "not" / "yet" / "there", 1)
    with pytest.raises(ResourceError, match="GB free and the environment needs"):
        check_disk_space(tmp_path, 10**9)
    plan = InstallPlan(ManagedEnvironment(tmp_path / "env"), TorchBuild("cpu", "1", None, 1, 10**9, ""), ())
    with pytest.raises(ResourceError):
        Installer(plan).start(consent=True)
    assert not (tmp_path / "env").exists()


def test_foreign_folders_are_neither_used_nor_deleted(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    environment = ManagedEnvironment(tmp_path)
    with pytest.raises(InputError, match="holds other files"):
        Installer(InstallPlan(environment, TINY, ())).start(consent=True)
    with pytest.raises(InputError, match="left alone"):
        environment.delete()
    assert (tmp_path / "precious.txt").read_text() == "x"
    ManagedEnvironment(tmp_path / "nothing").delete()


def test_delete_removes_read_only_files_and_does_not_follow_links(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("x")
    environment = ManagedEnvironment(tmp_path / "env")
    environment.own()
    (environment.root / "link").symlink_to(outside)
    (environment.root / "read only").write_text("x")
    (environment.root / "read only").chmod(0o400)
    environment.delete()
    assert not environment.root.exists() and (outside / "precious.txt").exists()


def test_interpreter_order(tmp_path):
    missing = ManagedEnvironment(tmp_path / "env")
    assert resolve_interpreter(PYTHON, missing, PYTHON).source is PythonSource.NAMED
    assert resolve_interpreter(None, missing, PYTHON).source is PythonSource.SLICER
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").write_text("")
    assert resolve_interpreter(tmp_path / "venv").path == folder / "python"
    with pytest.raises(InputError, match="There is no Python at"):
        resolve_interpreter(tmp_path / "gone", missing, PYTHON)


def test_probe_never_raises_whatever_is_broken(monkeypatch):
    def broken(name):
        raise OSError(f"[WinError 126] {name} cannot be loaded")

    monkeypatch.setattr("MedGSLib.job.probe.import_module", broken)
    monkeypatch.setattr("MedGSLib.job.probe.util.find_spec", lambda _: object())
    monkeypatch.setattr("MedGSLib.job.probe.query_gpu", lambda: broken("driver"))
    facts = probe(Path("/no/such/folder"))
    json.dumps(facts)
    assert facts["torch"] is None and "WinError 126" in facts["torch_error"] and facts["backend"] is None
    assert one_line({**facts, "python": "3.10.1"}).startswith("Not ready: OSError")


READY = {"python": "3.10.4", "torch": "2.4.0+cu124", "cuda": "12.4", "cuda_available": True, "driver": "550", "gpu": "NVIDIA RTX 4070"}
READY.update(gpu_memory_mb=12282, gsplat="1.5.3", gsplat_kernels=True, backend="gsplat_cuda", reason="r")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "GPU: NVIDIA RTX 4070 (12 GB), gsplat ready"),
        ({"gsplat_kernels": False}, "builds its kernels on first use"),
        ({"backend": "cpu", "driver": None}, "CPU: no CUDA driver"),
        ({"backend": "cpu", "cuda": None}, "CPU: NVIDIA RTX 4070 (12 GB) found, but this PyTorch has no CUDA"),
        ({"backend": "cpu", "cuda_available": False, "cuda_error": "no kernel image"}, "no kernel image"),
        ({"backend": "cpu", "gsplat": None, "gsplat_kernels": False}, "gsplat is not installed"),
        ({"backend": "cpu", "gsplat_kernels": False, "gsplat_error": "undefined symbol"}, "undefined symbol"),
        ({"torch": None}, "Not ready: PyTorch is not installed"),
        ({"torch": None, "torch_error": "DLL load failed"}, "Not ready: DLL load failed"),
        ({"python": "3.9.10"}, "Not ready: Python 3.9.10 is too old"),
        ({"error": "the worker's Python does not answer."}, "Not ready: the worker's Python"),
    ],
)
def test_one_line_says_what_will_be_used_and_why(change, line):
    assert line in one_line({**READY, **change})


def test_probe_runs_in_another_python_without_blocking(tmp_path):
    run = EnvironmentProbe(WorkerCommand(PYTHON), tmp_path / "probes")
    before = time.monotonic()
    run.start()
    assert run.poll() is None and time.monotonic() - before < 0.5
    while run.poll() is None:
        assert time.monotonic() - before < 60
        time.sleep(0.05)
    facts = run.poll()
    assert facts is not None and facts["medgs"] and facts["cpu_count"] and one_line(facts)
    if facts.get("torch") and not facts["cuda"]:
        assert facts["backend"] in ("cpu", "reference") and one_line(facts).startswith("CPU: ")


def test_unwanted_probe_is_ended(tmp_path):
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    run = EnvironmentProbe(WorkerCommand(slow), tmp_path)
    run.stop()
    run.start()
    run.stop()
    assert run._process is not None and run._process.wait(5.0)
    assert run.poll() == {"error": "stopped."}


def test_installation_without_pytorch_does_not_pass_the_check(tmp_path):
    environment = ManagedEnvironment(tmp_path / "env")
    wheel(tmp_path / "wheels", "nothing")
    options = InstallOptions(offline_folder=tmp_path / "wheels", base_python=PYTHON)
    check = installation_plan(environment, PYTHON, TINY, options).steps[-1]
    bare = InstallStep(check.title, (str(PYTHON), "-S", *check.argv[1:]), check.environment)
    installer = Installer(InstallPlan(environment, TINY, (bare,)))
    installer.start(consent=True)
    finish(installer)
    assert installer.state is InstallState.FAILED and installer.failure is not None
    assert "lacks the package" in installer.failure.sentence or "Check the installation" in installer.failure.sentence


def test_probe_of_a_python_that_cannot_run_it(tmp_path):
    run = EnvironmentProbe(WorkerCommand(tmp_path / "no python"), tmp_path)
    run.start()
    assert "cannot be started" in one_line(run.poll() or {})
    if sys.platform != "win32":
        fake = tmp_path / "python"
        fake.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'numpy'\" >&2\nexit 1\n")
        fake.chmod(0o755)
        run = EnvironmentProbe(WorkerCommand(fake), tmp_path)
        run.start()
        while run.poll() is None:
            time.sleep(0.02)
        assert "lacks the package numpy" in one_line(run.poll() or {})


def test_uv_is_asked_what_it_understands(tmp_path):
    """The options of the plan exist in the uv at hand; skipped where there is none."""
    import shutil

    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    plan = installation_plan(ManagedEnvironment(tmp_path / "env"), PYTHON, choose_build(RTX, "linux", "x86_64"))
    for step in plan.steps:
        if Path(step.argv[0]).stem == "uv":
            words = [argument for argument in step.argv[1:] if argument.startswith("--")]
            verbs = [argument for argument in step.argv[1:3] if argument in ("python", "venv", "pip", "install")]
            text = subprocess.run([uv, *verbs, "--help"], capture_output=True, text=True, check=True).stdout
            assert all(word in text for word in words), f"{words} of {step.title}"


def test_installer_starts_processes_like_the_controller_does():
    assert environment_install.Installer.__init__.__defaults__ == (DetachedProcess.start,)
