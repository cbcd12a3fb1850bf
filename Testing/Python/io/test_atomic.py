"""Files appear complete or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from MedGSLib.errors import InputError, ResourceError
from MedGSLib.io.atomic import atomic_write, remove_leftovers, write_json


def test_content_takes_the_final_name_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "mesh.seg.nrrd"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".seg.nrrd")
        temporary.write_text("done")
        assert not target.exists()
    assert target.read_text() == "done"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")
def test_others_may_read_what_new_files_let_them(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with atomic_write(tmp_path / "a.bin") as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    assert (tmp_path / "a.bin").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_writer_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError), atomic_write(tmp_path / "a.bin"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_the_earlier_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("before")
    with pytest.raises(KeyError), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, function: str) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os if function == "fsync" else Path, function, full)
    with (
        pytest.raises(ResourceError, match="^The disk is full: .*a.txt could not be written") as caught,
        atomic_write(tmp_path / "a.txt") as path,
    ):
        path.write_text("content")
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="disk is full"), atomic_write(tmp_path / "a.txt"):
        Path("/dev/full").write_text("content")


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="cannot be written"), atomic_write(tmp_path / "file" / "a.txt") as path:
        path.write_text("content")


def test_only_what_killed_writes_left_is_removed(tmp_path: Path) -> None:
    kept = [tmp_path / "volume.nrrd", tmp_path / ".hidden"]
    for path in kept:
        path.write_text("whole")
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "mesh.vtp") as temporary:
        left = tmp_path / temporary.name.replace("-mesh", "-other")
        left.write_text("half")
        raise KeyboardInterrupt
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    remove_leftovers(tmp_path / "missing")


def test_json_is_strict_and_plain(tmp_path: Path) -> None:
    content = {
        "psnr": float("inf"),
        "none": np.float32("nan"),
        1: np.arange(3),
        "path": Path("a") / "b",
        "deep": [{"n": np.int64(4)}, (True, None)],
        "name": "Gefäß",
    }
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "Gefäß" in text
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {
        "psnr": None,
        "none": None,
        "1": [0, 1, 2],
        "path": str(Path("a") / "b"),
        "deep": [{"n": 4}, [True, None]],
        "name": "Gefäß",
    }
