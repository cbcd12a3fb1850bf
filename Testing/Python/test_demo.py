"""``medgs demo``: the phantom goes through files and the main job, and comes out with its true size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from MedGSLib.cli.main import main
from MedGSLib.demo import measure
from MedGSLib.io.stack import load_stack
from MedGSLib.phantom import AneurysmTruth
from MedGSLib.phantom_shape import AneurysmShape


def test_the_truth_measured_is_the_truth():
    truth = AneurysmTruth(AneurysmShape())
    for part in measure(truth.mesh(), truth):
        assert part.measured == pytest.approx(part.true, rel=0.03, abs=0.02), part.name


def test_the_demo_writes_everything_and_is_close_to_the_truth(tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path), "--preset", "fast", "--device", "cpu", "--threads", "1", "--json-events"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    measures = events[-1]["measures"]
    diameter, volume = measures["largest diameter"], measures["volume"]
    assert diameter["measured"] == pytest.approx(diameter["true"], abs=1.0)
    assert volume["measured"] == pytest.approx(volume["true"], rel=0.02)
    assert measures["mean distance from the true wall"]["measured"] < 0.4
    expected = ["input/ct.nrrd", "input/aneurysm.seg.nrrd", "volume.nrrd", "occupancy.nrrd", "segmentation.nrrd", "uncertainty.nrrd"]
    expected += ["mesh.vtp", "mesh.stl", "mesh.ply", "model.medgs", "report.json", "preview.png", "summary.png"]
    assert [name for name in expected if not (tmp_path / name).is_file()] == []
    assert min(Image.open(Path(tmp_path / "summary.png")).size) > 800


def test_the_samples_are_two_dates(tmp_path, capsys):
    assert main(["demo", "--samples", "-o", str(tmp_path)]) == 0
    written = capsys.readouterr().out
    for year in ("2023", "2025"):
        stack = load_stack(tmp_path / year / "ct.nrrd", tmp_path / year / "aneurysm.seg.nrrd")
        assert [label.name for label in stack.labels] == ["aneurysm"]
        assert str(tmp_path / year / "ct.nrrd") in written
