"""What any exception means to the user: an exit code and one sentence."""

from __future__ import annotations

import errno

from MedGSLib.errors import EXIT_BAD_INPUT, EXIT_CANCELLED, EXIT_FAILURE, EXIT_NO_RESOURCES, Cancelled, MedGSError

_UNUSABLE_PATH = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
_UNUSABLE_NUMBERS = (errno.ENAMETOOLONG, errno.EROFS, errno.ELOOP)
_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)
_NO_SPACE_SIGNS = tuple(f"os error {number}" for number in _NO_SPACE)
"""How errors of libraries that are not written in Python (safetensors) name the same conditions."""

_NO_MEMORY_SIGNS = ("can't allocate memory", "not enough memory", "CUDA out of memory")


def explain(error: BaseException) -> tuple[int, str]:
    """:return: the exit code that an error means, and one sentence for the user."""
    if isinstance(error, KeyboardInterrupt):
        return EXIT_CANCELLED, str(Cancelled())
    if isinstance(error, MedGSError):
        return error.exit_code, str(error)
    if _is_out_of_memory(error):
        return EXIT_NO_RESOURCES, "Memory ran out; crop the volume, choose a smaller scale or the preset 'fast', or close other programs."
    if (isinstance(error, OSError) and error.errno in _NO_SPACE) or any(sign in str(error) for sign in _NO_SPACE_SIGNS):
        return EXIT_NO_RESOURCES, f"The disk is full{_at(error)}; free some space and run the same command again."
    if isinstance(error, _UNUSABLE_PATH) or (isinstance(error, OSError) and error.errno in _UNUSABLE_NUMBERS):
        return EXIT_BAD_INPUT, f"{error.strerror or error}{_at(error)}."
    return EXIT_FAILURE, f"MedGS stopped on an unexpected {type(error).__name__}: {_first_line(error)} (run again with -v for the details)."


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch's CPU allocator or CUDA ran out of memory; by name, since torch may not be imported at all."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY_SIGNS)


def _at(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return f": {name}" if name else ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0].rstrip(".")
