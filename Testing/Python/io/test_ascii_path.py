"""File names that SimpleITK can open on Windows."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("SimpleITK")

from MedGSLib.errors import InputError
from MedGSLib.io.ascii_path import ascii_path
from MedGSLib.io.images import read_image, write_image
from MedGSLib.volume import Volume


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder under a name with accents, on a system that says it is Windows."""
    monkeypatch.setattr(sys, "platform", "win32")
    made = tmp_path / "Jürgen" / "job"
    made.mkdir(parents=True)
    return made


def test_file_of_the_working_folder_goes_by_its_relative_name(folder, monkeypatch):
    assert ascii_path(folder / "image.nrrd") == str(folder / "image.nrrd")
    monkeypatch.chdir(folder)
    assert ascii_path(folder / "output" / "volume.nrrd") == "output/volume.nrrd"
    write_image(folder / "image.nrrd", Volume(np.ones((3, 4, 5), np.int16), np.eye(4)))
    assert read_image(folder / "image.nrrd").GetSize() == (5, 4, 3)


def test_plain_names_and_other_systems_keep_the_whole_path(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    assert ascii_path(tmp_path / "image.nrrd") == str(tmp_path / "image.nrrd")
    monkeypatch.setattr(sys, "platform", "linux")
    assert ascii_path(folder / "image.nrrd") == str(folder / "image.nrrd")


def test_name_is_blamed_where_it_cannot_be_helped(folder):
    (folder / "image.nrrd").write_bytes(b"no image")
    with pytest.raises(InputError, match="because of letters in its path"):
        read_image(folder / "image.nrrd")
