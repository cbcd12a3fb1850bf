"""``medgs compare`` on two surfaces of the phantom with growth of known size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from MedGSLib.cli.main import main
from MedGSLib.io.meshes import write_mesh
from MedGSLib.phantom import AneurysmTruth
from MedGSLib.phantom_shape import AneurysmShape


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("surfaces")
    paths = [folder / "before.vtp", folder / "after.vtp"]
    for path, growth_mm in zip(paths, (0.0, 5.0)):
        write_mesh(AneurysmTruth(AneurysmShape(growth_mm=growth_mm)).mesh(2.0), path)
    return paths


def test_growth_between_two_dates(surfaces, tmp_path, capsys):
    line = ["compare", *map(str, surfaces), "-o", str(tmp_path), "--dates", "2023-01-01", "20250101", "--registration", "none"]
    assert main([*line, "--kind", "segment=vessel"]) == 0
    report = json.loads((tmp_path / "comparison.json").read_text())
    assert [point["date"] for point in report["time_points"]] == ["2023-01-01", "2025-01-01"]
    (growth,) = report["growth"]
    assert growth["verdict"] == "growth" and growth["largest_significant_mm"] == pytest.approx(5.0, abs=0.7)
    out = capsys.readouterr().out
    assert "growth" in out and "max diameter" in out


def test_the_same_surface_twice_has_not_changed(surfaces, tmp_path, capsys):
    assert main(["compare", str(surfaces[0]), str(surfaces[0]), "-o", str(tmp_path), "--registration", "none"]) == 0
    assert "within measurement error" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--dates", "2023-01-01"], "2 time points but 1 dates"),
        (["--registration", "missing.tfm"], "missing.tfm"),
        (["--label", "aorta", "missing.vtp"], "missing.vtp"),
    ],
)
def test_mistakes_are_one_sentence(more, sentence, surfaces, tmp_path, capsys):
    assert main(["compare", *map(str, surfaces), *reversed(more[2:]), "-o", str(tmp_path), *more[:2]]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1


def test_a_kind_names_its_segment(capsys):
    with pytest.raises(SystemExit) as end:
        main(["compare", "a", "b", "-o", "x", "--kind", "vessel"])
    assert end.value.code == 2 and "aorta=vessel" in capsys.readouterr().err
