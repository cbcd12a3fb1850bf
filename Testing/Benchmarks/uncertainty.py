"""How many of the true errors lie inside the 90 % bands, of the image and of the surfaces, on slices that no run saw.

    python Testing/Benchmarks/uncertainty.py [--data ../shared/data] [--subset development validation test]
        [--cases NAME ...] [--every N ...] [--preset fast] [--thickness-only] [--threads N] [-o Testing/Benchmarks/results/uncertainty.json]

Every n-th slice of a fully sampled volume is kept, with its mask where the case has one, and reconstructed with its self-check, from
which the bands come. The image is compared with the slices left out. The vertices of the surface are compared with the surface of the
full mask, whose half-voxel staircase is smoothed by a windowed sinc filter that keeps the volume; only vertices nearer to a left-out
slice than to a kept one, between the first and the last kept slice, count. Cells measured before are kept.

Of cases with thick slices it is also told whether a thickness is called doubtful that is the true one, half of it, or 1.5 times it.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkDoubleArray
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkFiltersCore import vtkImplicitPolyDataDistance

from MedGSLib.config import ReconstructionConfig, preset_config
from MedGSLib.evaluation.cases import SUBSETS, CaseDefinition, read_definitions
from MedGSLib.evaluation.names import IMAGE, SPARSE, THICK
from MedGSLib.evaluation.protocols import Problem, pose
from MedGSLib.geometry import transform_points
from MedGSLib.io.atomic import write_json
from MedGSLib.mesh import POSITION_ARRAY, occupancy_to_mesh
from MedGSLib.preparation import gap_over_pixel
from MedGSLib.prior.profile import SliceProfile
from MedGSLib.prior.thickness_check import thickness_doubt
from MedGSLib.reconstruct import Reconstruction, reconstruct

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data"
LEVEL = 0.9
SMOOTHING_ITERATIONS = 20
TOLD_WIDTHS = (1.0, 0.5, 1.5)

logger = logging.getLogger("uncertainty")


def covered(error: NDArray[np.floating], band: NDArray[np.floating]) -> dict[str, float]:
    """Share of the errors inside their bands, and by how much the bands would have to grow for 90 %.

    ``in_wide_third`` is the share inside among the widest third of the bands, which a band that is right only on average misses.
    """
    ratio = error / np.maximum(band, np.finfo(np.float32).tiny)
    wide = band >= np.quantile(band, 2 / 3)
    return {
        "inside": float((ratio <= 1.0).mean()),
        "in_wide_third": float((ratio[wide] <= 1.0).mean()),
        "factor_for_90_percent": float(np.quantile(ratio, LEVEL)),
        "error_q90": float(np.quantile(error, LEVEL)),
        "mean_band": float(band.mean()),
    }


def image_coverage(result: Reconstruction, problem: Problem) -> dict[str, float]:
    """Voxels of the left-out slices; errors in the 0..1 window of the case."""
    truth = problem.truth
    assert truth.image is not None and result.image is not None and result.uncertainty is not None
    rows = truth.rows[truth.scored]
    return covered(np.abs(result.image[rows] - truth.image[truth.scored]).ravel(), result.uncertainty[rows].ravel())


def position_coverage(result: Reconstruction, problem: Problem) -> dict[str, float] | None:
    """Vertices on the left-out slices; errors in mm, None without a surface."""
    surface = next(iter(result.meshes.values()))
    truth = problem.truth.mask
    if truth is None or surface.GetNumberOfPoints() == 0:
        return None
    reference = occupancy_to_mesh(truth.astype(np.float32), problem.truth_to_ras, smoothing_iterations=SMOOTHING_ITERATIONS)
    points = vtk_to_numpy(surface.GetPoints().GetData())
    along = transform_points(np.linalg.inv(problem.truth_to_ras), points)[:, 2]
    nearest = np.rint(along).astype(int)
    counted = (along > 0) & (along < len(truth) - 1) & (nearest % problem.every != 0)
    if not counted.any():
        return None
    band = vtk_to_numpy(surface.GetPointData().GetArray(POSITION_ARRAY))
    return covered(distances_mm(points[counted], reference), band[counted])


def distances_mm(points: NDArray[np.floating], surface: vtkPolyData) -> NDArray[np.float64]:
    """Exact distances of points (N, 3) to the triangles of a surface, (N,)."""
    implicit = vtkImplicitPolyDataDistance()
    implicit.SetInput(surface)
    values = vtkDoubleArray()
    implicit.FunctionValue(numpy_to_vtk(np.ascontiguousarray(points, np.float64)), values)
    return np.abs(vtk_to_numpy(values))


def measure(definition: CaseDefinition, every: int, data: Path, config: ReconstructionConfig) -> dict[str, Any]:
    """One cell: a case at one n."""
    started = time.monotonic()
    protocol = IMAGE if definition.mask is None else SPARSE
    problem = pose(definition.load(data), protocol, every)
    mode = "image" if definition.mask is None else "joint"
    overrides = {"mode": mode, "scale": problem.scale, "self_check": True, "threads": config.threads}
    result = reconstruct(problem.stack, preset_config(config.preset, **overrides))
    return {
        "case": definition.name,
        "subset": definition.subset,
        "every": every,
        "preset": config.preset,
        "kept_slices": problem.stack.shape[0],
        "image": image_coverage(result, problem),
        "position_mm": None if definition.mask is None else position_coverage(result, problem),
        "seconds": time.monotonic() - started,
    }


def told_thickness(definition: CaseDefinition, data: Path) -> list[dict[str, Any]]:
    """What is said about true and wrong thicknesses of averages over n slices."""
    case = definition.load(data)
    found = []
    for every in definition.every.get(THICK, ()):
        stack = pose(case, THICK, every, "box").stack
        assert stack.image is not None
        for told in TOLD_WIDTHS:
            doubt = thickness_doubt(stack.image, stack.coordinates, gap_over_pixel(stack), SliceProfile("box", told))
            found.append({"case": case.name, "subset": case.subset, "every": every, "told_over_true": told} | doubt)
    return found


def summary(cells: list[dict[str, Any]], thicknesses: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean coverage, its range, in how many cells it is within 85 to 95 %, and how many thicknesses were called doubtful."""
    found: dict[str, Any] = {}
    groups = sorted({(cell["subset"], cell["preset"]) for cell in cells})
    for (subset, preset), what in product(groups, ("image", "position_mm")):
        chosen = [cell for cell in cells if (cell["subset"], cell["preset"]) == (subset, preset) and cell[what] is not None]
        if chosen:
            inside = [cell[what]["inside"] for cell in chosen]
            found[f"{subset} {preset} {what}"] = {
                "cells": len(inside),
                "mean_inside": float(np.mean(inside)),
                "least": min(inside),
                "most": max(inside),
                "cells_within_85_to_95_percent": sum(0.85 <= share <= 0.95 for share in inside),
            }
    for subset, told in product(SUBSETS, TOLD_WIDTHS):
        said = [one["doubtful"] for one in thicknesses if one["subset"] == subset and one["told_over_true"] == told]
        if said:
            found[f"{subset} thickness told {told:g} times"] = {"told": len(said), "doubtful": said.count(True)}
    return found


def write(path: Path, cells: list[dict[str, Any]], thicknesses: list[dict[str, Any]]) -> None:
    """The figures so far, with their summary."""
    write_json(path, {"level": LEVEL, "summary": summary(cells, thicknesses), "cells": cells, "thicknesses": thicknesses})


def main() -> None:
    """Measure what is missing and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--subset", nargs="+", choices=SUBSETS, default=list(SUBSETS))
    parser.add_argument("--cases", nargs="+", default=None)
    parser.add_argument("--every", nargs="+", type=int, default=[2, 3, 5])
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--thickness-only", action="store_true", help="only what is said about wrong slice thicknesses, which is quick")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "uncertainty.json")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("MedGSLib").setLevel(logging.ERROR)
    config = preset_config(options.preset, threads=options.threads)
    stored = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    cells, thicknesses = stored.get("cells", []), stored.get("thicknesses", [])
    done = {(cell["case"], cell["every"], cell["preset"]) for cell in cells}
    for definition in (one for subset in options.subset for one in read_definitions(HERE / f"cases_{subset}.json")):
        if options.cases is not None and definition.name not in options.cases:
            continue
        if not (options.data / definition.image).exists():
            logger.warning("%s is left out, since %s is not there.", definition.name, options.data / definition.image)
            continue
        thicknesses = [one for one in thicknesses if one["case"] != definition.name] + told_thickness(definition, options.data)
        for every in [] if options.thickness_only else options.every:
            if (definition.name, every, options.preset) in done:
                continue
            cells.append(measure(definition, every, options.data, config))
            logger.info("%s", json.dumps(cells[-1]))
            write(options.output, cells, thicknesses)
        write(options.output, cells, thicknesses)


if __name__ == "__main__":
    main()
