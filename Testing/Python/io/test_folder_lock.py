"""A result folder belongs to one process at a time, and to nobody once that is gone."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from MedGSLib.errors import InputError
from MedGSLib.io.folder_lock import LOCK_NAME, sole_writer

HOLDER = """
import sys, time
from pathlib import Path
from MedGSLib.io.folder_lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    sys.stdout.write("held\\n")
    sys.stdout.flush()
    time.sleep(600)
"""


def test_a_second_process_is_kept_out_until_the_first_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(InputError, match="Another run is writing into the folder"), sole_writer(tmp_path):
                pass
        finally:
            holder.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
    with sole_writer(tmp_path):
        assert (tmp_path / LOCK_NAME).exists()


def test_nothing_is_left_behind_even_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), sole_writer(tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_place_without_locks_can_be_written_to(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise NotImplementedError("no locks here")

    monkeypatch.setattr("MedGSLib.io.folder_lock.FileLock.acquire", refused)
    with sole_writer(tmp_path):
        (tmp_path / "result").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
