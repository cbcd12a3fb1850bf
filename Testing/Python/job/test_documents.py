"""request.json, events.jsonl and result.json: what is accepted, and the one sentence with which everything else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from MedGSLib.errors import InputError
from MedGSLib.job.events import LONGEST_LINE, EventReader, EventWriter, JobEvent
from MedGSLib.job.folder import JobFolder, list_jobs
from MedGSLib.job.request import JobGeometry, JobInputs, JobRequest, check_parameters
from MedGSLib.job.result import JobResult, collect_outputs, verify, write_result
from MedGSLib.job.schema import SCHEMA_VERSION
from MedGSLib.progress import ProgressEvent
from MedGSLib.volume import Label

OBLIQUE = np.array([[-0.6, 0.3, 0.0, 12.5], [0.2, 0.7, 0.4, -80.0], [0.0, -0.1, 3.0, 1e-3], [0, 0, 0, 1.0]])


def sound_request() -> JobRequest:
    """A request that uses every entry."""
    return JobRequest(
        inputs=JobInputs("image.nrrd", "mask.nrrd", (Label(1, "Aorta"), Label(7, "Thrombus, größer", (0.0, 0.5, 1.0)))),
        geometry=JobGeometry.from_matrix(OBLIQUE, np.array([0.0, 3.0, 6.5])),
        parameters={"mode": "joint", "axis": "k", "spacing": 1, "device": "cpu", "annotated": "every:3", "overrides": {"gaussians": 100}},
        provenance={"software": {"slicer": "5.12.3"}, "volume": "CTA"},
        title="CTA Aorta",
    )


def with_change(*path_and_value) -> dict:
    """The document of a sound request with one member replaced (or removed, for the value ``...``)."""
    document = json.loads(json.dumps(sound_request().as_json()))
    *path, name, value = path_and_value
    inner = document
    for step in path:
        inner = inner[step]
    if value is ...:
        del inner[name]
    else:
        inner[name] = value
    return document


def assert_one_sentence(error: pytest.ExceptionInfo) -> None:
    """A clinician reads this."""
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text and len(text) < 300 and text[0].isupper()


def test_request_survives_json_with_its_geometry_to_the_last_bit():
    request = sound_request()
    again = JobRequest.from_json(json.loads(json.dumps(request.as_json())))
    assert again.geometry is not None and np.array_equal(again.geometry.matrix, OBLIQUE)
    assert again.geometry.positions_mm == (0.0, 3.0, 6.5)
    assert again.inputs == request.inputs and again.title == request.title and again.provenance == request.provenance
    assert again.parameters == {**request.parameters, "spacing": 1.0}


@pytest.mark.parametrize(
    ("document", "fragment"),
    [
        ([], "not a JSON object"),
        (with_change("schema", SCHEMA_VERSION + 1), "update MedGS"),
        (with_change("schema", ...), "lacks the entry 'schema'"),
        (with_change("schema", "1"), "must be a whole number"),
        (with_change("schema", True), "must be a whole number"),
        (with_change("schema", 0), "impossible"),
        (with_change("inputz", {}), "unknown entry 'inputz'"),
        (with_change("inputs", ...), "lacks the entry 'inputs'"),
        (with_change("inputs", {"labels": []}), "neither an image nor a mask"),
        (with_change("inputs", "image", "../secret.nrrd"), "inside the job folder"),
        (with_change("inputs", "image", "/etc/passwd"), "inside the job folder"),
        (with_change("inputs", "image", "C:\\scan.nrrd"), "inside the job folder"),
        (with_change("inputs", "image", "a/../../b"), "inside the job folder"),
        (with_change("inputs", "image", 5), "must be a text"),
        (with_change("inputs", "labels", [{"value": 0, "name": "x"}]), "outside 1 to 255"),
        (with_change("inputs", "labels", [{"value": 1, "name": "x", "color": [0, 0, 2]}]), "0 to 1"),
        (with_change("inputs", "labels", [{"value": 1, "name": "x"}, {"value": 1, "name": "y"}]), "two segments"),
        (with_change("geometry", "ijk_to_ras", np.eye(3).tolist()), "4x4 affine"),
        (with_change("geometry", "ijk_to_ras", [["a"] * 4] * 4), "not made of numbers"),
        (with_change("geometry", "ijk_to_ras", np.diag([1.0, 1, 0, 1]).tolist()), "no volume"),
        (with_change("geometry", "ijk_to_ras", np.diag([1.0, 1, 1e999, 1]).tolist()), "not finite"),
        (with_change("geometry", "positions_mm", [0, 2, 1]), "increasing"),
        (with_change("parameters", "preset", "best"), "none of fast"),
        (with_change("parameters", "scale", 2), "either a scale or a slice spacing"),
        (with_change("parameters", "spacing", -1), "at least"),
        (with_change("parameters", "seed", 1.5), "whole number"),
        (with_change("parameters", "colour", 1), "unknown entry 'colour'"),
        (with_change("parameters", "overrides", {"a": [1]}), "setting 'a'"),
        (with_change("inputs", "mask", ...), "needs a mask"),
    ],
)
def test_unusable_request_is_refused_with_one_sentence(document, fragment):
    with pytest.raises(InputError, match=fragment) as error:
        JobRequest.from_json(document)
    assert_one_sentence(error)


def test_null_parameters_mean_the_default():
    assert check_parameters({"scale": None, "spacing": 0.5, "crop": False}) == {"spacing": 0.5, "crop": False}


def test_folder_writes_only_valid_requests_and_lists_jobs(tmp_path):
    folder = JobFolder.create(tmp_path, sound_request())
    assert "CTA-Aorta" in folder.path.name and list_jobs(tmp_path) == [folder]
    with pytest.raises(InputError, match=r"image\.nrrd of the job is missing"):
        folder.read_request()
    with pytest.raises(InputError, match="none of"):
        folder.write_request(JobRequest(JobInputs("image.nrrd"), parameters={"device": "tpu"}))
    assert [path.name for path in folder.path.iterdir()] == ["request.json"]


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1', "\x00", "[" * 100_000])
def test_damaged_request_file_is_one_sentence(tmp_path, text):
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(InputError, match="damaged|not a JSON object") as error:
        JobFolder(tmp_path).read_request()
    assert_one_sentence(error)


def test_only_job_folders_are_deleted(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(InputError, match="not a job folder"):
        JobFolder(tmp_path).delete()
    assert (tmp_path / "precious.txt").exists()
    folder = JobFolder.create(tmp_path, sound_request())
    folder.delete()
    assert not folder.path.exists()


def test_events_round_trip_without_empty_or_infinite_members(tmp_path):
    event = JobEvent.from_progress(ProgressEvent("fit", 3, 9, eta_s=float("inf"), loss=0.25, message="läuft"), preview="output/p.png")
    document = json.loads(event.as_line())
    assert "eta_s" not in document and "psnr" not in document and "exit_code" not in document and document["time"] > 1e9
    again = JobEvent.from_line(event.as_line().encode())
    assert again is not None and (again.stage, again.step, again.loss, again.message) == ("fit", 3, 0.25, "läuft")
    assert again.preview == "output/p.png" and again.fraction == pytest.approx(1 / 3)


def test_event_line_has_the_names_of_the_contract():
    line = JobEvent("fit", 1, 2, 3.0, 4.0, 5.0, 6.0, "info", "m").as_line()
    assert set(json.loads(line)) >= {"stage", "step", "total", "eta_s", "loss", "psnr", "gpu_mem_mb", "level", "message"}


@pytest.mark.parametrize("line", [b"", b"hello", b"\xff\xfe", b"[]", b"7", b"null", b'{"step": 1}', b'{"stage": 3}', b"[" * 60_000])
def test_garbage_is_no_event(line):
    assert JobEvent.from_line(line) is None


def test_members_of_the_wrong_type_fall_back_to_their_defaults():
    event = JobEvent.from_line(b'{"stage": "fit", "step": "7", "total": true, "loss": NaN, "eta_s": 1e999, "message": 5, "extra": {}}')
    assert event == JobEvent("fit")


def test_reader_waits_for_the_end_of_a_half_written_line(tmp_path):
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.read() == []
    whole = JobEvent("fit", 1, message="ä").as_line().encode() + b"\n"
    for cut in range(len(whole)):
        with path.open("ab") as stream:
            stream.write(whole[cut : cut + 1])
        events = reader.read()
        assert len(events) == (cut == len(whole) - 1)
    assert reader.garbage == 0


def test_reader_skips_garbage_endless_lines_and_starts_over_after_truncation(tmp_path):
    path = tmp_path / "events.jsonl"
    good = JobEvent("fit", 2).as_line().encode() + b"\n"
    path.write_bytes(b"\x00\x01\n" + b"x" * (3 * LONGEST_LINE) + b"\n" + good + b'{"stage":')
    reader = EventReader(path)
    seen = []
    for _ in range(200):
        seen += reader.read(most=1000)
    for _ in range(100):
        seen += reader.read(most=10_000)
    assert [event.step for event in seen] == [2] and reader.garbage >= 1
    path.write_bytes(good)
    assert [event.step for event in reader.read()] == [2]
    assert [event.step for event in EventReader(path, from_end=True).read()] == []


def test_writer_ends_the_half_line_that_a_killed_worker_left(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"stage":"fit","st')
    writer = EventWriter(path)
    writer.write(JobEvent("start"))
    writer.close()
    writer.write(JobEvent("late"))
    reader = EventReader(path)
    assert [event.stage for event in reader.read()] == ["start"] and reader.garbage == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_does_not_stop_the_writer_from_being_used(tmp_path):
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    writer = EventWriter(tmp_path / "events.jsonl")
    writer.write(JobEvent("fit"))
    assert writer.failed
    writer.write(JobEvent("end", exit_code=3))
    writer.close()


def finished(folder: Path) -> JobResult:
    """Two outputs and their manifest."""
    output = folder / "output"
    (output / "checkpoint").mkdir(parents=True)
    (output / "checkpoint" / "state.safetensors").write_bytes(b"state")
    (output / ".partial-1-mesh.stl").write_bytes(b"half")
    (output / "volume.nrrd").write_bytes(b"volume")
    (output / "mesh.vtp").write_bytes(b"mesh")
    result = JobResult(collect_outputs(folder, output), metrics={"psnr": 30.0}, timings={"fit_s": 2.0}, versions={"medgs": "0"})
    write_result(folder, result)
    return result


def test_result_lists_finished_outputs_with_hash_size_and_kind(tmp_path):
    result = finished(tmp_path)
    assert [(output.file, output.kind, output.bytes) for output in result.outputs] == [
        ("output/mesh.vtp", "mesh", 4),
        ("output/volume.nrrd", "volume", 6),
    ]
    assert verify(tmp_path) == result
    assert result.path(tmp_path, "volume") == tmp_path / "output" / "volume.nrrd" and result.path(tmp_path, "model") is None


def test_result_can_be_moved_with_its_folder(tmp_path):
    finished(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "elsewhere")
    assert verify(tmp_path / "elsewhere").metrics == {"psnr": 30.0}


@pytest.mark.parametrize(
    "damage", ["missing manifest", "changed", "same size", "removed", "truncated manifest", "outside", "link", "empty", "newer"]
)
def test_tampering_is_noticed(tmp_path, damage):
    folder = tmp_path / "job"
    finished(folder)
    manifest, mesh = folder / "result.json", folder / "output" / "mesh.vtp"
    document = json.loads(manifest.read_text())
    if damage == "missing manifest":
        manifest.unlink()
    elif damage == "changed":
        mesh.write_bytes(b"another mesh")
    elif damage == "same size":
        mesh.write_bytes(b"MESH")
    elif damage == "removed":
        mesh.unlink()
    elif damage == "truncated manifest":
        manifest.write_text(manifest.read_text()[:-40])
    elif damage == "outside":
        (tmp_path / "mesh.vtp").write_bytes(b"mesh")
        document["outputs"][0]["file"] = "../mesh.vtp"
    elif damage == "link":
        (tmp_path / "mesh.vtp").write_bytes(b"mesh")
        mesh.unlink()
        mesh.symlink_to(tmp_path / "mesh.vtp")
    elif damage == "empty":
        document["outputs"] = []
    elif damage == "newer":
        document["schema"] = SCHEMA_VERSION + 1
    if damage in ("outside", "empty", "newer"):
        manifest.write_text(json.dumps(document))
    with pytest.raises(InputError) as error:
        verify(folder)
    assert_one_sentence(error)


def test_manifest_is_all_or_nothing(tmp_path, monkeypatch):
    import os

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match="disk is full"):
        finished(tmp_path)
    assert not (tmp_path / "result.json").exists() and not list(tmp_path.glob(".partial*"))
