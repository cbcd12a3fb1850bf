"""Exceptions whose text is one sentence that a clinician can act on, and the exit code that each one means."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILURE = 1
EXIT_BAD_INPUT = 2
EXIT_NO_RESOURCES = 3
EXIT_CANCELLED = 4


class MedGSError(Exception):
    """Base of all errors that MedGS raises on purpose; ``str(error)`` is the sentence for the user."""

    exit_code = EXIT_FAILURE


class InputError(MedGSError):
    """The given files or arguments cannot be used."""

    exit_code = EXIT_BAD_INPUT


class ResourceError(MedGSError):
    """Memory or disk ran out."""

    exit_code = EXIT_NO_RESOURCES


class Cancelled(MedGSError):
    """The user asked to stop."""

    exit_code = EXIT_CANCELLED

    def __init__(self, message: str = "Cancelled on request.") -> None:
        super().__init__(message)


class ModelFileError(InputError):
    """A model file is truncated, corrupted, foreign or of a newer schema."""


class BackendError(MedGSError):
    """A rasterizer backend was asked for that this machine cannot run."""
