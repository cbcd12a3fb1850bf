"""The project as a whole: what is declared is what is used, and the checks in use are the checks that are documented."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "itk": "itk-morphologicalcontourinterpolation",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "vtkmodules": "vtk",
}
"""Import names that differ from the name of the package that brings them."""

OPTIONAL = {"gsplat", "itk-morphologicalcontourinterpolation", "psutil"}
"""Packages that the library uses only where they are installed."""

PROVIDED_BY_SLICER = {"slicer", "qt", "ctk", "sampledata", "segmentstatistics", "segmentstatisticsplugins"}
PROVIDED_BY_SLICER |= {"abstractscriptedsubjecthierarchyplugin"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements}


def imported_packages() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted((ROOT / "MedGSLib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules = [node.module]
            for module in modules:
                package = module.partition(".")[0]
                if package not in sys.stdlib_module_names and package != "MedGSLib":
                    found[DISTRIBUTIONS.get(package, package).lower()] = path
    return found


def test_every_import_is_a_declared_dependency_and_the_other_way_round():
    declared = names(project()["project"]["dependencies"])
    imported = imported_packages()
    for package in OPTIONAL | PROVIDED_BY_SLICER:
        imported.pop(package, None)
    assert {name: path for name, path in imported.items() if name not in declared} == {}
    assert declared - set(imported) == set()


def test_optional_packages_are_extras():
    extras = project()["project"]["optional-dependencies"]
    assert {"cpu", "gpu", "test", "benchmark"} <= set(extras)
    assert names([requirement for group in extras.values() for requirement in group]) >= OPTIONAL


def test_every_folder_of_code_is_a_package_and_every_other_file_is_package_data():
    library = ROOT / "MedGSLib"
    assert [str(path.parent) for path in library.rglob("*.py") if not (path.parent / "__init__.py").is_file()] == []
    patterns = project()["tool"]["setuptools"]["package-data"]["MedGSLib"]
    tracked = subprocess.run(["git", "ls-files", "MedGSLib"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    others = [Path(name) for name in tracked if not name.endswith((".py", "CMakeLists.txt"))]
    assert [str(path) for path in others if not any(path.match(pattern.removeprefix("**/")) for pattern in patterns)] == []


def test_the_command_s_entry_point_exists():
    module, _, function = project()["project"]["scripts"]["medgs"].partition(":")
    assert hasattr(__import__(module, fromlist=[function]), function)


def test_the_readme_s_test_command_is_the_one_that_ci_runs():
    marked = re.findall(r"<!-- test command -->\n```bash\n(.+)\n```", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(marked) == 1
    assert "pip install -e '.[test]'" in marked[0] and "pytest" in marked[0] and ".venv" in marked[0]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- test command -->" in script and "pytest" not in script


def test_ci_is_executable_bash():
    path = ROOT / ".ci" / "run"
    assert path.stat().st_mode & 0o100
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_readme_names_every_command():
    from MedGSLib.cli.main import COMMANDS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [command for command in COMMANDS if f"medgs {command}" not in text] == []


def test_no_file_or_function_is_too_long():
    too_long = []
    for path in sorted((ROOT / "MedGSLib").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            too_long.append(str(path.relative_to(ROOT)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno - node.lineno + 1 > 60:
                too_long.append(f"{path.relative_to(ROOT)}:{node.name}")
    assert too_long == []
