"""Fully sampled volumes that serve as the truth, and the files that define them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGSLib.errors import InputError
from MedGSLib.evaluation.names import IMAGE, MASK, PROTOCOLS, SPARSE, THICK
from MedGSLib.geometry import is_evenly_spaced, shifted_origin
from MedGSLib.io.stack import load_stack
from MedGSLib.preparation import intensity_window
from MedGSLib.volume import Label, SliceStack

SUBSETS = ("development", "validation", "regions", "test")


@dataclass(frozen=True)
class Case:
    """A volume all of whose slices are true.

    :ivar stack: image in 0..1 (the window of :func:`windowed`), and at most one segment; evenly spaced thin slices, all annotated.
    :ivar subset: ``development`` where parameters were chosen on it, ``validation`` where its failures were looked at and mended,
        ``regions`` where the scan is a development scan but this part of it was not looked at, ``test`` where nothing was, or empty.
    """

    name: str
    stack: SliceStack
    subset: str = ""

    def __post_init__(self) -> None:
        if len(self.stack.labels) > 1:
            raise InputError(f"The case {self.name} has {len(self.stack.labels)} segments, and one is compared at a time.")
        if len(self.stack.positions_mm) < 3 or not is_evenly_spaced(self.stack.positions_mm):
            raise InputError(f"Slices can only be left out of a volume of at least 3 evenly spaced slices, and {self.name} is none.")
        object.__setattr__(self, "stack", replace(self.stack, annotated=np.ones(self.stack.shape[0], bool), slice_thickness_mm=None))

    @property
    def label(self) -> Label | None:
        """The segment, if any."""
        return self.stack.labels[0] if self.stack.labels else None


@dataclass(frozen=True)
class CaseDefinition:
    """One entry of a file of cases.

    :ivar image: path below the data folder; :ivar mask: the same, or None.
    :ivar labels: values of the mask that together make the segment; empty for every value but 0.
    :ivar crop: first and last + 1 voxel along (k, j, i), each a pair or None for all.
    :ivar clip: image values to clip to before the window is taken, or None.
    :ivar every: for each protocol, which n to measure.
    :ivar turn: order in which cases are measured, lowest first.
    :ivar remark: what a reader of the result should know.
    """

    name: str
    image: str
    mask: str | None
    labels: tuple[int, ...]
    crop: tuple[tuple[int, int] | None, ...]
    clip: tuple[float, float] | None
    every: dict[str, tuple[int, ...]]
    turn: int
    subset: str
    remark: str = ""

    def load(self, folder: Path) -> Case:
        """Read the files. :raises InputError: if they are missing or unusable."""
        stack = load_stack(
            folder / self.image, None if self.mask is None else folder / self.mask, axis="k", margin_mm=None, annotated="all"
        )
        stack = _cropped(_merged(stack, self.labels, self.name), self.crop)
        return Case(self.name, windowed(stack, self.clip), self.subset)


def read_definitions(path: Path) -> tuple[CaseDefinition, ...]:
    """The cases of a JSON file ``{"subset": "development", "cases": [...]}``.

    :raises InputError: if the file is not of that form.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        subset = content["subset"]
        definitions = tuple(_definition(entry, subset) for entry in content["cases"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a file of benchmark cases: {error}.") from error
    if subset not in SUBSETS or len({definition.name for definition in definitions}) < len(definitions):
        raise InputError(f"{path} must name its subset, one of {', '.join(SUBSETS)}, and give each case its own name.")
    return definitions


def _definition(entry: dict[str, Any], subset: str) -> CaseDefinition:
    every = {protocol: tuple(int(n) for n in entry["every"][protocol]) for protocol in PROTOCOLS if protocol in entry["every"]}
    crop = tuple(None if span is None else (int(span[0]), int(span[1])) for span in entry.get("crop_kji", (None, None, None)))
    clip = entry.get("clip")
    return CaseDefinition(
        name=entry["name"],
        image=entry["image"],
        mask=entry.get("mask"),
        labels=tuple(entry.get("labels", ())),
        crop=crop,
        clip=None if clip is None else (float(clip[0]), float(clip[1])),
        every=every,
        turn=int(entry.get("turn", 0)),
        subset=subset,
        remark=entry.get("remark", ""),
    )


def cases_of_stack(stack: SliceStack, name: str) -> tuple[Case, ...]:
    """A case for the image of a stack, and one for each segment."""
    stack = windowed(stack)
    image = Case(name, replace(stack, occupancy=None, labels=()))
    if stack.occupancy is None:
        return (image,)
    segments = (
        Case(f"{name}/{label.name}", replace(stack, occupancy=stack.occupancy[number : number + 1], labels=(label,)))
        for number, label in enumerate(stack.labels)
    )
    return image, *segments


def windowed(stack: SliceStack, clip: tuple[float, float] | None = None) -> SliceStack:
    """The stack with its image in 0..1: 0.5 to 99.5 percentile of the whole crop, clipped.

    :param clip: image values to clip to before the percentiles are taken.
    """
    if stack.image is None:
        return stack
    image = stack.image if clip is None else np.clip(stack.image, *clip)
    low, high = intensity_window(image)
    return replace(stack, image=np.clip((image - low) / (high - low), 0.0, 1.0).astype(np.float32))


def protocols_of(case: Case, wanted: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The wanted protocols that measure what the case is about, its segment or else its image; all but thick slices by default."""
    own = (IMAGE, THICK) if case.stack.occupancy is None else (MASK, SPARSE)
    return tuple(protocol for protocol in wanted or (IMAGE, MASK, SPARSE) if protocol in own)


def _merged(stack: SliceStack, labels: tuple[int, ...], name: str) -> SliceStack:
    """The stack with the wanted labels made one segment."""
    if stack.occupancy is None:
        return stack
    chosen = [number for number, label in enumerate(stack.labels) if not labels or label.value in labels]
    if not chosen:
        raise InputError(f"The mask of the case {name} has none of the labels {', '.join(map(str, labels))}.")
    occupancy: NDArray[np.float32] = stack.occupancy[chosen].max(axis=0, keepdims=True)
    return replace(stack, occupancy=occupancy, labels=(Label(1, name),))


def _cropped(stack: SliceStack, crop: tuple[tuple[int, int] | None, ...]) -> SliceStack:
    """The part of the stack within ``crop``, spans of (slice, row, column)."""
    spans = tuple(slice(None) if span is None else slice(*span) for span in crop)
    stack = stack.select(np.arange(stack.shape[0])[spans[0]])
    rows, columns = spans[1:]
    start = (float(columns.start or 0), float(rows.start or 0), 0.0)
    return replace(
        stack,
        image=None if stack.image is None else np.ascontiguousarray(stack.image[:, rows, columns]),
        occupancy=None if stack.occupancy is None else np.ascontiguousarray(stack.occupancy[:, :, rows, columns]),
        plane_to_ras=shifted_origin(stack.plane_to_ras, start),
    )
