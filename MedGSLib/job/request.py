"""``request.json``: what the worker is asked to do, with which inputs, where they lie in the patient and where they came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np

from MedGSLib.errors import InputError
from MedGSLib.geometry import Matrix
from MedGSLib.job.schema import SCHEMA_VERSION, Fields
from MedGSLib.volume import Label

WHAT = "The job request"

CHOICES: Dict[str, Tuple[str, ...]] = {
    "mode": ("joint", "image", "mask"),
    "axis": ("auto", "i", "j", "k"),
    "preset": ("fast", "standard", "high", "paper"),
    "device": ("auto", "cuda", "cpu"),
}
"""Parameters that are one of a few words; the same words as the options of ``medgs reconstruct``."""

_NUMBERS: Dict[str, Tuple[type, float]] = {
    "scale": (int, 1),
    "spacing": (float, 1e-3),
    "margin": (float, 0),
    "slice_thickness": (float, 1e-3),
    "seed": (int, 0),
    "threads": (int, 1),
}
"""Type and smallest sensible value of the numeric parameters; spacing, margin and slice thickness in mm."""

_MODELS = ("refine_mask", "start_model")
"""Parameters that name a model file inside the job folder."""

_PARAMETER_NAMES = (*CHOICES, *_NUMBERS, *_MODELS, "annotated", "crop", "overrides")


@dataclass(frozen=True)
class JobInputs:
    """File names inside the job folder, and the segments that the mask's values stand for."""

    image: Optional[str] = None
    mask: Optional[str] = None
    labels: Tuple[Label, ...] = ()

    @classmethod
    def from_json(cls, document: Any) -> JobInputs:
        """:raises InputError: if neither image nor mask is named, or a label is malformed."""
        fields = Fields(document, f"{WHAT}'s inputs")
        fields.check_known(("image", "mask", "labels"))
        image, mask = fields.file_name("image", None), fields.file_name("mask", None)
        if image is None and mask is None:
            raise InputError("The job request names neither an image nor a mask.")
        labels = tuple(_label(entry) for entry in fields.get("labels", list, []))
        if len({label.value for label in labels}) != len(labels):
            raise InputError("The job request gives the same label value to two segments.")
        return cls(image, mask, labels)


@dataclass(frozen=True)
class JobGeometry:
    """Where the input voxels lie: 4x4 float64 RAS mm, and slice positions in mm where the stack is irregular."""

    ijk_to_ras: Tuple[Tuple[float, ...], ...]
    positions_mm: Optional[Tuple[float, ...]] = None

    @property
    def matrix(self) -> Matrix:
        """The 4x4 float64 ijkToRas."""
        return np.array(self.ijk_to_ras, dtype=np.float64)

    @classmethod
    def from_matrix(cls, ijk_to_ras: Matrix, positions_mm: Optional[np.ndarray] = None) -> JobGeometry:
        """:param ijk_to_ras: 4x4, RAS mm. :param positions_mm: (K,), increasing, or None for a regular stack."""
        positions = None if positions_mm is None else [float(position) for position in positions_mm]
        return cls.from_json({"ijk_to_ras": np.asarray(ijk_to_ras, dtype=np.float64).tolist(), "positions_mm": positions})

    @classmethod
    def from_json(cls, document: Any) -> JobGeometry:
        """:raises InputError: if the matrix is no invertible affine or the positions do not increase."""
        fields = Fields(document, f"{WHAT}'s geometry")
        fields.check_known(("ijk_to_ras", "positions_mm"))
        matrix = _array(fields.get("ijk_to_ras", list), "matrix")
        if matrix.shape != (4, 4) or not np.array_equal(matrix[3], [0.0, 0.0, 0.0, 1.0]):
            raise InputError("The matrix of the job request is not a 4x4 affine with the last row 0 0 0 1.")
        if abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
            raise InputError("The matrix of the job request has no volume: two of its directions coincide or a spacing is zero.")
        positions = fields.get("positions_mm", list, None)
        if positions is None:
            return cls(_rows(matrix))
        checked = _array(positions, "list of slice positions")
        if checked.ndim != 1 or len(checked) < 2 or np.any(np.diff(checked) <= 0):
            raise InputError("The slice positions of the job request must be at least two and increasing.")
        return cls(_rows(matrix), tuple(checked.tolist()))


@dataclass(frozen=True)
class JobRequest:
    """One job.

    :ivar parameters: the options of ``medgs reconstruct`` under their long names (mode, axis, scale or spacing in mm, preset, device,
        annotated, margin in mm, crop, slice_thickness in mm, seed, threads, refine_mask, start_model), and ``overrides`` of training
        settings by name.
    :ivar provenance: software versions, source node names and whatever else the outputs should remember; never interpreted.
    :ivar title: what the queue and the log call the job.
    """

    inputs: JobInputs
    geometry: Optional[JobGeometry] = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    schema: int = SCHEMA_VERSION

    def as_json(self) -> Dict[str, Any]:
        """:return: the document of ``request.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> JobRequest:
        """Validate a parsed ``request.json``.

        :raises InputError: naming the first entry that is missing, unknown, of another type or out of range.
        """
        fields = Fields(document, WHAT)
        fields.check_version()
        fields.check_known(("schema", "inputs", "geometry", "parameters", "provenance", "title"))
        inputs = JobInputs.from_json(fields.get("inputs", dict))
        geometry = fields.get("geometry", dict, None)
        parameters = check_parameters(fields.get("parameters", dict, {}))
        _check_mode(parameters.get("mode"), inputs)
        return cls(
            inputs=inputs,
            geometry=None if geometry is None else JobGeometry.from_json(geometry),
            parameters=parameters,
            provenance=fields.get("provenance", dict, {}),
            title=fields.get("title", str, ""),
            schema=fields.get("schema", int),
        )


def check_parameters(document: Any) -> Dict[str, Any]:
    """Validate reconstruction options; absent and null ones are left out of the answer.

    :raises InputError: for unknown names, values of another type or out of range, and a scale together with a spacing.
    """
    fields = Fields(document, f"{WHAT}'s parameters")
    fields.check_known(_PARAMETER_NAMES)
    checked: Dict[str, Any] = {}
    for name, words in CHOICES.items():
        checked[name] = fields.get(name, str, None)
        if checked[name] is not None and checked[name] not in words:
            raise InputError(f"The {name} '{checked[name]}' is none of {', '.join(words)}.")
    for name, (kind, smallest) in _NUMBERS.items():
        checked[name] = fields.get(name, kind, None)
        if checked[name] is not None and not smallest <= checked[name] < 1e9:
            raise InputError(f"The {name} must be at least {smallest:g}, not {checked[name]:g}.")
    checked["annotated"] = fields.get("annotated", str, None)
    checked["crop"] = fields.get("crop", bool, None)
    for name in _MODELS:
        checked[name] = fields.file_name(name, None)
    checked["overrides"] = _check_overrides(fields.get("overrides", dict, None))
    if checked["scale"] is not None and checked["spacing"] is not None:
        raise InputError("Give either a scale or a slice spacing for the output, not both.")
    return {name: value for name, value in checked.items() if value is not None}


def _check_overrides(overrides: Optional[Dict[str, Any]]) -> Optional[Dict[str, Any]]:
    for name, value in (overrides or {}).items():
        if not isinstance(value, (bool, int, float, str)):
            raise InputError(f"The setting '{name}' must be a number, a text or true/false.")
    return overrides


def _check_mode(mode: Optional[str], inputs: JobInputs) -> None:
    if mode in ("joint", "image") and inputs.image is None:
        raise InputError(f"The mode '{mode}' needs an image, and the job request names none.")
    if mode in ("joint", "mask") and inputs.mask is None:
        raise InputError(f"The mode '{mode}' needs a mask, and the job request names none.")


def _label(document: Any) -> Label:
    fields = Fields(document, f"A label of {WHAT[0].lower()}{WHAT[1:]}")
    fields.check_known(("value", "name", "color"))
    color = _array(fields.get("color", list, list(Label(1, "").color)), "label color")
    if color.shape != (3,) or color.min() < 0 or color.max() > 1:
        raise InputError("A label color of the job request must be three numbers from 0 to 1.")
    value = fields.get("value", int)
    if not 1 <= value <= 255:
        raise InputError(f"The label value {value} is outside 1 to 255.")
    return Label(value, fields.get("name", str), tuple(color.tolist()))


def _array(values: Any, name: str) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"The {name} of the job request is not made of numbers.") from error
    if not np.all(np.isfinite(array)):
        raise InputError(f"The {name} of the job request holds values that are not finite.")
    return array


def _rows(matrix: Matrix) -> Tuple[Tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
