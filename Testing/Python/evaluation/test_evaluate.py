"""The whole evaluation on tiny synthetic volumes: exact cases, resuming, files, and that no method sees the truth."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import chain, combinations

import numpy as np
import pytest

from MedGSLib.config import preset_config
from MedGSLib.errors import Cancelled, InputError
from MedGSLib.evaluation import evaluate as evaluation
from MedGSLib.evaluation.cases import SUBSETS, Case, CaseDefinition, cases_of_stack, read_definitions
from MedGSLib.evaluation.evaluate import RESULT_FILE, Plan, evaluate
from MedGSLib.evaluation.figures import figures
from MedGSLib.evaluation.methods import Estimate, applies, solve
from MedGSLib.evaluation.names import METHODS_OF, PROTOCOLS
from MedGSLib.evaluation.protocols import pose
from MedGSLib.evaluation.results import ResultStore, read_cells
from MedGSLib.evaluation.table import Summary, markdown, summarize, summary_table
from MedGSLib.volume import Label, SliceStack

TINY = {"standard": preset_config("standard", self_check=False, iterations=3, gaussians=200, threads=1)}
TINY["standard"] = replace(TINY["standard"], prior=replace(TINY["standard"].prior, iterations=2, draft_iterations=2, channels=4, depth=2))


def ramp(slices: int = 13) -> SliceStack:
    """Linear along the stack, so that linear interpolation is exact; the segment is a cylinder."""
    z, y, x = np.mgrid[0:slices, 0:32, 0:36].astype(np.float32)
    image = (z + 3 * np.sin(x / 3) + 2 * np.cos(y / 4)).astype(np.float32)
    mask = ((y - 16) ** 2 + (x - 18) ** 2 < 81).astype(np.float32)
    matrix = np.diag([-0.8, 0.8, 1.0, 1.0])
    return SliceStack(image, mask[None], (Label(1, "rod"),), np.ones(slices, bool), np.arange(slices) * 1.2, matrix)


def plan(**changes: object) -> Plan:
    return Plan(**{"every": (3,), "methods": ("linear", "cubic", "nearest", "sdf"), "recipes": TINY, **changes})


def test_exact_answers_are_exact() -> None:
    cells = evaluate(ramp(), plan(protocols=("image", "sparse")))["cells"]
    found = {(cell["protocol"], cell["method"]): cell["figures"] for cell in cells}
    assert found["image", "linear"]["psnr_db"] > 38  # only values clipped to the window are missed
    assert found["image", "linear"]["acquired_psnr_db"] == pytest.approx(100)
    assert found["image", "linear"]["sharpness"] == pytest.approx(1, abs=0.02)
    for method in ("nearest", "sdf"):
        rod = found["sparse", method]
        assert rod["dice_volume"] == rod["dice_slices"] == 1
        assert abs(rod["volume_bias_percent"]) < 3 and rod["chamfer_mm"] < 0.2


def test_what_each_method_sees_decides_its_answer_alone() -> None:
    stack = ramp()
    noise = np.random.default_rng(1)
    hidden = np.arange(13) % 3 != 0
    image, occupancy = stack.image / 20, stack.occupancy.copy()
    changed = image.copy()
    changed[hidden] = noise.random(changed[hidden].shape)
    occupancy[:, hidden] = noise.random(occupancy[:, hidden].shape) > 0.5
    stack = replace(stack, image=image)
    for protocol, other_image in (("image", changed), ("mask", image), ("sparse", changed)):
        problems = [pose(Case("rod", one), protocol, 3) for one in (stack, replace(stack, image=other_image, occupancy=occupancy))]
        for method in METHODS_OF[protocol]:
            if method == "morphological":  # the same input, as test_protocols shows; starting its process twice is slow
                continue
            name = f"{method}:standard" if method in ("medgs", "prior") else method
            first, second = (solve(name, problem, TINY) for problem in problems)
            for part in ("image", "occupancy"):
                if getattr(first, part) is not None:
                    np.testing.assert_array_equal(getattr(first, part), getattr(second, part), err_msg=f"{protocol} {method} {part}")
                    assert getattr(first, part).shape == (problems[0].slices, 32, 36)


def test_thick_slices_are_answered_on_the_thin_grid() -> None:
    for every in (2, 3):
        problem = pose(Case("rod", replace(ramp(15), image=ramp(15).image / 20)), "thick", every)
        for method in ("medgs:standard", "prior:standard", "linear", "cubic_bp"):
            if applies(method, problem):
                found = figures(solve(method, problem, TINY), problem)
                assert found["psnr_db"] > 20
        assert applies("cubic_bp", problem) == (every == 3)


def test_a_worse_answer_has_worse_figures() -> None:
    problem = pose(Case("rod", replace(ramp(), image=ramp().image / 20)), "sparse", 3)
    good = solve("sdf", problem, TINY)
    shifted = Estimate(occupancy=np.roll(good.occupancy, 3, axis=2), surface=good.surface)
    assert figures(shifted, problem)["dice_volume"] < figures(good, problem)["dice_volume"] - 0.1
    nothing = figures(Estimate(occupancy=np.zeros_like(good.occupancy)), problem)
    assert nothing["dice_volume"] == 0 and np.isinf(nothing["chamfer_mm"])


def test_a_stopped_evaluation_is_continued(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[str] = []

    def counted(method, *arguments):
        solved.append(method)
        return solve(method, *arguments)

    monkeypatch.setattr(evaluation, "solve", counted)
    monkeypatch.setattr("MedGSLib.progress.Reporter.MIN_INTERVAL_S", 0.0)
    small = plan(protocols=("image",), methods=("linear", "cubic", "flow_dis"))
    with pytest.raises(Cancelled):
        evaluate(ramp(), small, tmp_path, lambda event: event.step < 2)
    assert solved == ["linear", "cubic"] and len(read_cells(tmp_path / RESULT_FILE)) == 2
    table = evaluate(ramp(), small, tmp_path)
    assert solved == ["linear", "cubic", "flow_dis"]
    assert [cell["method"] for cell in table["cells"]] == solved
    evaluate(replace(ramp(), image=ramp().image + np.eye(32, 36, dtype=np.float32)), small, tmp_path)
    assert len(solved) == 6  # another image is other work


def test_the_files_hold_the_same_cells(tmp_path) -> None:
    table = evaluate(ramp(), plan(methods=("medgs", "linear", "sdf"), protocols=("image", "sparse")), tmp_path)
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["schema_version"] == 1 and "VmHWM" in content["cost"] and "torch" in content["versions"]
    assert {"case", "subset", "protocol", "every", "profile", "method", "seed", "settings", "figures", "cost", "failure"} == set(
        content["cells"][0]
    )
    assert len(content["cells"]) == len(table["cells"]) == 4
    with (tmp_path / "evaluation.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["method"] for row in rows} == {"medgs:standard", "linear", "sdf"}
    psnr = {cell["method"]: cell["figures"]["psnr_db"] for cell in content["cells"] if cell["protocol"] == "image"}
    assert {row["method"]: float(row["psnr_db"]) for row in rows if row["psnr_db"] and row["protocol"] == "image"} == pytest.approx(
        psnr, rel=1e-5
    )
    assert (tmp_path / "evaluation.png").read_bytes()[:4] == b"\x89PNG"
    line = Summary(**content["summary"][0])
    assert line.rows == 1 and "medgs:standard" in line.sentence


def test_the_summary_names_the_cells_behind(tmp_path) -> None:
    evaluate(ramp(), plan(methods=("linear", "cubic"), protocols=("image",)), tmp_path)
    linear, cubic = read_cells(tmp_path / RESULT_FILE)
    own = [
        replace(linear, method="medgs:standard", seed=seed, figures={"psnr_db": value, "ssim": 1.0})
        for seed, value in enumerate((linear.figures["psnr_db"] - 3, linear.figures["psnr_db"] - 1))
    ]
    psnr, ssim = summarize([linear, cubic, *own])
    best = max(linear.figures["psnr_db"], cubic.figures["psnr_db"])
    assert psnr.mean_difference == pytest.approx(linear.figures["psnr_db"] - 2 - best) and len(psnr.behind) == 1
    assert ssim.behind == () and ssim.rows == 1


def test_the_summary_tells_the_numbers_of_slices_apart(tmp_path) -> None:
    evaluate(ramp(), plan(methods=("linear",), protocols=("image",), every=(2, 3)), tmp_path)
    alternatives = read_cells(tmp_path / RESULT_FILE)
    own = [
        replace(cell, method="medgs:standard", figures={"psnr_db": cell.figures["psnr_db"] + cell.every, "ssim": 0.5})
        for cell in alternatives
    ]
    lines = summarize([*alternatives, *own])
    leads = {line.every: line.mean_difference for line in lines if line.figure == "psnr_db"}
    assert leads == pytest.approx({None: 2.5, 2: 2.0, 3: 3.0})
    table = summary_table(lines).splitlines()
    assert len(table) == 2 + len(lines) and "| image | 3 | medgs:standard | psnr_db | 1 | +3 | +3 |  | none |" in table
    assert "±0.50" in markdown(
        [*own, replace(own[0], seed=1, figures={**own[0].figures, "psnr_db": own[0].figures["psnr_db"] + 1})], "image", own[0].subset
    )


def test_foreign_results_are_not_overwritten(tmp_path) -> None:
    (tmp_path / RESULT_FILE).write_text("{}")
    with pytest.raises(InputError, match="remove the file"):
        ResultStore(tmp_path / RESULT_FILE)
    with pytest.raises(InputError, match="no method called magic"):
        Plan(methods=("magic",))
    with pytest.raises(InputError, match="too few slices"):
        evaluate(replace(ramp(3)), plan(protocols=("image",)))


def test_the_image_and_every_segment_are_cases() -> None:
    stack = ramp()
    two = replace(stack, occupancy=np.repeat(stack.occupancy, 2, axis=0), labels=(Label(1, "a"), Label(2, "b")))
    assert [case.name for case in cases_of_stack(two, "x")] == ["x", "x/a", "x/b"]


def test_the_sets_share_neither_slices_of_images_nor_segments(shared_data, request: pytest.FixtureRequest) -> None:
    folder = request.config.rootpath / "Testing" / "Benchmarks"
    sets = {name: read_definitions(folder / f"cases_{name}.json") for name in SUBSETS}
    assert all(one.subset == name for name, found in sets.items() for one in found)
    for first, second in combinations(sets.values(), 2):
        assert not _segments(first) & _segments(second)
        assert not _slices_of_images(first) & _slices_of_images(second)
    assert not _files(sets["test"]) & _files(sets["development"])
    for one in chain(*sets.values()):
        assert set(one.every) <= set(PROTOCOLS) and (shared_data / one.image).exists()
    loaded = sets["validation"][0].load(shared_data)
    assert loaded.stack.shape == (31, 160, 160) and loaded.subset == "validation"


def _files(definitions: tuple[CaseDefinition, ...]) -> set[str]:
    return {path for one in definitions for path in (one.image, one.mask) if path}


def _segments(definitions: tuple[CaseDefinition, ...]) -> set[tuple[str, int]]:
    return {(one.mask, label) for one in definitions if one.mask for label in one.labels or (0,)}


def _slices_of_images(definitions: tuple[CaseDefinition, ...]) -> set[tuple[str, int]]:
    """The slices, by their number in the file, of the cases that measure images."""
    return {(one.image, number) for one in definitions if one.mask is None for number in range(*(one.crop[0] or (0, 1000)))}
