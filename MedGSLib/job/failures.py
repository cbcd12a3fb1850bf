"""Known ways to fail, each as one sentence and one next step: from exceptions in the worker, from exit codes and from logs."""

from __future__ import annotations

import errno
import re
import signal
import sys
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from MedGSLib.errors import EXIT_BAD_INPUT, EXIT_CANCELLED, EXIT_FAILURE, EXIT_NO_RESOURCES, BackendError, Cancelled, InputError, MedGSError

SEE_LOG = "Open the log for details, and send it along if you report the problem."
LESS_MEMORY = "Use the preset Fast, a smaller region of interest or a smaller scale."
REPAIR = "Open Advanced, Environment and press Repair."
FREE_DISK = "Free some disk space and press Reconstruct again; what was learnt so far is kept."
INSTALL_RUNTIME = "Install the Microsoft Visual C++ Redistributable (x64) and try again."
CHECK_DISK = "Free some disk space and try again."


@dataclass(frozen=True)
class Failure:
    """Why something failed, in one sentence, what to do next, and the exit code that it means."""

    sentence: str
    next_step: str = SEE_LOG
    exit_code: int = EXIT_FAILURE


@dataclass(frozen=True)
class _Rule:
    pattern: str
    sentence: str
    next_step: str
    exit_code: int = EXIT_FAILURE

    def apply(self, text: str) -> Optional[Failure]:
        """The failure where the pattern occurs; the last occurrence counts, since causes stand at the end of logs."""
        matches = list(re.finditer(self.pattern, text, re.IGNORECASE))
        if not matches:
            return None
        return Failure(self.sentence.format(**matches[-1].groupdict(default="")), self.next_step, self.exit_code)


_GPU_MEMORY_FIGURES = re.compile(
    r"Tried to allocate (?P<need>[\d.]+ [KMG]iB).*?total capacity of (?P<total>[\d.]+ [KMG]iB)"
    r"[^.]*?of which (?P<free>[\d.]+ [KMG]iB) is free",
    re.DOTALL,
)

RUN_RULES: Tuple[_Rule, ...] = (
    _Rule(
        r"CUDA out of memory|CUDA error: out of memory|cudaErrorMemoryAllocation",
        "The graphics card ran out of memory.",
        LESS_MEMORY,
        EXIT_NO_RESOURCES,
    ),
    _Rule(
        r"no kernel image is available|is not compatible with the current PyTorch installation",
        "The installed CUDA programs were not built for this graphics card.",
        REPAIR + " Until then choose the device CPU.",
    ),
    _Rule(
        r"driver version is insufficient|NVIDIA driver on your system is too old|forward compatibility was attempted",
        "The NVIDIA driver is too old for the installed CUDA version.",
        "Update the NVIDIA driver, or choose the device CPU.",
    ),
    _Rule(
        r"Found no NVIDIA driver|No CUDA GPUs are available|Torch not compiled with CUDA",
        "No usable NVIDIA graphics card was found.",
        "Choose the device Auto or CPU.",
    ),
    _Rule(
        r"CUDA error|cuDNN error|CUBLAS_STATUS|cudaError\w+",
        "The graphics card reported an error during the computation.",
        "Press Reconstruct again to go on from the last checkpoint; if it happens again choose the device CPU.",
    ),
    _Rule(
        r"DefaultCPUAllocator: (?:can't|not enough)|Unable to allocate [\d.]+ .iB|std::bad_alloc|\bMemoryError\b|Cannot allocate memory",
        "The computer ran out of memory.",
        LESS_MEMORY,
        EXIT_NO_RESOURCES,
    ),
    _Rule(
        r"No space left on device|Disk quota exceeded|not enough space on the disk|Errno 28",
        "The disk is full.",
        FREE_DISK,
        EXIT_NO_RESOURCES,
    ),
    _Rule(
        r"DLL load failed|MSVCP140|VCRUNTIME140|c10\.dll",
        "The Microsoft Visual C++ runtime that PyTorch needs is missing.",
        INSTALL_RUNTIME,
    ),
    _Rule(
        r"No module named '(?P<name>[\w.]+)'",
        "The worker's Python lacks the package {name}.",
        "Open Advanced, Environment and choose Install or Repair, or name a Python that has MedGS installed.",
    ),
    _Rule(
        r"SyntaxError|unsupported operand type\(s\) for \|",
        "The worker's Python is too old for MedGS, which needs Python 3.10 or newer.",
        "Open Advanced, Environment and choose Install, or name a newer Python.",
    ),
    _Rule(
        r"Permission denied|Access is denied|Read-only file system",
        "A file or folder may not be written or read.",
        "Check the rights of the job folder.",
    ),
)
"""What may stop a reconstruction, most telling first."""

INSTALL_RULES: Tuple[_Rule, ...] = (
    _Rule(
        r"No space left on device|os error 28\b|os error 112\b|Disk quota exceeded|not enough space",
        "The disk is full.",
        CHECK_DISK,
        EXIT_NO_RESOURCES,
    ),
    _Rule(
        r"407 Proxy|Proxy Authentication Required|Cannot connect to proxy|ProxyError|tunnel(?:ing)? (?:error|connection failed)"
        r"|invalid proxy",
        "The network proxy refused the connection.",
        "Enter the proxy with user name and password under Environment, or ask the network's administrator.",
    ),
    _Rule(
        r"certificate verify failed|CERTIFICATE_VERIFY_FAILED|UnknownIssuer|invalid peer certificate|self.signed certificate",
        "The network replaces the certificates of web sites with its own.",
        "Give the certificate file of your institution (CA, .pem) under Environment and press Repair.",
    ),
    _Rule(
        r"Could not resolve host|Name or service not known|Temporary failure in name resolution|getaddrinfo failed|dns error"
        r"|failed to lookup address|Network is unreachable|Failed to establish a new connection|Connection refused"
        r"|tcp connect error|error trying to connect|timed out|Failed to fetch",
        "The download site could not be reached.",
        "Check the network connection, enter a proxy, or install from an offline folder.",
    ),
    _Rule(
        r"403 Forbidden|Error 403|status client error \(403",
        "The network's firewall forbids the download.",
        "Ask for access to the download site, or install from an offline folder.",
    ),
    _Rule(
        r"hash(?:es)? (?:mismatch|do not match)|DO NOT MATCH THE HASHES",
        "A downloaded file is not the one that was expected.",
        "Press Repair to download it again; if it happens again the network changes downloads.",
    ),
    _Rule(
        r"No matching distribution found for (?P<name>[\w.-]+)|Because (?P<name2>[\w.-]+)\S* (?:has|was|were) no",
        "There is no ready-made package {name}{name2} for this computer.",
        "Check that the offline folder is complete, or install without it.",
    ),
    _Rule(
        r"No solution found|no download found for|requires a different Python|not a supported wheel",
        "The packages do not exist for this computer and Python.",
        SEE_LOG,
    ),
    _Rule(
        r"Permission denied|Access is denied|os error 13\b|os error 5\b|Read-only file system|os error 30\b",
        "The environment's folder may not be written to.",
        "Choose another folder for the environment, or check its rights and your virus scanner.",
    ),
)
"""What may stop an installation, most telling first."""

_WINDOWS_CODES = {
    0xC0000135: Failure("A system library that the worker needs is missing.", INSTALL_RUNTIME),
    0xC0000005: Failure("The worker crashed in a native library.", "Press Reconstruct again; if it happens again choose the device CPU."),
    0xC0000017: Failure("The computer ran out of memory.", LESS_MEMORY, EXIT_NO_RESOURCES),
}


def explain_exception(error: BaseException) -> Failure:
    """What an exception in the worker means to the user."""
    if isinstance(error, (Cancelled, KeyboardInterrupt)):
        return Failure(str(Cancelled()), "Press Reconstruct to go on from the last checkpoint.", EXIT_CANCELLED)
    if isinstance(error, MedGSError):
        return Failure(str(error), _next_step(error), error.exit_code)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG):
        return Failure("The disk is full.", FREE_DISK, EXIT_NO_RESOURCES)
    text = f"{type(error).__name__}: {error}"
    figures = _GPU_MEMORY_FIGURES.search(text)
    if figures:
        sentence = f"The graphics card ran out of memory: {figures['need']} more needed, {figures['free']} of {figures['total']} free."
        return Failure(sentence, LESS_MEMORY, EXIT_NO_RESOURCES)
    known = _first_match(text, RUN_RULES)
    if known is not None:
        return known
    return Failure(f"The reconstruction stopped on an unexpected error ({_short(text)}).")


def explain_exit(code: Optional[int], log: str) -> Failure:
    """What the end of a worker that left no word means: by its exit code (None: unknown) and the end of its console log."""
    known = _first_match(log, RUN_RULES)
    if code == EXIT_NO_RESOURCES:
        resource = known is not None and known.exit_code == EXIT_NO_RESOURCES
        return known if known and resource else Failure("The computer ran out of memory or disk space.", LESS_MEMORY, EXIT_NO_RESOURCES)
    if code == EXIT_CANCELLED:
        return explain_exception(Cancelled())
    if sys.platform != "win32" and code == -signal.SIGKILL:
        return Failure(
            "The background process was ended from outside, most likely because the computer ran out of memory.",
            f"Press Reconstruct to go on from the last checkpoint. {LESS_MEMORY}",
            EXIT_NO_RESOURCES,
        )
    if code is not None and code & 0xFFFFFFFF in _WINDOWS_CODES:
        return _WINDOWS_CODES[code & 0xFFFFFFFF]
    if known is not None:
        return known
    if code is not None and code < 0:
        return Failure(f"The background process crashed ({_signal_name(-code)}).", "Press Reconstruct to go on from the last checkpoint.")
    if code == EXIT_BAD_INPUT:
        return Failure("The background process could not use the job's input.", SEE_LOG, EXIT_BAD_INPUT)
    return Failure("The background process ended without finishing the job.")


def explain_install(log: str, title: str) -> Failure:
    """What the log of a failed installation step called ``title`` means."""
    known = _first_match(log, (*INSTALL_RULES, *RUN_RULES))
    return known or Failure(f"The installation failed at the step '{title}'.")


def _first_match(text: str, rules: Sequence[_Rule]) -> Optional[Failure]:
    for rule in rules:
        failure = rule.apply(text)
        if failure is not None:
            return failure
    return None


def _next_step(error: MedGSError) -> str:
    if error.exit_code == EXIT_NO_RESOURCES:
        return LESS_MEMORY if "disk" not in str(error).lower() else FREE_DISK
    if isinstance(error, BackendError):
        return "Choose the device Auto or CPU, or repair the environment."
    return "Change the input and press Reconstruct again." if isinstance(error, InputError) else SEE_LOG


def _short(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else "no message"
    return line if len(line) <= 160 else line[:157] + "..."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
