"""Checkpoints are whole or absent, and belong to one run."""

from __future__ import annotations

import pytest
import torch

from MedGSLib.errors import ResourceError
from MedGSLib.training import checkpoint as module
from MedGSLib.training.checkpoint import CheckpointStore, cpu_copy

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b.step": torch.tensor(4.0)}


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    store = CheckpointStore(tmp_path / "made" / "on demand", "run")
    assert store.load("fit") is None
    store.save("fit", TENSORS, {"iteration": 7, "loss": 0.25})
    loaded = store.load("fit")
    assert loaded.facts == {"iteration": 7, "loss": 0.25}
    assert loaded.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(loaded.tensors[name], TENSORS[name]) for name in TENSORS)
    assert store.load("prior") is None


def test_a_checkpoint_of_another_run_is_not_used(tmp_path, caplog):
    CheckpointStore(tmp_path, "one").save("fit", TENSORS, {})
    assert CheckpointStore(tmp_path, "other").load("fit") is None
    assert "other inputs or settings" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_checkpoint_is_not_used(tmp_path, share, caplog):
    store = CheckpointStore(tmp_path, "run")
    store.save("fit", TENSORS, {"iteration": 7})
    path = tmp_path / "fit.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert store.load("fit") is None
    assert "not used" in caplog.text


def test_a_failing_write_keeps_the_earlier_checkpoint(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, "run")
    store.save("fit", TENSORS, {"iteration": 1})

    def full(tensors, path, metadata):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(ResourceError, match="disk is full"):
        store.save("fit", TENSORS, {"iteration": 2})
    assert store.load("fit").facts == {"iteration": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["fit.safetensors"]


def test_the_interval_starts_anew_with_each_write(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    store = CheckpointStore(tmp_path, "run", interval_s=30.0)
    now[0] = 129.0
    assert not store.is_due()
    now[0] = 130.0
    assert store.is_due()
    store.save("fit", TENSORS, {})
    assert not store.is_due()


def test_remove_leaves_foreign_files(tmp_path):
    folder = tmp_path / "checkpoint"
    store = CheckpointStore(folder, "run")
    store.remove()
    store.save("fit", TENSORS, {})
    (folder / "weights.safetensors").write_text("mine")
    store.remove()
    assert [path.name for path in folder.iterdir()] == ["weights.safetensors"]
    (folder / "weights.safetensors").unlink()
    store.remove()
    assert not folder.exists()


def test_remove_takes_what_a_killed_write_left(tmp_path):
    folder = tmp_path / "checkpoint"
    store = CheckpointStore(folder, "run")
    store.save("fit", {"x": torch.zeros(2)}, {})
    (folder / ".partial-0123abcd-fit.safetensors").write_bytes(b"half")
    store.remove()
    assert not folder.exists()


def test_copies_do_not_follow_their_originals():
    original = torch.ones(3, requires_grad=True)
    copy = cpu_copy({"x": original})["x"]
    with torch.no_grad():
        original.add_(1.0)
    assert copy.tolist() == [1.0, 1.0, 1.0] and not copy.requires_grad
