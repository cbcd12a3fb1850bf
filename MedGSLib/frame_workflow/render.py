"""Frames at and between the trained ones, written as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from MedGSLib.errors import InputError
from MedGSLib.frame_workflow.model_folder import pixel_maximum
from MedGSLib.io.atomic import atomic_write
from MedGSLib.model_file import ModelHeader, load_model
from MedGSLib.progress import ProgressCallback, Reporter
from MedGSLib.raster import choose_rasterizer
from MedGSLib.render import CHUNK_BYTES, render_chunks

IMAGE_FOLDER, MASK_FOLDER = "render_img", "render_mask"
EIGHT_BIT = ("jpg", "jpeg", "bmp")
LARGEST_PIXEL = 65535


@dataclass(frozen=True)
class RenderOptions:
    """What to render.

    :ivar interp: positions for each frame gap.
    :ivar what: ``img``, ``mask`` or ``both`` (what the model has of them).
    :ivar chunk: frames at once, or None for as many as memory allows.
    """

    interp: int = 1
    what: str = "both"
    chunk: int | None = None
    extension: str = "png"
    device: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class FramePosition:
    """A frame to render: ``part`` / interp after ``frame``, at the stack coordinate ``t`` of the model."""

    frame: int
    part: int
    t: float

    def name(self, extension: str) -> str:
        """File name, e.g. 00012_3.png."""
        return f"{self.frame:05d}_{self.part}.{extension}"


def frame_positions(header: ModelHeader, interp: int) -> list[FramePosition]:
    """Every frame and the ``interp`` - 1 positions after it, but none after the last."""
    t = np.asarray(header.acquired_mm) / header.step_mm
    shares = [(part, part / interp) for part in range(interp)]
    between = [FramePosition(k, part, float(t[k] + share * (t[k + 1] - t[k]))) for k in range(len(t) - 1) for part, share in shares]
    return [*between, FramePosition(len(t) - 1, 0, float(t[-1]))]


def render_frames(model: Path, output: Path, options: RenderOptions, progress: ProgressCallback | None = None) -> list[Path]:
    """Write ``output/render_img`` and ``output/render_mask``.

    A mask folder of a model with several segments holds a label map: 0, or the segment's value where its field is the largest above 0.5.

    :return: the files written.
    :raises InputError: if the model has not what is asked for.
    """
    gaussians, header = load_model(model)
    wanted = _wanted(header, options.what)
    if MASK_FOLDER in wanted:
        _refuse_large_labels(header, options.extension)
    rasterizer, reason = choose_rasterizer(options.device, options.threads, gaussians.settings.blending)
    gaussians = gaussians.to("cuda" if rasterizer.name.startswith("gsplat") else "cpu")
    positions = frame_positions(header, options.interp)
    reporter = Reporter(progress)
    reporter.start("render", len(positions), reason)
    maximum = pixel_maximum(model)
    coordinates = np.array([position.t for position in positions])
    written: list[Path] = []
    for part, values in render_chunks(gaussians, coordinates, header.size, rasterizer, _chunk_bytes(options, header, gaussians.channels)):
        for position, channels in zip(positions[part], values):
            pictures = _pictures(channels, header, maximum, options.extension)
            for folder in wanted:
                path = output / folder / position.name(options.extension)
                _write_picture(path, pictures[folder])
                written.append(path)
        reporter.step(part.stop)
    return written


def _wanted(header: ModelHeader, what: str) -> list[str]:
    has = {IMAGE_FOLDER: header.has_image, MASK_FOLDER: bool(header.labels)}
    if what == "both":
        return [folder for folder, present in has.items() if present]
    folder = IMAGE_FOLDER if what == "img" else MASK_FOLDER
    if not has[folder]:
        raise InputError(f"The model has no {'image' if what == 'img' else 'mask'} head to render.")
    return [folder]


def _refuse_large_labels(header: ModelHeader, extension: str) -> None:
    largest = max(label.value for label in header.labels)
    most = 255 if extension in EIGHT_BIT else LARGEST_PIXEL
    if len(header.labels) > 1 and largest > most:
        way_out = "--extension png" if largest <= LARGEST_PIXEL else "--render img"
        raise InputError(f"A mask has the value {largest}, and {extension} files hold values up to {most}; choose {way_out}.")


def _chunk_bytes(options: RenderOptions, header: ModelHeader, channels: int) -> int:
    if options.chunk is None:
        return CHUNK_BYTES
    height, width = header.size
    return options.chunk * 4 * height * width * (channels + 1) * 2


def _pictures(channels: NDArray[np.float32], header: ModelHeader, maximum: int | None, extension: str) -> dict[str, NDArray]:
    pictures: dict[str, NDArray] = {}
    first_mask = 0
    if header.window is not None:
        first_mask = 1
        pictures[IMAGE_FOLDER] = _grey(channels[0], header.window, maximum, extension in EIGHT_BIT)
    if header.labels:
        pictures[MASK_FOLDER] = _mask(channels[first_mask:], header)
    return pictures


def _grey(values: NDArray[np.float32], window: tuple[float, float], maximum: int | None, eight_bit: bool) -> NDArray:
    """The image head in the values of the frames; in 8 bits across the window where the model was not made from frames."""
    if maximum is None:
        return np.clip(np.rint(values * 255.0), 0, 255).astype(np.uint8)
    pixels = window[0] + values * (window[1] - window[0])
    if eight_bit:
        pixels, maximum = pixels * (255.0 / maximum), 255
    return np.clip(np.rint(pixels), 0, maximum).astype(np.uint8 if maximum == 255 else np.uint16)


def _mask(values: NDArray[np.float32], header: ModelHeader) -> NDArray:
    if len(values) == 1:
        return np.clip(np.rint(values[0] * 255.0), 0, 255).astype(np.uint8)
    labels = np.array([label.value for label in header.labels])
    shown = np.where(values.max(axis=0) >= 0.5, labels[values.argmax(axis=0)], 0)
    return shown.astype(np.uint8 if labels.max() <= 255 else np.uint16)


def _write_picture(path: Path, pixels: NDArray) -> None:
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary)
