"""What is packaged is what is in the repository, and all descriptions of the extension agree."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NOT_PACKAGED = ("CMakeLists.txt",)


def cmake_list(folder: str, name: str) -> list[str]:
    """The entries of a ``set(NAME ...)`` with the module's name filled in."""
    text = (ROOT / folder / "CMakeLists.txt").read_text().replace("${MODULE_NAME}", folder)
    match = re.search(rf"set\({name}\s+([^)]*)\)", text)
    assert match, name
    return match.group(1).split()


def tracked(folder: str) -> set[str]:
    """Files under version control below ``folder``, relative to it."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line[len(folder) + 1 :] for line in listed if (ROOT / line).exists() and Path(line).name not in NOT_PACKAGED}


@pytest.mark.parametrize("folder, prefix", [("MedGSLib", "MedGSLib_PYTHON"), ("MedGS", "MODULE_PYTHON")])
def test_every_tracked_file_is_installed(folder, prefix):
    scripts, resources = cmake_list(folder, f"{prefix}_SCRIPTS"), cmake_list(folder, f"{prefix}_RESOURCES")
    assert len(scripts) == len(set(scripts)) and all(name.endswith(".py") for name in scripts)
    listed = set(scripts) | set(resources)
    assert sorted(tracked(folder) - listed) == [], "tracked but not in the CMake list: broken once installed"
    assert sorted(name for name in listed if not (ROOT / folder / name).is_file()) == [], "in the CMake list but not there"


def test_nothing_outside_a_folder_is_listed():
    for folder, prefix in (("MedGSLib", "MedGSLib_PYTHON"), ("MedGS", "MODULE_PYTHON")):
        for group in ("SCRIPTS", "RESOURCES"):
            assert not [name for name in cmake_list(folder, f"{prefix}_{group}") if ".." in name or name.startswith("/")]


def extension() -> dict[str, str]:
    """The EXTENSION_ values of the top CMakeLists.txt; each has to stand on one line for the index's checker."""
    text = (ROOT / "CMakeLists.txt").read_text()
    assert "project(MedGS)" in text
    return dict(re.findall(r'^set\(EXTENSION_(\w+) "([^"\n]*)"\)$', text, re.MULTILINE))


def s4ext() -> dict[str, str]:
    """The entries of the older description."""
    lines = [line for line in (ROOT / "MedGS.s4ext").read_text().splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def catalogue() -> dict[str, object]:
    """The entry for the Extensions Index."""
    return json.loads((ROOT / "MedGS.json").read_text())


def test_descriptions_agree():
    cmake, old, new = extension(), s4ext(), catalogue()
    for cmake_name, old_name in {
        "HOMEPAGE": "homepage",
        "CONTRIBUTORS": "contributors",
        "DESCRIPTION": "description",
        "ICONURL": "iconurl",
        "SCREENSHOTURLS": "screenshoturls",
        "DEPENDS": "depends",
    }.items():
        assert cmake[cmake_name] == old[old_name], old_name
    assert new["scm_url"] == old["scmurl"] == cmake["HOMEPAGE"] + ".git"
    assert new["scm_revision"] == old["scmrevision"] and new["category"] == old["category"]
    assert new["build_subdirectory"] == old["build_subdirectory"]
    assert (new["build_dependencies"] == []) == (old["depends"] == "NA")


def test_catalogue_entry_fits_the_schema():
    entry = catalogue()
    required = {"$schema", "category", "scm_url"}
    optional = {"scm_revision", "scm_type", "build_dependencies", "build_subdirectory", "enabled", "tier"}
    assert required <= set(entry) <= required | optional
    assert list(entry) == sorted(entry)
    assert isinstance(entry["tier"], int) and 1 <= entry["tier"] <= 5
    repository = str(entry["scm_url"]).rsplit("/", 1)[1]
    assert repository.startswith("Slicer"), "the index wants repositories called Slicer..."


def test_icon_and_screenshots_are_there():
    cmake = extension()
    base = cmake["ICONURL"].split("Resources/")[0]
    for url in [cmake["ICONURL"], *cmake["SCREENSHOTURLS"].split()]:
        assert url.startswith(base)
        assert (ROOT / url[len(base) :]).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n", url
    for icon in ("Resources/Icons/MedGS.png", "MedGS/Resources/Icons/MedGS.png"):
        assert struct.unpack(">II", (ROOT / icon).read_bytes()[16:24]) == (128, 128)


def test_slicer_side_tests_are_registered():
    text = (ROOT / "Testing" / "CMakeLists.txt").read_text()
    for script in (ROOT / "Testing" / "Slicer").glob("*.py"):
        assert f"Slicer/{script.name}" in text
        assert f"class {script.stem}(unittest.TestCase)" in script.read_text(), "found by file name in Slicer"
    assert "add_subdirectory(Testing)" in (ROOT / "CMakeLists.txt").read_text()
    assert "slicer_add_python_unittest(SCRIPT ${MODULE_NAME}.py)" in (ROOT / "MedGS" / "CMakeLists.txt").read_text()


def test_panel_file_stays_short():
    assert len((ROOT / "MedGS" / "MedGS.py").read_text().splitlines()) <= 400
