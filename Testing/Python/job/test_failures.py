"""Known failures become one sentence and one next step, from exceptions, exit codes and logs."""

from __future__ import annotations

import errno

import pytest

from MedGSLib.errors import BackendError, Cancelled, InputError, ResourceError
from MedGSLib.job.failures import explain_exception, explain_exit, explain_install


def numpy_memory_error() -> BaseException:
    """What numpy raises on this machine for an impossible array."""
    import numpy as np

    try:
        np.ones((1 << 50,), dtype=np.float64)
    except MemoryError as error:
        return error
    raise AssertionError("this machine has 8 PiB of memory")


@pytest.mark.parametrize(
    ("error", "code", "sentence", "step"),
    [
        (Cancelled(), 4, "Cancelled", "checkpoint"),
        (KeyboardInterrupt(), 4, "Cancelled", "checkpoint"),
        (InputError("The mask is empty."), 2, "The mask is empty.", "Change the input"),
        (ResourceError("The disk is full: volume.nrrd."), 3, "disk", "Free some"),
        (ResourceError("The GPU needs 9 GiB."), 3, "9 GiB", "Fast"),
        (BackendError("gsplat is not installed."), 1, "gsplat", "CPU"),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "disk is full", "Free some"),
        (MemoryError(), 3, "computer ran out of memory", "Fast"),
        (numpy_memory_error(), 3, "computer ran out of memory", "Fast"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
            3,
            "computer",
            "Fast",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 MiB"), 3, "graphics card ran out of memory", "smaller"),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), 1, "not built for this", "Repair"),
        (RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."), 1, "driver is too old", "Update"),
        (RuntimeError("CUDA driver version is insufficient for CUDA runtime version"), 1, "driver is too old", "Update"),
        (RuntimeError("Found no NVIDIA driver on your system."), 1, "No usable NVIDIA", "CPU"),
        (AssertionError("Torch not compiled with CUDA enabled"), 1, "No usable NVIDIA", "CPU"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), 1, "graphics card reported", "checkpoint"),
        (ModuleNotFoundError("No module named 'numba'"), 1, "lacks the package numba", "Environment"),
        (OSError("[WinError 126] Error loading c10.dll or one of its dependencies."), 1, "Visual C++", "Redistributable"),
        (ZeroDivisionError("division by zero\nsecond line"), 1, "ZeroDivisionError: division by zero", "log"),
    ],
)
def test_exceptions(error, code, sentence, step):
    failure = explain_exception(error)
    assert failure.exit_code == code and sentence in failure.sentence and step in failure.next_step
    assert failure.sentence.endswith(".") and "\n" not in failure.sentence


@pytest.mark.parametrize(
    ("code", "log", "sentence"),
    [
        (-9, "", "ended from outside"),
        (-9, "everything fine", "ended from outside"),
        (-11, "Fatal Python error", "crashed (SIGSEGV)"),
        (1, "ModuleNotFoundError: No module named 'torch'", "lacks the package torch"),
        (1, "  File x\nSyntaxError: invalid syntax", "too old"),
        (1, "", "ended without finishing"),
        (3, "", "memory or disk"),
        (3, "OSError: [Errno 28] No space left on device", "disk is full"),
        (4, "", "Cancelled"),
        (0xC0000135, "", "system library"),
        (0xC0000005 - (1 << 32), "", "crashed in a native library"),
        (None, "", "ended without finishing"),
    ],
)
def test_exit_codes_and_console(code, log, sentence):
    assert sentence in explain_exit(code, log).sentence


@pytest.mark.parametrize(
    ("log", "sentence", "step"),
    [
        ("error: Failed to fetch: `https://pypi.org/simple/uv/`\n  Caused by: dns error", "could not be reached", "offline folder"),
        ("NewConnectionError: [Errno -3] Temporary failure in name resolution", "could not be reached", "network"),
        ("OSError: Tunnel connection failed: 407 Proxy Authentication Required", "proxy refused", "user name"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "certificates", ".pem"),
        ("invalid peer certificate: UnknownIssuer", "certificates", "CA"),
        ("error: failed to write: No space left on device (os error 28)", "disk is full", "Free some"),
        ("error: failed to create directory: Permission denied (os error 13)", "may not be written", "another folder"),
        ("HTTP status client error (403 Forbidden) for url", "forbids the download", "offline"),
        ("ERROR: No matching distribution found for torch==2.4.0", "package torch", "complete"),
        ("something else", "failed at the step 'Install PyTorch'", "log"),
    ],
)
def test_installation_logs(log, sentence, step):
    failure = explain_install(log, "Install PyTorch")
    assert sentence in failure.sentence and step in failure.next_step
