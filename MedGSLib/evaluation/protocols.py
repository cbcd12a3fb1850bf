"""What a method gets to see of a case, and the truth it is compared with, kept apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from MedGSLib.errors import InputError
from MedGSLib.evaluation.cases import Case
from MedGSLib.evaluation.names import IMAGE, MASK, PROFILES, PROTOCOLS, SPARSE, THICK
from MedGSLib.geometry import Matrix, default_scale, shifted_origin
from MedGSLib.prior.profile import ProfileKind, SliceProfile
from MedGSLib.volume import SliceStack

FEWEST_SLICES = 3


@dataclass(frozen=True)
class Problem:
    """A reconstruction whose answer is known. Methods are given everything but ``truth``.

    :ivar stack: all that a method may see; S slices.
    :ivar scale: subdivisions of the stack's gap; a method's answer has T = (S - 1) * scale + 1 slices.
    :ivar profile: how the stack's slices average.
    :ivar truth: to compare with.
    """

    case: str
    subset: str
    protocol: str
    every: int
    stack: SliceStack
    scale: int
    profile: SliceProfile
    truth: Truth

    @property
    def slices(self) -> int:
        """T, the number of slices of an answer."""
        return (self.stack.shape[0] - 1) * self.scale + 1

    @property
    def wanted(self) -> NDArray[np.float64]:
        """Coordinates (T,) of an answer's slices in gaps of the stack."""
        return np.arange(self.slices) / self.scale

    @property
    def index_to_ras(self) -> Matrix:
        """4x4 of an answer (column, row, slice) to RAS mm."""
        return self.stack.index_to_ras(self.stack.gap_mm / self.scale)

    @property
    def truth_to_ras(self) -> Matrix:
        """4x4 of the truth (column, row, slice) to RAS mm."""
        first, second = self.truth.rows[:2]
        matrix = self.index_to_ras @ np.diag([1.0, 1.0, float(second - first), 1.0])
        return shifted_origin(matrix, (0.0, 0.0, float(first / (second - first))))


@dataclass(frozen=True)
class Truth:
    """:ivar rows: the R slices of an answer that have a true counterpart; :ivar scored: bool (R,), those that no method saw.

    :ivar image: float32 (R, H, W) in 0..1 or None; :ivar mask: bool (R, H, W) or None.
    """

    rows: NDArray[np.int64]
    scored: NDArray[np.bool_]
    image: NDArray[np.float32] | None
    mask: NDArray[np.bool_] | None


def pose(case: Case, protocol: str, every: int, profile: str = "box") -> Problem:
    """Take from a case what a protocol hides.

    :param every: n; every n-th slice is kept, or n slices are averaged.
    :param profile: of thick slices, of :data:`MedGSLib.evaluation.names.PROFILES`: ``box``, ``gaussian`` (full width at half maximum of n
        slices), or a box whose thickness is told wrongly.
    :raises InputError: if the case lacks what the protocol needs, or fewer than three slices would be left.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"The protocol must be one of {', '.join(PROTOCOLS)}, not '{protocol}'.")
    stack = case.stack
    if stack.image is None:
        raise InputError(f"The case {case.name} has no image, which the protocol '{protocol}' needs.")
    if protocol in (MASK, SPARSE) and stack.occupancy is None:
        raise InputError(f"The case {case.name} has no mask, which the protocol '{protocol}' needs.")
    if every < 2:
        raise InputError(f"At least every 2nd slice must be left out, not every {every}.")
    if protocol == THICK:
        return _thick(case, every, profile)
    count = (stack.shape[0] - 1) // every * every + 1
    if (count - 1) // every + 1 < FEWEST_SLICES:
        raise InputError(f"The case {case.name} has too few slices to keep only every {every}.")
    return _left_out(case, protocol, every, count)


def _left_out(case: Case, protocol: Literal["image", "mask", "sparse"] | str, every: int, count: int) -> Problem:
    """Every n-th slice kept; the answer's slices are as close as a user gets them by default, the hidden ones among them."""
    stack = case.stack.select(np.arange(count))
    rows = np.arange(count)
    kept = rows[::every]
    masked = protocol != IMAGE
    if protocol == MASK:
        seen, scale, steps = _annotated_on(stack, kept), 1, 1
    else:
        seen = stack.select(kept)
        steps = max(1, default_scale(seen.gap_mm, min(seen.pixel_mm)) // every)
        scale = every * steps
    truth = Truth(
        rows * steps,
        rows % every != 0,
        None if protocol == MASK else stack.image,
        stack.occupancy[0] >= 0.5 if masked and stack.occupancy is not None else None,
    )
    if not masked:
        seen = replace(seen, occupancy=None, labels=())
    return Problem(case.name, case.subset, protocol, every, seen, scale, SliceProfile(), truth)


def _annotated_on(stack: SliceStack, kept: NDArray[np.int64]) -> SliceStack:
    """The stack with its mask erased elsewhere than on ``kept`` slices."""
    assert stack.occupancy is not None
    annotated = np.zeros(stack.shape[0], bool)
    annotated[kept] = True
    return replace(stack, annotated=annotated, occupancy=stack.occupancy * annotated[None, :, None, None].astype(np.float32))


def _thick(case: Case, every: int, profile: str) -> Problem:
    """Averages over n slices, n apart; of an even n the centres lie between thin slices, so the answer has every second row there."""
    image = case.stack.image
    assert image is not None
    if profile not in PROFILES:
        raise InputError(f"The profile of thick slices must be one of {', '.join(PROFILES)}, not '{profile}'.")
    kind, told = PROFILES[profile]
    scale = every if every % 2 else 2 * every
    offsets, weights = _thin_weights(every, kind)
    first = int(-offsets[0])
    starts = np.arange(first, image.shape[0] - offsets[-1], every)
    if len(starts) < FEWEST_SLICES:
        raise InputError(f"The case {case.name} has too few slices to average {every} at a time.")
    averages = np.stack([np.tensordot(weights, image[start + offsets], axes=1) for start in starts]).astype(np.float32)
    shift = 0.0 if every % 2 else 0.5
    thin_mm = case.stack.gap_mm
    seen = replace(case.stack.select(starts), image=averages, occupancy=None, labels=(), slice_thickness_mm=told * every * thin_mm)
    seen = replace(seen, plane_to_ras=shifted_origin(seen.plane_to_ras, (0.0, 0.0, shift * thin_mm)))
    steps = scale // every
    rows = np.arange(0 if every % 2 else 1, (len(starts) - 1) * scale + 1, steps)
    thin = starts[0] + (rows + (0 if every % 2 else 1)) // steps
    truth = Truth(rows, np.ones(len(rows), bool), image[thin], None)
    return Problem(case.name, case.subset, THICK, every, seen, scale, SliceProfile(kind, told), truth)


def _thin_weights(every: int, kind: ProfileKind) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Offsets of thin slices from slice ``start``, and their weights; of an even n the profile's centre is half a slice behind it."""
    if kind == "box":
        before = (every - 1) // 2
        return np.arange(-before, every - before), np.full(every, 1.0 / every)
    if every % 2:
        return SliceProfile(kind, 1.0).weights(every)
    offsets, weights = SliceProfile(kind, 1.0).weights(2 * every)
    between = offsets % 2 != 0
    return (offsets[between] + 1) // 2, weights[between] / weights[between].sum()
