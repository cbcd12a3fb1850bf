"""Which slices carry a mask that is to be believed."""

from __future__ import annotations

import numpy as np
import pytest

from MedGSLib.errors import InputError
from MedGSLib.io.annotated import annotated_slices


def filled(count: int, *indices: int) -> np.ndarray:
    flags = np.zeros(count, dtype=bool)
    flags[list(indices)] = True
    return flags


@pytest.mark.parametrize(
    ("choice", "given", "expected"),
    [
        ("all", filled(5, 2), [0, 1, 2, 3, 4]),
        ("every:3", filled(10, 4, 5, 7), [1, 4, 7]),
        ("every:1", filled(3, 1), [0, 1, 2]),
        ("list:0,5,9", filled(10, 5), [0, 5, 9]),
        ("list: 2, 0", filled(3, 2), [0, 2]),
        ("auto", filled(8, 2, 3, 4), range(8)),
        ("auto", filled(8, 2, 3, 5), range(8)),
        ("auto", filled(8, 4), range(8)),
        ("auto", filled(14, 4, 7, 10), [1, 4, 7, 10, 13]),
        ("auto", filled(12, 1, 5), [1, 5, 9]),
        ("auto", filled(16, 4, 7, 13), [1, 4, 7, 13]),
        ("auto", filled(16, 3, 5, 8), [1, 3, 5, 8, 10, 12, 14]),
    ],
)
def test_choices(choice: str, given: np.ndarray, expected: range | list[int]) -> None:
    assert np.flatnonzero(annotated_slices(choice, given)).tolist() == list(expected)


def test_a_detected_pattern_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    annotated_slices("auto", filled(14, 4, 7, 10))
    assert "only 5 slices are taken as annotated" in caplog.text


@pytest.mark.parametrize(
    "choice", ["some", "every", "every:", "every:0", "every:-2", "every:x", "list", "list:1;2", "list:1,,2", "all:3", ""]
)
def test_unknown_choices(choice: str) -> None:
    with pytest.raises(InputError, match="not understood; give auto, all, every:N, or list:0,5,9"):
        annotated_slices(choice, filled(5, 2))


def test_a_slice_that_does_not_exist() -> None:
    with pytest.raises(InputError, match="slice 5 does not exist: the slices are numbered 0 to 4"):
        annotated_slices("list:1,5", filled(5, 1))


def test_a_list_without_any_mask() -> None:
    with pytest.raises(InputError, match="None of the annotated slices"):
        annotated_slices("list:0,1", filled(5, 2))
