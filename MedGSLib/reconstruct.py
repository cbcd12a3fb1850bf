"""The main job, start to end: a stack of slices becomes Gaussians, and these a dense volume, a segmentation and meshes."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vtkmodules.vtkCommonDataModel import vtkPolyData

import MedGSLib
from MedGSLib.baselines.images import INTERPOLATORS
from MedGSLib.baselines.masks import sdf_linear
from MedGSLib.config import InputOptions, ReconstructionConfig
from MedGSLib.dense import boundary_fields, dense_image, dense_occupancy, exclusive_labels, label_map, on_grid, true_to_slices
from MedGSLib.errors import InputError
from MedGSLib.gaussians import FoldedGaussians, FoldSettings
from MedGSLib.geometry import OutputGrid
from MedGSLib.io.atomic import make_result_folder, remove_leftovers
from MedGSLib.io.folder_lock import sole_writer
from MedGSLib.io.stack import load_stack
from MedGSLib.live_preview import LivePreview
from MedGSLib.mesh import occupancy_to_mesh, with_volume_of_voxels
from MedGSLib.model_file import ModelHeader
from MedGSLib.outputs import refuse_to_overwrite, write_outputs
from MedGSLib.preparation import Preparation, prepare
from MedGSLib.prior.mask_distance import soft_occupancy
from MedGSLib.progress import ProgressCallback, Reporter
from MedGSLib.raster import Rasterizer, choose_rasterizer
from MedGSLib.render import render_dense
from MedGSLib.report import describe
from MedGSLib.self_check import LeftOutResult, SelfCheck, self_check
from MedGSLib.start import load_start_model, start_gaussians
from MedGSLib.training.checkpoint import CheckpointStore
from MedGSLib.training.fit import ALL_PARAMETERS, FitReport, fit
from MedGSLib.uncertainty import add_position_band, image_band
from MedGSLib.volume import SliceStack

logger = logging.getLogger(__name__)

CHECKPOINT_FOLDER = "checkpoint"


@dataclass(frozen=True)
class Reconstruction:
    """A finished reconstruction; T slices on ``grid``, cropped like ``stack``.

    :ivar gaussians: the fitted model; ``header`` says what it means in the patient.
    :ivar image: float32 (T, H, W) in input units, or None without an image; acquired slices are the input's own.
    :ivar occupancy: float32 (L, T, H, W) in 0..1, or None without a mask.
    :ivar label_map: integer (T, H, W) of label values, or None without a mask.
    :ivar uncertainty: float32 (T, H, W), half-width of the 90 % band of the image in input units, or None.
    :ivar meshes: one closed surface a label, RAS mm; labels of which nothing is left have none.
    :ivar report: figures and provenance, ready for JSON.
    """

    stack: SliceStack
    grid: OutputGrid
    gaussians: FoldedGaussians
    header: ModelHeader
    image: NDArray[np.float32] | None
    occupancy: NDArray[np.float32] | None
    label_map: NDArray[np.int32] | None
    uncertainty: NDArray[np.float32] | None
    meshes: dict[str, vtkPolyData]
    report: dict[str, Any]


@dataclass(frozen=True)
class Fitted:
    """Fitted Gaussians and what they render on the output grid (T, C, H, W)."""

    prepared: Preparation
    gaussians: FoldedGaussians
    rendered: NDArray[np.float32]
    fit_report: FitReport
    backend: str
    seconds: dict[str, float]

    @property
    def doubt(self) -> NDArray[np.float32]:
        """How far Gaussians, and the parts of the prior, disagree about the normalised image, (T, H, W)."""
        prior = self.prepared.prior
        assert prior is not None
        apart = np.abs(self.rendered[:, 0] - on_grid(prior.image, self.prepared))
        return apart + on_grid(prior.disagreement, self.prepared)

    @property
    def occupancy(self) -> NDArray[np.float32] | None:
        """The mask heads (L, T, H, W), 0..1, or None without a mask."""
        if self.prepared.stack.occupancy is None:
            return None
        return dense_occupancy(self.rendered[:, int(self.prepared.targets.has_image) :], self.prepared)


def reconstruct(
    stack: SliceStack,
    config: ReconstructionConfig,
    progress: ProgressCallback | None = None,
    checkpoint_dir: Path | None = None,
    live_preview: LivePreview | None = None,
) -> Reconstruction:
    """Reconstruct a stack of slices.

    :param progress: called with every :class:`MedGSLib.progress.ProgressEvent`; returning False cancels.
    :param checkpoint_dir: where unfinished work is kept and continued from; None keeps none.
    :param live_preview: where the slice being learnt is shown; None shows none.
    :raises InputError: if the stack lacks what the mode needs.
    :raises Cancelled: on request.
    :raises ResourceError: when memory or disk runs out.
    """
    started = time.monotonic()
    reporter = Reporter(progress)
    checkpoints = None
    if checkpoint_dir is not None:
        checkpoints = CheckpointStore(checkpoint_dir, fingerprint(stack, config), config.checkpoint_interval_s)
    fitted = fit_stack(stack, config, reporter, checkpoints, live_preview)
    check, unchecked = None, ""
    if config.self_check:
        try:
            check = self_check(fitted.prepared.stack, config, _left_out_result, reporter)
        except InputError as error:
            unchecked = str(error)
            logger.warning("The result could not be checked on slices that are left out: %s", error)
    result = _assemble(fitted, config, check, unchecked, reporter)
    result.report["timings"] = fitted.seconds | {"total_s": time.monotonic() - started}
    return result


def fit_stack(
    stack: SliceStack,
    config: ReconstructionConfig,
    reporter: Reporter,
    checkpoints: CheckpointStore | None = None,
    live_preview: LivePreview | None = None,
) -> Fitted:
    """Prepare, fit and render, without self-check and surfaces."""
    marks = [time.monotonic()]
    model = load_start_model(config.refine_mask or config.start_model)
    blending = None if model is None else model[0].settings.blending
    rasterizer, reason = choose_rasterizer(config.device, config.threads, blending)
    logger.info(reason)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    window = None if model is None else model[1].window
    device = "cuda" if rasterizer.name == "gsplat_cuda" else "cpu"
    prepared = prepare(stack, config, reporter, checkpoints, window, device)
    marks.append(time.monotonic())
    start = start_gaussians(prepared, fold_for(rasterizer, config.fold), model).to(device)

    def show(_iteration: int, gaussians: FoldedGaussians) -> None:
        if live_preview is not None:
            live_preview.update(gaussians, prepared.targets, rasterizer)

    refines = config.refine_mask is not None
    gaussians, fit_report = fit(
        start,
        prepared.targets,
        prepared.training,
        rasterizer,
        reporter,
        checkpoints=checkpoints,
        trainable=frozenset({"values"}) if refines else ALL_PARAMETERS,
        frozen_heads=int(refines),
        on_iteration=show,
    )
    marks.append(time.monotonic())
    rendered = render_dense(gaussians, prepared.grid.positions_mm / prepared.step_mm, prepared.targets.size, rasterizer, reporter)
    marks.append(time.monotonic())
    seconds = dict(zip(("prior_s", "fit_s", "render_s"), (float(s) for s in np.diff(marks)), strict=True))
    return Fitted(prepared, gaussians, rendered, fit_report, reason, seconds)


def fold_for(rasterizer: Rasterizer, fold: FoldSettings) -> FoldSettings:
    """The fold settings with a blending that the backend has; alpha divided by its sum stands for the weighted mean on a GPU."""
    if fold.blending == "normalized" and "normalized" not in rasterizer.blendings:
        return replace(fold, blending="alpha_normalized")
    return fold


def model_header(prepared: Preparation, config: ReconstructionConfig, fold: FoldSettings) -> ModelHeader:
    """What the Gaussians fitted to ``prepared`` mean in the patient."""
    stack = prepared.stack
    return ModelHeader(
        plane_to_ras=stack.plane_to_ras.tolist(),
        step_mm=prepared.step_mm,
        size=prepared.targets.size,
        acquired_mm=stack.positions_mm.tolist(),
        window=prepared.window,
        labels=stack.labels,
        axis=stack.axis,
        preset=config.preset,
        seed=config.seed,
        fold=fold,
    )


def fingerprint(stack: SliceStack, config: ReconstructionConfig) -> str:
    """Hash of inputs and recipe, by which a checkpoint is recognised as belonging to the same run."""
    digest = hashlib.sha256()
    for array in (stack.image, stack.occupancy, stack.annotated, stack.positions_mm, stack.plane_to_ras):
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    recipe = {key: value for key, value in asdict(config).items() if key not in ("threads", "checkpoint_interval_s", "self_check")}
    digest.update(json.dumps([recipe, stack.slice_thickness_mm, MedGSLib.__version__], sort_keys=True).encode())
    return digest.hexdigest()


def _left_out_result(stack: SliceStack, config: ReconstructionConfig, reporter: Reporter) -> LeftOutResult:
    """The reconstruction that the self-check asks for."""
    fitted = fit_stack(stack, config, reporter)
    image = dense_image(fitted.rendered[:, 0], fitted.prepared) if fitted.prepared.slices is not None else None
    doubt = fitted.doubt if image is not None else None
    return LeftOutResult(fitted.prepared, image, doubt, fitted.occupancy)


def _image_and_band(fitted: Fitted, check: SelfCheck | None) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """The image and the half-width of its 90 % band, both (T, H, W) in input units."""
    prepared = fitted.prepared
    if prepared.slices is None or prepared.window is None:
        return None, None
    low, high = prepared.window
    image = dense_image(fitted.rendered[:, 0], prepared)
    if check is not None and check.share < 1.0:
        wanted = prepared.grid.positions_mm / prepared.stack.gap_mm
        other = INTERPOLATORS[check.alternative](prepared.slices, prepared.stack.coordinates, wanted)
        image = true_to_slices(check.share * image + (1.0 - check.share) * other, prepared)
    band = image_band(fitted.doubt, prepared, check)
    return (image * (high - low) + low).astype(np.float32), band * np.float32(high - low)


def _checked_occupancy(fitted: Fitted, check: SelfCheck | None) -> NDArray[np.float32] | None:
    """The occupancies (L, T, H, W), each blended with linear interpolation of its contours as far as that did better on left-out slices."""
    occupancy, stack = fitted.occupancy, fitted.prepared.stack
    if occupancy is None or check is None or stack.occupancy is None:
        return occupancy
    known = stack.annotated
    for number, label in enumerate(stack.labels):
        share = check.mask_share(label.name)
        if share < 1.0:
            annotations = stack.occupancy[number, known] >= 0.5
            distance = sdf_linear(annotations, stack.positions_mm[known], fitted.prepared.grid.positions_mm, stack.pixel_mm)
            occupancy[number] = share * occupancy[number] + (1.0 - share) * soft_occupancy(distance)
    return occupancy


def _surfaces(
    fitted: Fitted, occupancy: NDArray[np.float32], exclusive: NDArray[np.bool_], check: SelfCheck | None, reporter: Reporter
) -> dict[str, vtkPolyData]:
    prepared, stack = fitted.prepared, fitted.prepared.stack
    meshes = {}
    reporter.start("surface", len(stack.labels))
    for number, label in enumerate(stack.labels):
        field = with_volume_of_voxels(*boundary_fields(occupancy, number, exclusive))
        if field.max() <= 0.5:
            logger.warning("Nothing of the segment %s is left at the 0.5 level, so it has no surface.", label.name)
            continue
        meshes[label.name] = occupancy_to_mesh(field, stack.index_to_ras(prepared.step_mm))
        add_position_band(meshes[label.name], prepared, label.name, check)
        reporter.step(number + 1)
    return meshes


def _assemble(fitted: Fitted, config: ReconstructionConfig, check: SelfCheck | None, unchecked: str, reporter: Reporter) -> Reconstruction:
    prepared, stack = fitted.prepared, fitted.prepared.stack
    image, uncertainty = _image_and_band(fitted, check)
    occupancy = _checked_occupancy(fitted, check)
    labels, meshes = None, {}
    if occupancy is not None and stack.occupancy is not None:
        exclusive = exclusive_labels(stack.occupancy)
        labels = label_map(occupancy, tuple(label.value for label in stack.labels), exclusive)
        meshes = _surfaces(fitted, occupancy, exclusive, check, reporter)
    header = model_header(prepared, config, fitted.gaussians.settings)
    report = describe(prepared, config, fitted.fit_report, fitted.backend, fitted.rendered, meshes, check, unchecked)
    return Reconstruction(stack, prepared.grid, fitted.gaussians, header, image, occupancy, labels, uncertainty, meshes, report)


def reconstruct_files(
    image: Path | None,
    mask: Path | None,
    out: Path,
    config: ReconstructionConfig,
    inputs: InputOptions | None = None,
    progress: ProgressCallback | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Reconstruct from files into the folder ``out``, each file of which is written whole or not at all.

    :param resume: continue from the checkpoint of an earlier, interrupted run into the same folder.
    :return: the report, which is also ``out/report.json``.
    :raises InputError: if an input cannot be used, or another run writes into ``out``.
    :raises Cancelled: on request.
    :raises ResourceError: when memory or disk runs out.
    """
    inputs = inputs or InputOptions()
    refuse_to_overwrite((image, mask), out)
    stack = load_stack(
        image if config.mode != "mask" else None,
        mask if config.mode != "image" else None,
        labels=inputs.labels or None,
        axis=inputs.axis,
        margin_mm=inputs.margin_mm,
        annotated=inputs.annotated,
        positions=inputs.positions,
        slice_thickness_mm=inputs.slice_thickness_mm,
    )
    make_result_folder(out)
    with sole_writer(out):
        return _reconstruct_into(out, stack, config, (image, mask), progress, resume)


def _reconstruct_into(
    out: Path,
    stack: SliceStack,
    config: ReconstructionConfig,
    files: tuple[Path | None, Path | None],
    progress: ProgressCallback | None,
    resume: bool,
) -> dict[str, Any]:
    """Reconstruct a stack that was read from an image and a mask file."""
    checkpoint_dir = out / CHECKPOINT_FOLDER
    if not resume:
        CheckpointStore(checkpoint_dir, "").remove()
    live_preview = LivePreview(out)
    result = reconstruct(stack, config, progress, checkpoint_dir, live_preview)
    image, mask = (None if path is None else path.name for path in files)
    result.report["inputs"] = {"image": image, "mask": mask, "study_date": stack.meta.get("study_date")}
    Reporter(progress).start("write", message="Writing the results.")
    remove_leftovers(out)
    write_outputs(result, out)
    live_preview.remove()
    CheckpointStore(checkpoint_dir, "").remove()
    return result.report
