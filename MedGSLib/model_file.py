"""The saved model: Gaussians as safetensors with a JSON header; nothing in it is ever executed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation

import MedGSLib
from MedGSLib.errors import InputError, ModelFileError
from MedGSLib.gaussians import PARAMETER_NAMES, FoldedGaussians, FoldSettings
from MedGSLib.geometry import flip_ras_lps, transform_points
from MedGSLib.io.atomic import atomic_write
from MedGSLib.volume import Label

SCHEMA_VERSION = 1
HEADER_KEY = "medgs"
ZEROTH_HARMONIC = 0.28209479177387814


@dataclass(frozen=True)
class ModelHeader:
    """What the Gaussians mean in the patient.

    :ivar plane_to_ras: 4x4, (column px, row px, mm along the stack) to RAS mm, as in :class:`MedGSLib.volume.SliceStack`.
    :ivar step_mm: millimetres for one unit of the Gaussians' stack coordinate.
    :ivar size: (H, W) of a slice in px.
    :ivar acquired_mm: positions of the acquired slices along the stack, from the first.
    :ivar window: image values (low, high) that the image head calls 0 and 1; None without an image head.
    :ivar labels: the segments of the mask heads, in head order.
    """

    plane_to_ras: list[list[float]]
    step_mm: float
    size: tuple[int, int]
    acquired_mm: list[float]
    window: tuple[float, float] | None
    labels: tuple[Label, ...]
    axis: int
    preset: str
    seed: int
    fold: FoldSettings
    schema_version: int = SCHEMA_VERSION
    medgs_version: str = field(default_factory=lambda: MedGSLib.__version__)

    @property
    def has_image(self) -> bool:
        """Whether head 0 is an image."""
        return self.window is not None

    @property
    def matrix(self) -> NDArray[np.float64]:
        """``plane_to_ras`` as an array."""
        return np.asarray(self.plane_to_ras, dtype=np.float64)

    @classmethod
    def from_json(cls, text: str) -> ModelHeader:
        """Read and check a header.

        :raises ModelFileError: when it is of a newer schema or incomplete.
        """
        try:
            values = json.loads(text)
            if values["schema_version"] > SCHEMA_VERSION:
                raise ModelFileError(
                    f"The model was saved by a newer MedGS (schema {values['schema_version']}, this one reads up to {SCHEMA_VERSION})."
                )
            values["fold"] = FoldSettings(**values["fold"])
            values["labels"] = tuple(Label(entry["value"], entry["name"], tuple(entry["color"])) for entry in values["labels"])
            values["size"] = tuple(values["size"])
            values["window"] = None if values["window"] is None else tuple(values["window"])
            header = cls(**values)
            if header.matrix.shape != (4, 4) or not np.isfinite(header.matrix).all() or header.step_mm <= 0:
                raise ValueError("geometry")
        except (KeyError, TypeError, ValueError, RecursionError, InputError) as error:
            if isinstance(error, ModelFileError):
                raise
            raise ModelFileError(f"The header of the model file is incomplete or damaged ({error}).") from error
        return header


def save_model(path: Path, gaussians: FoldedGaussians, header: ModelHeader) -> None:
    """Write the model as a whole or not at all.

    :raises ResourceError: when the disk is full.
    """
    tensors = {name: value.detach().to("cpu").contiguous() for name, value in gaussians.state_dict().items()}
    with atomic_write(path) as temporary:
        save_file(tensors, str(temporary), {HEADER_KEY: json.dumps(asdict(header))})


def load_model(path: Path, device: str = "cpu") -> tuple[FoldedGaussians, ModelHeader]:
    """Read a model.

    :param device: torch device that the Gaussians are put on.
    :raises ModelFileError: when the file is missing, truncated, damaged, foreign or of a newer schema.
    """
    if not path.is_file():
        raise ModelFileError(f"There is no model file {path.name} in {path.parent}.")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as stored:
            metadata = stored.metadata() or {}
            if HEADER_KEY not in metadata:
                raise ModelFileError(f"{path.name} is not a MedGS model.")
            header = ModelHeader.from_json(metadata[HEADER_KEY])
            names = set(stored.keys())
            missing = [name for name in PARAMETER_NAMES if name not in names]
            if missing:
                raise ModelFileError(f"The model file {path.name} lacks {', '.join(missing)}.")
            tensors = {name: stored.get_tensor(name) for name in PARAMETER_NAMES}
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"The model file {path.name} is truncated, damaged or not a MedGS model.") from error
    if any(tensor.dtype != torch.float32 or tensor.ndim == 0 for tensor in tensors.values()):
        raise ModelFileError(f"The model file {path.name} is damaged: a tensor has another type or shape than a model's.")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ModelFileError(f"The model file {path.name} holds values that are not numbers.")
    heads = int(header.has_image) + len(header.labels)
    try:
        gaussians = FoldedGaussians.from_state(tensors, header.fold)
    except InputError as error:
        raise ModelFileError(f"The model file {path.name} is damaged: {error}") from error
    if gaussians.channels != heads:
        raise ModelFileError(f"The model file {path.name} holds {gaussians.channels} heads where its header names {heads}.")
    return gaussians.to(device), header


def export_ply(path: Path, gaussians: FoldedGaussians, header: ModelHeader) -> None:
    """Write the Gaussians with the attribute names of 3-D Gaussian splatting (Kerbl et al. 2023), in LPS millimetres.

    A folded Gaussian of degree 1 is a 3-D Gaussian with the precision ``A' S^-1 A + e e' / sigma^2`` in (x, y, stack) coordinates,
    A = [I | drift]; higher drift terms cannot be expressed and are left out. Colours come from the image head, else from the first
    mask head.

    :raises ResourceError: when the disk is full.
    """
    centers, covariance = _gaussians_lps(gaussians, header)
    scales, rotations = _principal_axes(covariance)
    state = {name: value.detach().cpu().numpy() for name, value in gaussians.state_dict().items()}
    shade = (state["values"][:, 0] - 0.5) / ZEROTH_HARMONIC
    columns: dict[str, NDArray] = {name: centers[:, k] for k, name in enumerate("xyz")}
    columns |= {name: np.zeros(len(centers)) for name in ("nx", "ny", "nz")}
    columns |= {f"f_dc_{k}": shade for k in range(3)}
    columns["opacity"] = state["log_weight"]
    columns |= {f"scale_{k}": np.log(scales[:, k]) for k in range(3)}
    columns |= {f"rot_{k}": rotations[:, k] for k in range(4)}
    columns |= {f"head_{k}": state["values"][:, k] for k in range(gaussians.channels)}
    table = np.empty(len(centers), dtype=[(name, "<f4") for name in columns])
    for name, column in columns.items():
        table[name] = column
    lines = ["ply", "format binary_little_endian 1.0", "comment SPACE=LPS", f"element vertex {len(table)}"]
    lines += [f"property float {name}" for name in columns] + ["end_header", ""]
    with atomic_write(path) as temporary:
        temporary.write_bytes("\n".join(lines).encode("ascii") + table.tobytes())


def _gaussians_lps(gaussians: FoldedGaussians, header: ModelHeader) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (N, 3) and covariances (N, 3, 3) in LPS mm."""
    state = {name: value.detach().cpu().double().numpy() for name, value in gaussians.state_dict().items()}
    count = len(gaussians)
    cosine, sine = np.cos(state["angle"]), np.sin(state["angle"])
    turn = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)
    inverse = turn * np.exp(-2.0 * state["log_scale"])[:, None, :] @ turn.transpose(0, 2, 1)
    shear = np.zeros((count, 2, 3))
    shear[:, 0, 0] = shear[:, 1, 1] = 1.0
    if gaussians.settings.degree:
        shear[:, :, 2] = state["drift"][:, 0]
    precision = shear.transpose(0, 2, 1) @ inverse @ shear
    precision[:, 2, 2] += np.exp(-2.0 * state["log_spread"])
    index_to_lps = flip_ras_lps(header.matrix @ np.diag([1.0, 1.0, header.step_mm, 1.0]))
    covariance = index_to_lps[:3, :3] @ np.linalg.inv(precision) @ index_to_lps[:3, :3].T
    centers = transform_points(index_to_lps, np.column_stack([state["center"], state["position"]]))
    return centers, covariance


def _principal_axes(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard deviations (N, 3) and rotations as quaternions (w, x, y, z) of covariances (N, 3, 3)."""
    variances, axes = np.linalg.eigh(covariance)
    axes[np.linalg.det(axes) < 0, :, 0] *= -1.0
    quaternions = Rotation.from_matrix(axes).as_quat()[:, [3, 0, 1, 2]]
    return np.sqrt(np.maximum(variances, 1e-12)), quaternions
