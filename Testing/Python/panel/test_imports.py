"""The panel loads fast, and with nothing but what Slicer brings along."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("slicer")

ROOT = Path(__file__).resolve().parents[3]
PANEL_SIDE = ["errors.py", "memory.py", "progress.py", "geometry.py", "volume.py", "job", "scene", "panel"]
LATER_FILES = [
    "io/atomic.py",
    "io/images.py",
    "io/meshes.py",
    "io/nifti.py",
    "io/writers.py",
    "mesh.py",
    "metrics_surface.py",
    "phantom.py",
]
LATER_FILES += ["phantom_shape.py", "phantom_tissue.py"]
"""What the panel imports only when a job is made or the sample data is asked for; that may need scipy and SimpleITK."""

WORKER_ONLY = ["torch", "numba", "gsplat", "safetensors", "skimage", "sklearn", "cv2", "rich", "llvmlite", "itk", "nibabel"]
LATER = ["scipy", "SimpleITK", "matplotlib", "pydicom", "pandas"]

LOADER = """
import importlib.abc, sys, time, types
import numpy, numpy.typing, vtk, slicer, slicer.util
from vtk.util import numpy_support

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in %r:
            raise ImportError(name + " must not be needed by the panel")
sys.meta_path.insert(0, Refuse())

def module(name, **members):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)

base = type("Base", (), {"__init__": lambda self, parent=None: None})
bases = ("ScriptedLoadableModule", "ScriptedLoadableModuleLogic", "ScriptedLoadableModuleTest", "ScriptedLoadableModuleWidget")
module("qt")
module("slicer.i18n", tr=str, translate=lambda context, text: text)
module("slicer.ScriptedLoadableModule", **{name: base for name in bases})
annotation = lambda *values: values
module("slicer.parameterNodeWrapper", parameterNodeWrapper=lambda cls: cls,
       Choice=annotation, Minimum=annotation, Maximum=annotation, WithinRange=annotation)
sys.path[:] = [entry for entry in sys.path if entry not in ("", %r)]
sys.path.append(%r)
before = set(sys.modules)
start = time.process_time()
import MedGS
seconds = time.process_time() - start
print(seconds)
import MedGSLib.panel.panel
print(" ".join(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


@pytest.fixture(scope="module")
def loads() -> list[tuple[float, set[str]]]:
    """Three fresh interpreters import ``MedGS.py`` as a checkout does, then the whole panel.

    :return: CPU seconds of the first, and top-level packages that came along with both.
    """
    script = LOADER % (WORKER_ONLY + LATER, str(ROOT), str(ROOT / "MedGS"))
    found = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, cwd="/", check=False)
        assert done.returncode == 0, done.stderr
        seconds, names = done.stdout.strip().splitlines()[-2:]
        found.append((float(seconds), set(names.split())))
    return found


def test_import_takes_less_than_50_ms(loads):
    assert min(seconds for seconds, _ in loads) < 0.05


def test_nothing_heavy_comes_along(loads):
    for _, names in loads:
        assert not names & {*WORKER_ONLY, *LATER}
        assert "MedGSLib" in names


def panel_files() -> list[Path]:
    """Every file that the panel may import."""
    library = ROOT / "MedGSLib"
    entries = [library / name for name in PANEL_SIDE + LATER_FILES]
    files = [path for entry in entries for path in ([entry] if entry.suffix else sorted(entry.rglob("*.py")))]
    return [*files, ROOT / "MedGS" / "MedGS.py"]


@pytest.mark.parametrize("path", panel_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_panel_side_is_python_3_9_without_worker_packages(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & set(WORKER_ONLY), f"line {getattr(node, 'lineno', 0)}"
    qt_free = "panel" not in path.parts and path.name != "MedGS.py"
    if qt_free:
        assert not any(isinstance(node, ast.Import) and {"qt", "ctk"} & {alias.name for alias in node.names} for node in ast.walk(tree))
