"""ITK's morphological contour interpolation in a process of its own, which stays ready until this one ends.

A process that has run the filter and also uses SimpleITK, which holds an ITK of its own, dies of a corrupted heap when it ends
("malloc_consolidate(): unaligned fastbin chunk"). This file is therefore run as a script that imports neither SimpleITK nor the rest of
MedGS. Loading the filter takes seconds, hence one process for all calls.

Over the pipes: the length as 8 bytes, then an array in numpy's file format; a length of 0 says that the filter is not installed.
"""

from __future__ import annotations

import atexit
import importlib.util
import io
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

_LENGTH_BYTES = 8
_lock = threading.Lock()
_process: subprocess.Popen[bytes] | None = None


def interpolate_contours(grid: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Fill the empty slices between filled ones.

    :param grid: (Z, H, W), 0 or 1, with at least two slices that are not empty.
    :return: the filled grid, or None where the filter is not installed.
    :raises RuntimeError: if the process fails.
    """
    if importlib.util.find_spec("itk") is None:
        return None
    with _lock:
        process = _started()
        assert process.stdin is not None and process.stdout is not None
        try:
            _send(process.stdin, grid)
            return _receive(process.stdout)
        except (OSError, EOFError, ValueError) as error:
            process.kill()
            raise RuntimeError(f"contour interpolation ended with code {process.wait()}") from error


def _started() -> subprocess.Popen[bytes]:
    global _process
    if _process is None or _process.poll() is not None:
        if _process is None:
            atexit.register(_stop)
        script = str(Path(__file__).resolve())
        _process = subprocess.Popen([sys.executable, "-I", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return _process


def _stop() -> None:
    if _process is not None and _process.poll() is None:
        _process.kill()
        _process.wait()


def _send(stream: IO[bytes], array: NDArray[np.uint8] | None) -> None:
    content = io.BytesIO()
    if array is not None:
        np.save(content, array, allow_pickle=False)
    stream.write(len(content.getvalue()).to_bytes(_LENGTH_BYTES, "little"))
    stream.write(content.getvalue())
    stream.flush()


def _receive(stream: IO[bytes]) -> NDArray[np.uint8] | None:
    header = stream.read(_LENGTH_BYTES)
    if len(header) < _LENGTH_BYTES:
        raise EOFError
    length = int.from_bytes(header, "little")
    return np.load(io.BytesIO(stream.read(length)), allow_pickle=False) if length else None


def main() -> None:
    """Answer each grid on stdin with the filled one on stdout, until stdin is closed."""
    import itk

    installed = hasattr(itk, "MorphologicalContourInterpolator")
    while True:
        try:
            grid = _receive(sys.stdin.buffer)
        except EOFError:
            return
        if not installed or grid is None:
            _send(sys.stdout.buffer, None)
            continue
        interpolator = itk.MorphologicalContourInterpolator.New(itk.image_from_array(grid))
        interpolator.SetAxis(2)
        interpolator.SetUseBallStructuringElement(True)
        interpolator.Update()
        _send(sys.stdout.buffer, itk.array_from_image(interpolator.GetOutput()))


if __name__ == "__main__":
    main()
