"""What is known of a mask between its annotated slices: a dense signed distance, guided by the image where that is real."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from MedGSLib.baselines.masks import interpolate_cubic, interpolate_linear
from MedGSLib.errors import InputError
from MedGSLib.prior.mask_distance import slice_signed_distances
from MedGSLib.prior.mask_guided import GuidedMask, guided_distances
from MedGSLib.prior.mask_shape import interpolate_shape
from MedGSLib.progress import Reporter

log = logging.getLogger(__name__)

Planes = NDArray[np.float32]
BetweenMethod = Literal["shape", "linear", "cubic"]

GUIDED_MARGIN_PX = 24
WINDOW_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class MaskPrior:
    """:ivar signed_distance: float32 (T, H, W), positive inside, in px of the column direction; :ivar report: how it was made."""

    signed_distance: Planes
    report: dict[str, Any] = field(default_factory=dict)


def dense_coordinates(coordinates: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """The positions k + j / factor, j = 0 .. factor - 1, of all gaps, and the last slice: ((S - 1) factor + 1,)."""
    share = np.arange(factor) / factor
    inner = coordinates[:-1, None] + np.diff(coordinates)[:, None] * share
    return np.append(inner.ravel(), coordinates[-1])


def mask_prior(
    occupancy: NDArray,
    annotated: NDArray[np.bool_],
    factor: int,
    gap_over_pixel: tuple[float, float],
    *,
    image: Planes | None = None,
    coordinates: NDArray[np.float64] | None = None,
    between: BetweenMethod = "shape",
    reporter: Reporter | None = None,
) -> MaskPrior:
    """The signed distance of one segment on the dense slices.

    Slices that are not annotated but have a real image are filled first, guided by the image (:mod:`MedGSLib.prior.mask_guided`); then
    the gaps between all known slices are filled by the learnt shape interpolator (:mod:`MedGSLib.prior.mask_shape`). Annotated slices
    keep their own distance. Beyond the first and last annotated slice the nearest one is continued. The image guides with the share
    that left-out annotated slices show to be best, and not at all where that is small.

    :param occupancy: (S, H, W), bool or 0..1; slices that are not annotated are ignored.
    :param annotated: bool (S,); an annotated slice may be empty.
    :param factor: subdivisions of each slice gap.
    :param gap_over_pixel: slice gap over the pixel size, (row, column).
    :param image: float32 (S, H, W) on the same slices in any linear scale, or None where no image shall guide.
    :param coordinates: (S,), increasing, in units of the slice gap; 0, 1, 2, ... by default.
    :param between: what fills gaps without an image.
    :return: float32 ((S - 1) factor + 1, H, W).
    :raises InputError: if no slice is annotated.
    """
    annotated = np.asarray(annotated, dtype=bool)
    if not annotated.any():
        raise InputError("None of the slices is annotated, so there is no mask to reconstruct.")
    reporter = reporter or Reporter()
    coordinates = np.arange(len(annotated), dtype=np.float64) if coordinates is None else np.asarray(coordinates, np.float64)
    chosen = np.flatnonzero(annotated)
    distances = slice_signed_distances(occupancy, annotated, (gap_over_pixel[1], gap_over_pixel[0]))
    report: dict[str, Any] = {
        "annotated_slices": len(chosen),
        "continued_slices": int(chosen[0] + len(annotated) - 1 - chosen[-1]),
        "between": between,
    }
    known = coordinates[chosen]
    if image is not None and not annotated.all() and (distances > 0).any():
        guided = _guided(image, annotated, distances, gap_over_pixel, coordinates, reporter)
        helpful = guided.method != "shape"
        if helpful:
            distances, known = guided.distances, coordinates
        report |= {
            "guided_slices": int(np.count_nonzero(~annotated)) if helpful else 0,
            "guided_by": guided.method if helpful else "none",
            "image_share": guided.share if helpful else 0.0,
            "held_out_errors": guided.errors,
            "decision": _decision(guided, len(chosen)),
        }
    wanted = dense_coordinates(coordinates, factor)
    field_ = _between(distances, known, wanted, gap_over_pixel, between, reporter)
    log.debug("mask prior: %s", report)
    return MaskPrior(field_, report)


def _between(
    distances: Planes,
    known: NDArray[np.float64],
    wanted: NDArray[np.float64],
    gap_over_pixel: tuple[float, float],
    method: BetweenMethod,
    reporter: Reporter,
) -> Planes:
    if method == "linear" or not (distances > 0).any():
        return interpolate_linear(distances, known, wanted)
    if method == "cubic":
        return interpolate_cubic(distances, known, wanted)
    return interpolate_shape(distances, known, wanted, gap_over_pixel, reporter=reporter)


def _decision(guided: GuidedMask, annotated: int) -> str:
    """How the image came to guide the mask, in a sentence for the report."""
    if not guided.errors:
        return "The mask follows the motion of the image, because too few slices are annotated to check it by leaving some out."
    rates = ", ".join(f"{name} {100 * error:.0f} %" for name, error in guided.errors.items())
    basis = f"wrong pixels near the surface of {annotated - 2} annotated slices that were left out: {rates}"
    if guided.method == "shape":
        return f"The image does not guide the mask, because it predicts it no better than the shape alone ({basis})."
    return f"The image guides the mask with a share of {guided.share:.2f}, the shape alone has the rest ({basis})."


def _guided(
    image: Planes,
    annotated: NDArray[np.bool_],
    distances: Planes,
    gap_over_pixel: tuple[float, float],
    coordinates: NDArray[np.float64],
    reporter: Reporter,
) -> GuidedMask:
    """:func:`guided_distances` in a box round the segment, with the image windowed to what is in that box; linear outside."""
    reporter.start("motion", 2 * len(annotated), "Following the segment through the image")
    filled = np.argwhere((distances > 0).any(axis=0))
    low = np.maximum(filled.min(axis=0) - GUIDED_MARGIN_PX, 0)
    high = filled.max(axis=0) + 1 + GUIDED_MARGIN_PX
    box = (slice(None), slice(low[0], high[0]), slice(low[1], high[1]))
    cropped = np.asarray(image[box], np.float32)
    bottom, top = np.percentile(cropped, WINDOW_PERCENTILES)
    windowed = ((cropped - bottom) / max(float(top - bottom), 1e-6)).astype(np.float32)
    guided = guided_distances(windowed, annotated, np.ascontiguousarray(distances[box]), gap_over_pixel, coordinates, reporter)
    whole = interpolate_linear(distances, coordinates[annotated], coordinates)
    whole[box] = guided.distances
    return replace(guided, distances=whole)
