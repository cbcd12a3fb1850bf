"""What the worker's Python has, which backend it would use and why; asked by the panel before anything is run.

Imports nothing heavy itself: torch, numba and gsplat are tried inside :func:`probe`, which reports what fails and never raises.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from contextlib import redirect_stdout
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional

from MedGSLib import __version__
from MedGSLib.job.gpu import query_gpu
from MedGSLib.memory import total_bytes

OLDEST_PYTHON = (3, 10)
GPU_BACKEND = "gsplat_cuda"
_MB = 1 << 20


def probe(disk: Optional[Path] = None) -> Dict[str, Any]:
    """The facts of this Python and this machine; see the keys below. Nothing is compiled and nothing is downloaded.

    :param disk: folder whose free space counts; by default the current one.
    :return: plain values ready for JSON; a part that cannot be found out is None, and ``<part>_error`` says why.
    """
    facts: Dict[str, Any] = {
        "schema": 1,
        "medgs": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
    }
    with redirect_stdout(sys.stderr):
        for name, part in (("ram", _memory), ("disk", lambda: _disk(disk)), ("driver", _driver), ("torch", _torch), ("numba", _numba)):
            facts.update(_guarded(name, part))
        facts.update(_guarded("gsplat", lambda: _gsplat(bool(facts.get("cuda_available")))))
        facts.update(_guarded("backend", lambda: _backend(bool(facts.get("gsplat_error")))))
    return facts


def is_ready(facts: Mapping[str, Any]) -> bool:
    """Whether a job can be run in the probed Python."""
    return not facts.get("error") and _version(facts.get("python")) >= OLDEST_PYTHON and bool(facts.get("torch") and facts.get("backend"))


def one_line(facts: Mapping[str, Any]) -> str:
    """The facts as one line for the panel, with the reason, e.g. ``GPU: NVIDIA RTX 4070 (12 GB), gsplat ready``."""
    if facts.get("error"):
        return f"Not ready: {facts['error']}"
    if _version(facts.get("python")) < OLDEST_PYTHON:
        return f"Not ready: Python {facts.get('python')} is too old, 3.10 or newer is needed"
    if not facts.get("torch"):
        return "Not ready: PyTorch is not installed" if not facts.get("torch_error") else f"Not ready: {facts['torch_error']}"
    if facts.get("backend") == GPU_BACKEND:
        ready = "gsplat ready" if facts.get("gsplat_kernels") else "gsplat builds its kernels on first use, which takes some minutes"
        return f"GPU: {_card(facts)}, {ready}"
    if not facts.get("backend"):
        return f"Not ready: {facts.get('backend_error') or 'no rasterizer works'}"
    return f"CPU: {_why_no_gpu(facts)}"


def _why_no_gpu(facts: Mapping[str, Any]) -> str:
    if not facts.get("driver"):
        return "no CUDA driver"
    if not facts.get("cuda"):
        return f"{_card(facts)} found, but this PyTorch has no CUDA"
    if not facts.get("cuda_available"):
        return f"{_card(facts)} found, but {facts.get('cuda_error') or 'CUDA does not start'}"
    if not facts.get("gsplat"):
        return f"{_card(facts)} found, but gsplat is not installed"
    if not facts.get("gsplat_kernels"):
        return f"{_card(facts)} found, but {facts.get('gsplat_error') or 'the kernels of gsplat are not built and cannot be'}"
    return str(facts.get("reason") or "chosen")


def _card(facts: Mapping[str, Any]) -> str:
    memory = facts.get("gpu_memory_mb")
    return f"{facts.get('gpu') or 'NVIDIA card'}" + (f" ({memory / 1024:.0f} GB)" if memory else "")


def _guarded(name: str, part: Callable[[], Dict[str, Any]]) -> Dict[str, Any]:
    try:
        return part()
    except Exception as error:  # noqa: BLE001 the probe is there to report what fails
        return {name: None, f"{name}_error": f"{type(error).__name__}: {_first_line(error)}"}


def _memory() -> Dict[str, Any]:
    return {"ram_mb": total_bytes() // _MB}


def _disk(folder: Optional[Path]) -> Dict[str, Any]:
    return {"disk_free_mb": shutil.disk_usage(folder or Path.cwd()).free // _MB}


def _driver() -> Dict[str, Any]:
    gpu = query_gpu()
    if gpu is None:
        return {"driver": None, "gpu": None, "gpu_memory_mb": None, "compute_capability": None}
    capability = ".".join(map(str, gpu.compute_capability))
    return {"driver": gpu.driver, "gpu": gpu.name, "gpu_memory_mb": gpu.memory_mb, "compute_capability": capability}


def _torch() -> Dict[str, Any]:
    if util.find_spec("torch") is None:
        return {"torch": None, "cuda": None, "cuda_available": False}
    torch = import_module("torch")
    facts: Dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda, "cuda_available": False}
    if torch.version.cuda is None:
        return facts
    try:
        if torch.cuda.is_available():
            facts.update(_cuda_device(torch))
        else:
            torch.cuda.init()
    except Exception as error:  # noqa: BLE001 the probe is there to report what fails
        facts["cuda_error"] = _first_line(error)
    return facts


def _cuda_device(torch: Any) -> Dict[str, Any]:
    """A sum on the card tells whether this build of PyTorch has programs for it."""
    free, total = torch.cuda.mem_get_info()
    works = float((torch.ones(4, device="cuda") * 2).sum()) == 8.0
    return {
        "cuda_available": works,
        "gpu": torch.cuda.get_device_name(),
        "gpu_memory_mb": total // _MB,
        "gpu_free_mb": free // _MB,
        "compute_capability": ".".join(map(str, torch.cuda.get_device_capability())),
    }


def _numba() -> Dict[str, Any]:
    return {"numba": import_module("numba").__version__ if util.find_spec("numba") else None}


def _gsplat(cuda_works: bool) -> Dict[str, Any]:
    try:
        version = metadata.version("gsplat")
    except metadata.PackageNotFoundError:
        return {"gsplat": None, "gsplat_kernels": False}
    facts: Dict[str, Any] = {"gsplat": version, "gsplat_kernels": False}
    if not cuda_works:
        return facts
    try:
        if not _has_kernels():
            return facts
        facts["gsplat_kernels"] = import_module("gsplat.cuda._backend")._C is not None
    except Exception as error:  # noqa: BLE001 the probe is there to report what fails
        facts["gsplat_error"] = _first_line(error)
    return facts


def _has_kernels() -> bool:
    """Whether gsplat's kernels came ready-made or were built before, so that loading them builds nothing for minutes."""
    if util.find_spec("gsplat.csrc") is not None:
        return True
    extensions = import_module("torch.utils.cpp_extension")
    return any(Path(extensions._get_build_directory("gsplat_cuda", False)).glob("gsplat_cuda*.[sp][oy]*"))


def _backend(kernels_broken: bool) -> Dict[str, Any]:
    """What "auto" would choose; said without loading gsplat's kernels, which could mean to build them."""
    raster = import_module("MedGSLib.raster")
    ready, reason = raster.gsplat_status()
    if ready and not kernels_broken:
        return {"backend": GPU_BACKEND, "reason": reason}
    rasterizer, reason = raster.choose_rasterizer("cpu" if ready else "auto")
    return {"backend": rasterizer.name, "reason": reason}


def _version(text: Any) -> tuple:
    return tuple(int(part) for part in str(text).split(".")[:2] if part.isdigit())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
