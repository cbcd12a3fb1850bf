"""Which slices carry a mask that is to be believed."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from MedGSLib.errors import InputError

logger = logging.getLogger(__name__)

GRAMMAR = "auto, all, every:N, or list:0,5,9"
FEWEST_SPARSE = 3


def annotated_slices(choice: str, filled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The annotated slices of a stack.

    :param choice: ``all``; ``every:N`` (every N-th slice, counted so that the first slice with mask is one of them); ``list:0,5,9``
        (slice numbers in the source volume, from 0); or ``auto``: all, unless no two slices with mask are neighbours, as when only
        every n-th slice was segmented: then those slices, and the empty ones that follow in the same step beyond both ends.
    :param filled: bool (S,), the slices on which the mask is not empty.
    :return: bool (S,).
    :raises InputError: if the choice is not understood, or names no slice with mask.
    """
    kind, _, rest = choice.strip().partition(":")
    if kind == "all" and not rest:
        chosen = np.ones(len(filled), dtype=bool)
    elif kind == "auto" and not rest:
        chosen = _detected(filled)
    elif kind == "every":
        chosen = _every(_numbers(rest, choice)[:1], filled, choice)
    elif kind == "list":
        chosen = _listed(_numbers(rest, choice), len(filled))
    else:
        raise _misunderstood(choice)
    if not np.any(chosen & filled):
        raise InputError(f"None of the annotated slices ('{choice}') carries the mask.")
    return chosen


def _misunderstood(choice: str) -> InputError:
    return InputError(f"The annotated slices '{choice}' are not understood; give {GRAMMAR}.")


def _numbers(text: str, choice: str) -> NDArray[np.int64]:
    parts = text.replace(" ", "").split(",")
    if not all(part.isdigit() for part in parts):
        raise _misunderstood(choice)
    return np.array([int(part) for part in parts], dtype=np.int64)


def _every(step: NDArray[np.int64], filled: NDArray[np.bool_], choice: str) -> NDArray[np.bool_]:
    if step[0] < 1:
        raise _misunderstood(choice)
    first = int(np.argmax(filled))
    return (np.arange(len(filled)) - first) % step[0] == 0


def _listed(numbers: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    if numbers.max() >= count:
        raise InputError(f"The annotated slice {numbers.max()} does not exist: the slices are numbered 0 to {count - 1}.")
    chosen = np.zeros(count, dtype=bool)
    chosen[numbers] = True
    return chosen


def looks_sparse(filled: NDArray[np.bool_]) -> bool:
    """Whether a segment is drawn on every n-th slice only.

    :param filled: bool (S,), the slices that it is drawn on; fewer than three may as well be all there is of it.
    """
    gaps = np.diff(np.flatnonzero(filled))
    return len(gaps) + 1 >= FEWEST_SPARSE and gaps.min() >= 2 and bool(np.all(gaps == gaps[0]))


def _detected(filled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    indices = np.flatnonzero(filled)
    gaps = np.diff(indices)
    if len(gaps) == 0 or gaps.min() < 2:
        return np.ones(len(filled), dtype=bool)
    common = int(np.gcd.reduce(gaps))
    step = common if common > 1 else int(np.median(gaps))
    chosen = filled.copy()
    chosen[indices[-1] :: step] = True
    chosen[indices[0] :: -step] = True
    logger.warning(
        "No two neighbouring slices carry the mask, so only %d slices are taken as annotated; say 'all' if that is wrong.", chosen.sum()
    )
    return chosen
