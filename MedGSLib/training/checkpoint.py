"""State of unfinished work on disk: written by rename, so that a killed run continues from the last whole one."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from MedGSLib.io.atomic import atomic_write, remove_leftovers

logger = logging.getLogger(__name__)

PRIOR_STAGE, FIT_STAGE = "prior", "fit"


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors and JSON facts of one stage of a run."""

    tensors: dict[str, Tensor]
    facts: dict


class CheckpointStore:
    """The checkpoints of one run, a file a stage, valid only for the run whose ``fingerprint`` they carry.

    :param folder: made when first written to.
    :param fingerprint: hash of inputs and configuration; files with another one are ignored.
    :param interval_s: least time between two periodic writes.
    """

    def __init__(self, folder: Path, fingerprint: str, interval_s: float = 30.0) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._interval_s = interval_s
        self._written_at = time.monotonic()

    def _path(self, stage: str) -> Path:
        return self._folder / f"{stage}.safetensors"

    def is_due(self) -> bool:
        """Whether the interval since the last write is over."""
        return time.monotonic() - self._written_at >= self._interval_s

    def save(self, stage: str, tensors: dict[str, Tensor], facts: dict) -> None:
        """Replace the checkpoint of ``stage`` as a whole.

        :raises ResourceError: when the disk is full.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        metadata = {"fingerprint": self._fingerprint, "facts": json.dumps(facts)}
        with atomic_write(self._path(stage)) as path:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(path), metadata)
        self._written_at = time.monotonic()

    def load(self, stage: str) -> Checkpoint | None:
        """The checkpoint of ``stage``, or None where there is none that fits this run."""
        path = self._path(stage)
        if not path.is_file():
            return None
        try:
            with safe_open(str(path), framework="pt") as stored:
                metadata = stored.metadata() or {}
                if metadata.get("fingerprint") != self._fingerprint:
                    logger.warning("The checkpoint %s belongs to other inputs or settings and is not used.", path.name)
                    return None
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
                return Checkpoint(tensors, json.loads(metadata["facts"]))
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            logger.warning("The checkpoint %s cannot be read (%s) and is not used.", path.name, error)
            return None

    def remove(self) -> None:
        """Delete all checkpoints of the run, once its results are written."""
        for stage in (PRIOR_STAGE, FIT_STAGE):
            self._path(stage).unlink(missing_ok=True)
        remove_leftovers(self._folder)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()


def cpu_copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies in main memory."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
