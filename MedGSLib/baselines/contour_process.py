"""ITK's morphological contour interpolation in a process of its own: ``python contour_process.py < grid.npy > filled.npy``.

A process that has run the filter and also uses SimpleITK, which holds an ITK of its own, dies of a corrupted heap when it ends
("malloc_consolidate(): unaligned fastbin chunk"). The script therefore imports neither SimpleITK nor the rest of MedGS.
"""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NOT_INSTALLED = 3


def interpolate_contours(grid: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Fill the empty slices between filled ones.

    :param grid: (Z, H, W), 0 or 1, with at least two slices that are not empty.
    :return: the filled grid, or None where the filter is not installed.
    :raises RuntimeError: if the process fails.
    """
    if importlib.util.find_spec("itk") is None:
        return None
    stream = io.BytesIO()
    np.save(stream, grid, allow_pickle=False)
    script = str(Path(__file__).resolve())
    done = subprocess.run([sys.executable, "-I", script], input=stream.getvalue(), capture_output=True, check=False)
    if done.returncode == NOT_INSTALLED:
        return None
    try:
        return np.load(io.BytesIO(done.stdout), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise RuntimeError(f"contour interpolation ended with code {done.returncode}: {done.stderr[-500:]!r}") from error


def main() -> int:
    """Read a grid from stdin, write the filled one to stdout."""
    import itk

    grid = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    if not hasattr(itk, "MorphologicalContourInterpolator"):
        return NOT_INSTALLED
    interpolator = itk.MorphologicalContourInterpolator.New(itk.image_from_array(grid))
    interpolator.SetAxis(2)
    interpolator.SetUseBallStructuringElement(True)
    interpolator.Update()
    stream = io.BytesIO()
    np.save(stream, itk.array_from_image(interpolator.GetOutput()), allow_pickle=False)
    sys.stdout.buffer.write(stream.getvalue())
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
