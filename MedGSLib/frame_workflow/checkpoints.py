"""Checkpoints at chosen iterations, and starting from one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from MedGSLib.errors import InputError, ModelFileError
from MedGSLib.frame_workflow.model_folder import MODEL_NAME
from MedGSLib.gaussians import PARAMETER_NAMES, FoldedGaussians
from MedGSLib.model_file import ModelHeader, load_model
from MedGSLib.training.checkpoint import Checkpoint, CheckpointStore

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Start:
    """Where a training starts from; ``resume`` is the optimiser's state where a checkpoint has it."""

    gaussians: FoldedGaussians
    header: ModelHeader
    resume: Checkpoint | None = None

    @property
    def heads(self) -> tuple[bool, int]:
        """Whether there is an image head, and the number of mask heads."""
        return self.header.has_image, len(self.header.labels)


class IterationCheckpoints(CheckpointStore):
    """Keeps ``folder/iteration_N.safetensors`` of chosen iterations, with the optimiser's state.

    :param iterations: after which to write; a cancelled training writes one too.
    :param header: stored with each, so that a checkpoint explains itself.
    :param resume: the state that the training continues from.
    """

    def __init__(self, folder: Path, iterations: Iterable[int], header: ModelHeader, resume: Checkpoint | None) -> None:
        super().__init__(folder, fingerprint="")
        self._iterations = frozenset(iterations)
        self._header = header
        self._resume = resume
        self._due = False

    def reached(self, iteration: int) -> None:
        """To be called after each iteration."""
        self._due = iteration in self._iterations

    def is_due(self) -> bool:
        """Whether the iteration just reached is one of the chosen."""
        return self._due

    def save(self, stage: str, tensors: dict[str, Tensor], facts: dict) -> None:  # noqa: ARG002 - a file an iteration, not a stage
        """Write the checkpoint of the iteration in ``facts``."""
        super().save(f"iteration_{facts['iteration']}", tensors, facts | {"header": asdict(self._header)})

    def load(self, stage: str) -> Checkpoint | None:  # noqa: ARG002 - there is one stage
        """The state to continue from."""
        return self._resume


def read_start(path: Path) -> Start:
    """Read a checkpoint of ``medgs train``, or a saved model (file, or the folder it lies in).

    :raises ModelFileError: if it is neither.
    """
    if path.is_dir():
        path = path / MODEL_NAME
    if path.suffix != SUFFIX:
        return Start(*load_model(path))
    try:
        with safe_open(str(path), framework="pt", device="cpu") as stored:
            facts = json.loads((stored.metadata() or {})["facts"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
        header = ModelHeader.from_json(json.dumps(facts["header"]))
        gaussians = FoldedGaussians.from_state({name: tensors[f"gaussians.{name}"] for name in PARAMETER_NAMES}, header.fold)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, InputError) as error:
        raise ModelFileError(f"The checkpoint '{path}' is damaged or none of 'medgs train'.") from error
    return Start(gaussians, header, Checkpoint(tensors, facts))
