"""What an installation of the private environment would do: the PyTorch build that fits the machine, and every command to be run."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple
from urllib.parse import urlsplit

from MedGSLib.errors import InputError
from MedGSLib.job.environment import ManagedEnvironment
from MedGSLib.job.gpu import GpuFacts
from MedGSLib.job.launch import WorkerCommand, clean_environment

PYTHON_VERSION = "3.10"
"""gsplat publishes ready-made wheels for CPython 3.10 only."""

REQUIREMENTS = (
    "numpy>=1.26",
    "scipy>=1.11",
    "numba>=0.60",
    "llvmlite",
    "SimpleITK>=2.3",
    "pydicom>=2.4",
    "vtk>=9.3",
    "scikit-image>=0.22",
    "scikit-learn>=1.4",
    "opencv-python-headless>=4.9",
    "safetensors>=0.4.3",
    "filelock>=3.12",
    "matplotlib>=3.8",
    "pillow>=10",
    "rich>=13.7",
)
"""The worker's packages besides PyTorch, as in pyproject.toml."""

GSPLAT_REQUIREMENTS = ("jaxtyping", "ninja")
PYTORCH_INDEX = "https://download.pytorch.org/whl"
GSPLAT_INDEX = "https://docs.gsplat.studio/whl"
LONGEST_WINDOWS_ROOT = 100
_GB = 1000


@dataclass(frozen=True)
class TorchBuild:
    """A combination of PyTorch, CUDA and gsplat that exists ready-made, its rough sizes, and why it was chosen."""

    tag: str
    torch: str
    gsplat: Optional[str]
    download_mb: int
    disk_mb: int
    reason: str

    @property
    def index(self) -> str:
        """Where its PyTorch is downloaded from."""
        return f"{PYTORCH_INDEX}/{self.tag}"


@dataclass(frozen=True)
class InstallOptions:
    """How the site's network is got through, or around.

    :ivar proxy: ``http://[user:password@]host:port``, or empty for the system's settings.
    :ivar ca_file: certificates (.pem) of a network that replaces those of web sites.
    :ivar offline_folder: wheels, and in its subfolder ``python`` the archive of CPython for uv; nothing is downloaded then.
    :ivar base_python: an existing CPython (3.10 or newer) to build on with venv and pip, instead of uv and its CPython.
    """

    proxy: str = ""
    ca_file: Optional[Path] = None
    offline_folder: Optional[Path] = None
    base_python: Optional[Path] = None

    def check(self) -> None:
        """:raises InputError: if the proxy is no address, or a named file or folder does not exist."""
        if self.proxy:
            parts = urlsplit(self.proxy if "//" in self.proxy else f"//{self.proxy}")
            if parts.scheme not in ("http", "https", "socks5") or not parts.hostname:
                raise InputError("The proxy must look like http://host:port or http://user:password@host:port.")
        if self.ca_file is not None and not self.ca_file.is_file():
            raise InputError(f"The certificate file {self.ca_file} does not exist.")
        if self.offline_folder is not None and not any(self.offline_folder.glob("*.whl")):
            raise InputError(f"The offline folder {self.offline_folder} holds no wheels (.whl).")
        if self.base_python is not None and not self.base_python.is_file():
            raise InputError(f"There is no Python at {self.base_python}.")


@dataclass(frozen=True)
class InstallStep:
    """One program to run. An optional one may fail: the environment then works without what it adds."""

    title: str
    argv: Tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    optional: bool = False


@dataclass(frozen=True)
class InstallPlan:
    """Everything that an installation would do, to be shown before it is agreed to."""

    environment: ManagedEnvironment
    build: TorchBuild
    steps: Tuple[InstallStep, ...]
    offline: bool = False

    def summary(self) -> str:
        """Size, place and choice in two or three sentences, for the question to the user."""
        download = "from the offline folder" if self.offline else f"downloads about {self.build.download_mb / _GB:.1f} GB"
        return (
            f"Installs a private Python with PyTorch for MedGS: {download}, takes about {self.build.disk_mb / _GB:.1f} GB in "
            f"{self.environment.root}. {self.build.reason} Nothing else on this computer is changed, and Delete removes it completely."
        )


def choose_build(gpu: Optional[GpuFacts], system: str = sys.platform, machine: str = platform.machine()) -> TorchBuild:
    """The newest ready-made combination that runs on the machine.

    Wheels of gsplat: 1.5.3 for PyTorch 2.4 with CUDA 12.4, Linux and Windows on x86-64, compute capability 7.5 to 9 (its wheel index).
    CUDA 12 runs on drivers from 525 (Linux) and 528 (Windows) on (CUDA compatibility guide, minor version compatibility).
    """
    if gpu is None:
        return _cpu_build("No NVIDIA card with a working driver was found, so the computation runs on the processor.")
    if system == "darwin" or machine.lower() not in ("x86_64", "amd64"):
        return _cpu_build("There are no ready-made CUDA programs for this kind of computer, so the computation runs on the processor.")
    oldest = 528 if system == "win32" else 525
    if gpu.driver_major < oldest:
        reason = f"The NVIDIA driver {gpu.driver} is too old (at least {oldest} is needed), so the computation runs on the processor."
        return _cpu_build(f"{reason} Update the driver and press Repair to use the {gpu.name}.")
    if (7, 5) <= gpu.compute_capability < (10, 0):
        return TorchBuild("cu124", "2.4.0", "1.5.3+pt24cu124", 3300, 7000, f"It fits the {gpu.name}.")
    if gpu.compute_capability >= (10, 0):
        reason = f"There is no ready-made gsplat for the {gpu.name} yet, so the Gaussians are drawn on the processor."
        return TorchBuild("cu128", "2.9.1", None, 3900, 9000, reason)
    return _cpu_build(f"The {gpu.name} is too old for the ready-made CUDA programs, so the computation runs on the processor.")


def installation_plan(
    environment: ManagedEnvironment, bootstrap_python: Path, build: TorchBuild, options: Optional[InstallOptions] = None
) -> InstallPlan:
    """The commands that make the environment; nothing is run.

    :param bootstrap_python: a Python with pip that fetches uv into the environment's folder; it is itself left unchanged.
    :raises InputError: if an option is unusable, or the folder's path is too long for Windows.
    """
    options = options or InstallOptions()
    options.check()
    if sys.platform == "win32" and len(str(environment.root)) > LONGEST_WINDOWS_ROOT:
        raise InputError(
            f"The path of the environment is too long for Windows; choose a folder with less than {LONGEST_WINDOWS_ROOT} letters."
        )
    variables = _variables(environment, options)
    tools = _PipTools(environment, options) if options.base_python is not None else _UvTools(environment, options, bootstrap_python)
    commands: List[Tuple[str, List[str], bool]] = tools.python_steps()
    commands.append(("Install PyTorch", tools.install([f"torch=={build.torch}"], build.index), False))
    extra = GSPLAT_REQUIREMENTS if build.gsplat else ()
    commands.append(("Install the numerical packages", tools.install([*REQUIREMENTS, *extra], None), False))
    if build.gsplat:
        commands.append(("Install gsplat", tools.install(["--no-deps", f"gsplat=={build.gsplat}"], GSPLAT_INDEX), True))
    commands.append(("Check the installation", WorkerCommand(environment.python).argv("probe", "--strict"), False))
    steps = tuple(InstallStep(title, tuple(argv), variables, optional) for title, argv, optional in commands)
    return InstallPlan(environment, build, steps, offline=options.offline_folder is not None)


class _UvTools:
    """uv from PyPI, and the standalone CPython that it brings."""

    def __init__(self, environment: ManagedEnvironment, options: InstallOptions, bootstrap_python: Path) -> None:
        self._environment = environment
        self._offline = options.offline_folder
        self._bootstrap = bootstrap_python
        self._uv = str(environment.root / "installer" / "bin" / ("uv.exe" if sys.platform == "win32" else "uv"))

    def python_steps(self) -> List[Tuple[str, List[str], bool]]:
        get_uv = [str(self._bootstrap), "-m", "pip", "install", "--upgrade", "--no-deps", "--only-binary", ":all:"]
        get_uv += [*_offline_options(self._offline), "--target", str(self._environment.root / "installer"), "uv>=0.5"]
        get_python = [self._uv, "python", "install", PYTHON_VERSION, "--install-dir", str(self._environment.root / "python")]
        if self._offline is not None:
            get_python += ["--mirror", (self._offline / "python").resolve().as_uri()]
        venv = str(self._environment.root / "venv")
        return [
            ("Get the installer uv", get_uv, False),
            (f"Get Python {PYTHON_VERSION}", get_python, False),
            ("Make the environment", [self._uv, "venv", "--clear", "--python", PYTHON_VERSION, venv], False),
        ]

    def install(self, requirements: List[str], index: Optional[str]) -> List[str]:
        source = _offline_options(self._offline) or (["--default-index", index] if index else [])
        return [self._uv, "pip", "install", "--python", str(self._environment.python), "--only-binary", ":all:", *source, *requirements]


class _PipTools:
    """venv and pip of a Python that is already there."""

    def __init__(self, environment: ManagedEnvironment, options: InstallOptions) -> None:
        self._environment = environment
        self._offline = options.offline_folder
        self._base = options.base_python

    def python_steps(self) -> List[Tuple[str, List[str], bool]]:
        return [("Make the environment", [str(self._base), "-m", "venv", "--clear", str(self._environment.root / "venv")], False)]

    def install(self, requirements: List[str], index: Optional[str]) -> List[str]:
        source = _offline_options(self._offline) or (["--index-url", index] if index else [])
        return [str(self._environment.python), "-m", "pip", "install", "--only-binary", ":all:", *source, *requirements]


def _cpu_build(reason: str) -> TorchBuild:
    return TorchBuild("cpu", "2.9.1", None, 800, 2700, reason)


def _offline_options(folder: Optional[Path]) -> List[str]:
    return [] if folder is None else ["--no-index", "--find-links", str(folder)]


def _variables(environment: ManagedEnvironment, options: InstallOptions) -> Dict[str, str]:
    """Proxy passwords go here and not into the commands, which are shown and logged."""
    root = environment.root
    variables = {
        "UV_CACHE_DIR": str(root / "cache"),
        "UV_PYTHON_INSTALL_DIR": str(root / "python"),
        "UV_PYTHON_PREFERENCE": "only-managed",
        "UV_PYTHON_INSTALL_BIN": "0",
        "UV_PYTHON_INSTALL_REGISTRY": "0",
        "UV_SYSTEM_CERTS": "1",
        "UV_NATIVE_TLS": "1",
        "UV_NO_PROGRESS": "1",
        "UV_HTTP_TIMEOUT": "120",
        "PIP_CACHE_DIR": str(root / "cache" / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_PROGRESS_BAR": "off",
        "PYTHONNOUSERSITE": "1",
    }
    if options.proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            variables[name] = variables[name.lower()] = options.proxy
    if options.ca_file is not None:
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE"):
            variables[name] = str(options.ca_file)
    if options.offline_folder is not None:
        variables["UV_OFFLINE"] = "1"
    return clean_environment(os.environ, variables)
