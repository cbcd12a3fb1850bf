"""``medgs reconstruct`` and ``medgs batch``: what reaches the main job, and what is left behind."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from MedGSLib.cli.main import main
from MedGSLib.cli.reconstruct import summary as summary_for_people
from MedGSLib.config import InputOptions, ReconstructionConfig
from MedGSLib.errors import Cancelled, InputError


class RecordedJob:
    """Stands for the main job: notes its arguments, writes two files, or raises what it is told to."""

    def __init__(self) -> None:
        self.calls: list[dict] = []
        self.errors: dict[str, BaseException] = {}

    def __call__(self, image, mask, out, config, inputs, progress=None, resume=False):
        self.calls.append({"image": image, "mask": mask, "out": out, "config": config, "inputs": inputs, "resume": resume})
        if out.name in self.errors:
            raise self.errors[out.name]
        out.mkdir(parents=True, exist_ok=True)
        (out / "volume.nrrd").write_bytes(b"voxels")
        report = {
            "timings": {"total_s": 1.0},
            "segments": {"aorta": {"volume_cm3": 12.3456, "area_cm2": 30.0}},
            "self_check": {
                "left_out_slices": 5,
                "note": "at twice the distance",
                "image": {"medgs": {"psnr_db": 25.126}, "linear": {"psnr_db": 23.5}},
            },
        }
        (out / "report.json").write_text(json.dumps(report))
        return report


@pytest.fixture
def job(monkeypatch) -> RecordedJob:
    recorded = RecordedJob()
    module = ModuleType("MedGSLib.reconstruct")
    module.reconstruct_files = recorded
    monkeypatch.setitem(sys.modules, "MedGSLib.reconstruct", module)
    return recorded


@pytest.fixture
def files(tmp_path) -> Path:
    for name in ("ct.nrrd", "mask.nrrd", "ct2.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def write_cases(folder: Path, *rows: str) -> Path:
    path = folder / "cases.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def summary(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as stream:
        return {row["name"]: row for row in csv.DictReader(stream)}


def test_arguments_reach_the_main_job(job, files, capsys):
    line = f"reconstruct {files}/ct.nrrd --mask {files}/mask.nrrd --label 2 --label aorta -o {files}/out --spacing 1.5 --preset high"
    line += " --seed 7 --threads 1 --margin 4 --annotated every:3 --axis k --gaussians 50 --degree 2 --lambda-seg 2 --no-self-check"
    line += " --slice-thickness 5 --resume"
    assert main(line.split()) == 0
    (call,) = job.calls
    config: ReconstructionConfig = call["config"]
    inputs: InputOptions = call["inputs"]
    assert (config.mode, config.preset, config.spacing_mm, config.scale, config.seed, config.threads) == ("joint", "high", 1.5, None, 7, 1)
    assert (config.training.gaussians, config.fold.degree, config.training.mask_loss_weight, config.self_check) == (50, 2, 2.0, False)
    assert inputs == InputOptions((2, "aorta"), axis="k", margin_mm=4.0, annotated="every:3", slice_thickness_mm=5.0)
    assert call["resume"] is True and call["image"] == files / "ct.nrrd"
    out = capsys.readouterr().out
    assert "Done in 1 s" in out and "aorta: 12.35 cm3" in out and "medgs 25.13 dB, linear 23.50 dB" in out


def test_the_size_of_a_tiny_segment_is_not_rounded_away():
    report = {"segments": {"lesion": {"volume_cm3": 0.00312, "area_cm2": 0.0456}, "liver": {"volume_cm3": 1512.3, "area_cm2": 980.04}}}
    text = summary_for_people(report, Path("out"))
    assert "lesion: 0.0031 cm3, 0.046 cm2" in text and "liver: 1512.30 cm3, 980.0 cm2" in text


def test_the_mode_follows_from_the_inputs(job, files):
    assert main(["reconstruct", f"{files}/ct.nrrd", "-o", f"{files}/a", "--no-crop"]) == 0
    assert main(["reconstruct", "--mask", f"{files}/mask.nrrd", "-o", f"{files}/b"]) == 0
    assert [call["config"].mode for call in job.calls] == ["image", "mask"]
    assert job.calls[0]["inputs"].margin_mm is None and job.calls[1]["inputs"].margin_mm == 10.0


def test_a_batch_runs_every_case_with_its_own_options(job, files):
    cases = write_cases(
        files, "name,image,mask,label,scale,no_crop,preset", "a,ct.nrrd,mask.nrrd,2;aorta,3,,fast", ",ct2.nii.gz,,,,yes,", ""
    )
    assert main(["batch", str(cases), "-o", str(files / "out")]) == 0
    first, second = job.calls
    assert first["out"] == files / "out" / "a" and first["image"] == files / "ct.nrrd" and first["mask"] == files / "mask.nrrd"
    assert first["inputs"].labels == (2, "aorta") and first["config"].scale == 3 and first["config"].preset == "fast"
    assert second["out"].name == "ct2" and second["config"].mode == "image" and second["inputs"].margin_mm is None
    assert all(call["resume"] for call in job.calls)
    assert {name: row["status"] for name, row in summary(files / "out").items()} == {"a": "done", "ct2": "done"}


def test_a_failing_case_does_not_stop_the_rest(job, files, capsys):
    cases = write_cases(files, "name,image", "a,ct.nrrd", "b,ct.nrrd", "c,missing.nrrd", "d,ct2.nii.gz")
    job.errors["b"] = InputError("The volume has one slice.")
    assert main(["batch", str(cases), "-o", str(files / "out")]) == 2
    rows = summary(files / "out")
    assert [rows[name]["status"] for name in "abcd"] == ["done", "failed", "failed", "done"]
    assert rows["b"]["message"] == "The volume has one slice." and "missing.nrrd" in rows["c"]["message"]
    assert "Traceback" not in capsys.readouterr().err


def test_failures_of_different_kinds_end_in_1(job, files):
    cases = write_cases(files, "name,image", "a,ct.nrrd", "b,ct.nrrd")
    job.errors = {"a": MemoryError(), "b": InputError("Bad.")}
    assert main(["batch", str(cases), "-o", str(files / "out")]) == 1
    assert [row["exit_code"] for row in summary(files / "out").values()] == ["3", "2"]


def test_finished_cases_are_skipped_until_they_change(job, files):
    cases = write_cases(files, "name,image,seed", "a,ct.nrrd,0", "b,ct.nrrd,0", "c,ct.nrrd,0")
    run = ["batch", str(cases), "-o", str(files / "out")]
    assert main(run) == 0
    job.calls.clear()
    assert main(run) == 0
    rows = summary(files / "out")
    assert job.calls == [] and {row["status"] for row in rows.values()} == {"skipped"}
    assert (rows["a"]["volumes_cm3"], rows["a"]["psnr_db"], rows["a"]["linear_psnr_db"]) == ("aorta 12.346", "25.13", "23.50")
    (files / "out" / "a" / "volume.nrrd").write_bytes(b"damaged")
    write_cases(files, "name,image,seed", "a,ct.nrrd,0", "b,ct.nrrd,1", "c,ct.nrrd,0")
    assert main(run) == 0
    assert [call["out"].name for call in job.calls] == ["a", "b"]


def test_a_case_whose_input_changed_is_done_again(job, files):
    cases = write_cases(files, "name,image,mask", "a,ct.nrrd,mask.nrrd", "b,ct.nrrd,")
    run = ["batch", str(cases), "-o", str(files / "out")]
    assert main(run) == 0
    job.calls.clear()
    (files / "mask.nrrd").write_bytes(b"drawn anew")
    assert main(run) == 0
    assert [call["out"].name for call in job.calls] == ["a"]


@pytest.mark.parametrize("first", ["name;image;mask;label", "\ufeffname;image;mask;label", "sep=;\nname;image;mask;label"])
def test_a_case_list_of_a_spreadsheet_with_semicolons(job, files, first):
    cases = write_cases(files, first, 'a;ct.nrrd;mask.nrrd;"2;aorta"', "b;ct2.nii.gz;;")
    assert main(["batch", str(cases), "-o", str(files / "out")]) == 0
    assert [call["out"].name for call in job.calls] == ["a", "b"]
    assert job.calls[0]["inputs"].labels == (2, "aorta") and job.calls[1]["mask"] is None


def test_a_file_of_positions_is_found_beside_the_case_list(job, files):
    (files / "positions.txt").write_text("0 3 6")
    many = " ".join(str(number) for number in range(300))
    cases = write_cases(files, "name,image,positions", "a,ct.nrrd,positions.txt", f"b,ct.nrrd,{many}")
    assert main(["batch", str(cases), "-o", str(files / "out")]) == 0
    assert [call["inputs"].positions for call in job.calls] == [str(files / "positions.txt"), many]


def test_the_summary_does_not_overwrite_the_case_list(job, files, capsys):
    cases = write_cases(files, "name,image", "a,ct.nrrd").rename(files / "summary.csv")
    assert main(["batch", str(cases), "-o", str(files)]) == 2
    assert "choose another output folder" in capsys.readouterr().err and job.calls == []


def test_a_cancelled_batch_goes_on_where_it_stopped(job, files):
    cases = write_cases(files, "name,image", "a,ct.nrrd", "b,ct.nrrd", "c,ct.nrrd")
    job.errors["b"] = Cancelled()
    run = ["batch", str(cases), "-o", str(files / "out")]
    assert main(run) == 4
    assert list(summary(files / "out")) == ["a"]
    job.calls.clear()
    job.errors.clear()
    assert main(run) == 0
    assert [call["out"].name for call in job.calls] == ["b", "c"]


@pytest.mark.parametrize(
    "rows",
    [
        ["image"],
        ["name,preset", "a,fast"],
        ["name,image", "a,x.nrrd", "a,y.nrrd"],
        ["image", "x.nrrd,y.nrrd"],
    ],
)
def test_unusable_case_lists_are_refused_as_a_whole(rows, job, files, capsys):
    assert main(["batch", str(write_cases(files, *rows)), "-o", str(files / "out")]) == 2
    assert job.calls == [] and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("row", ["a,ct.nrrd,0", "a,ct.nrrd,two"])
def test_a_bad_option_fails_its_case_by_name(row, job, files):
    cases = write_cases(files, "name,image,scale", row)
    assert main(["batch", str(cases), "-o", str(files / "out")]) == 2
    assert "case 'a'" in summary(files / "out")["a"]["message"]


@pytest.mark.parametrize("column", ["magic", "help", "h", "output", "resume", "json_events", ""])
def test_a_column_that_is_no_option_of_a_case_is_named_before_anything_runs(column, job, files, capsys):
    cases = write_cases(files, f"name,image,{column}", "a,ct.nrrd,", f"b,ct.nrrd,{files}/elsewhere")
    assert main(["batch", str(cases), "-o", str(files / "out")]) == 2
    assert f"'{column.replace('_', '-')}'" in capsys.readouterr().err
    assert job.calls == [] and not (files / "out").exists()


def test_a_column_without_text_does_no_harm(job, files):
    cases = write_cases(files, "name,image,help,", "a,ct.nrrd,,")
    assert main(["batch", str(cases), "-o", str(files / "out")]) == 0
    assert summary(files / "out")["a"]["status"] == "done"
