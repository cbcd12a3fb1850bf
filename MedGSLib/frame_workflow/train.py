"""Training on a folder of frames."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from MedGSLib.config import ReconstructionConfig
from MedGSLib.errors import InputError
from MedGSLib.frame_workflow.checkpoints import IterationCheckpoints, Start, read_start
from MedGSLib.frame_workflow.dataset import read_dataset
from MedGSLib.frame_workflow.model_folder import ModelFolder
from MedGSLib.frame_workflow.watch import TrainingWatch
from MedGSLib.gaussians import FoldedGaussians, FoldSettings
from MedGSLib.io.atomic import make_result_folder
from MedGSLib.preparation import Preparation, prepare
from MedGSLib.progress import ProgressCallback, Reporter
from MedGSLib.raster import choose_rasterizer
from MedGSLib.reconstruct import fold_for, model_header
from MedGSLib.start import start_gaussians
from MedGSLib.training.fit import ALL_PARAMETERS, fit
from MedGSLib.volume import SliceStack

HEAD_ONLY = frozenset({"values"})


@dataclass(frozen=True)
class TrainOptions:
    """What to save and where to start; iterations count from 1.

    :ivar spacing_mm: pixel width, pixel height and frame distance; None for pixels of 1 mm and frames as many apart as the scale says.
    :ivar start_checkpoint: a checkpoint to continue, or a model to start from.
    :ivar mask_only: train the mask head alone, on the frozen geometry of ``start_checkpoint``.
    :ivar xyz_interval: iterations between two files of the Gaussians' positions, or None.
    """

    spacing_mm: tuple[float, float, float] | None = None
    test_iterations: tuple[int, ...] = ()
    save_iterations: tuple[int, ...] = ()
    checkpoint_iterations: tuple[int, ...] = ()
    start_checkpoint: Path | None = None
    mask_only: bool = False
    xyz_interval: int | None = None


def train(
    source: Path, output: Path, config: ReconstructionConfig, options: TrainOptions, progress: ProgressCallback | None = None
) -> Path:
    """Fit Gaussians to the frames of ``source`` and save them under ``output``.

    :return: the path of the last model.
    :raises InputError: if dataset, start and options do not fit each other.
    """
    reporter = Reporter(progress)
    start = _start(options)
    if options.mask_only:
        config = replace(config, mode="joint")
    stack = read_dataset(source, config.mode, options.spacing_mm or (1.0, 1.0, float(config.scale or 1)))
    make_result_folder(output)
    blending = None if start is None else start.gaussians.settings.blending
    rasterizer, reason = choose_rasterizer(config.device, config.threads, blending)
    reporter.start("prior", message=reason)
    prepared = prepare(stack, config, reporter, window=None if start is None else start.header.window)
    gaussians = _first_gaussians(prepared, fold_for(rasterizer, config.fold), start, options)
    header = model_header(prepared, config, gaussians.settings)
    folder = ModelFolder(output)
    folder.write_settings(_settings(source, stack, prepared, config))
    resume = None if start is None or options.mask_only or start.heads != _heads(prepared) else start.resume
    if resume is not None and resume.facts["iteration"] >= prepared.training.iterations:
        raise InputError(
            f"The checkpoint is of iteration {resume.facts['iteration']}, and the training ends at {prepared.training.iterations}; "
            "give more --iterations."
        )
    checkpoints = IterationCheckpoints(folder.checkpoints, options.checkpoint_iterations, header, resume)
    watch = TrainingWatch(
        folder=folder,
        header=header,
        stack=prepared.stack,
        coordinates=np.asarray(header.acquired_mm) / header.step_mm,
        rasterizer=rasterizer,
        reporter=reporter,
        checkpoints=checkpoints,
        test_iterations=frozenset(options.test_iterations),
        save_iterations=frozenset(options.save_iterations),
        xyz_interval=options.xyz_interval,
    )
    fitted, report = fit(
        gaussians.to("cuda" if rasterizer.name == "gsplat_cuda" else "cpu"),
        prepared.targets,
        prepared.training,
        rasterizer,
        reporter,
        checkpoints=checkpoints,
        trainable=HEAD_ONLY if options.mask_only else ALL_PARAMETERS,
        frozen_heads=int(options.mask_only),
        on_iteration=watch,
    )
    return folder.save(report.iterations, fitted, header)


def _start(options: TrainOptions) -> Start | None:
    if options.start_checkpoint is None:
        if options.mask_only:
            raise InputError("Training the mask head only needs the geometry of an image run; give it with --start_checkpoint.")
        return None
    start = read_start(options.start_checkpoint)
    if options.mask_only and not start.header.has_image:
        raise InputError("Training the mask head only needs the geometry of an image run, and the given checkpoint has no image head.")
    return start


def _first_gaussians(prepared: Preparation, fold: FoldSettings, start: Start | None, options: TrainOptions) -> FoldedGaussians:
    """New Gaussians; or those of ``start`` as they are where the heads agree, or else with new mask heads."""
    if start is None:
        return start_gaussians(prepared, fold, None)
    if start.header.size != prepared.targets.size:
        raise InputError(
            f"The checkpoint was trained on frames of {start.header.size[1]} x {start.header.size[0]} pixels, and these have "
            f"{prepared.targets.size[1]} x {prepared.targets.size[0]}."
        )
    continues = not options.mask_only and start.heads == _heads(prepared)
    positions, trained = prepared.stack.positions_mm, np.asarray(start.header.acquired_mm)
    same_frames = positions.shape == trained.shape and np.allclose(positions, trained)
    if not same_frames or (continues and not np.isclose(start.header.step_mm, prepared.step_mm)):
        raise InputError("The checkpoint was trained on other frames or with another --spacing or --interp; give the same ones.")
    if continues:
        return start.gaussians
    if not (start.header.has_image and prepared.targets.has_image):
        raise InputError("The checkpoint has other heads than this pipeline; only an image-only checkpoint may start a joint run.")
    return start_gaussians(prepared, fold, (start.gaussians, start.header))


def _heads(prepared: Preparation) -> tuple[bool, int]:
    """Whether there is an image head, and the number of mask heads."""
    return prepared.targets.has_image, len(prepared.stack.labels)


def _settings(source: Path, stack: SliceStack, prepared: Preparation, config: ReconstructionConfig) -> dict[str, Any]:
    brightest = 0.0 if stack.image is None else float(stack.image.max())
    return {
        "source": str(source),
        "frames": stack.shape[0],
        "annotated": int(stack.annotated.sum()),
        "pixel_maximum": 255 if brightest <= 255 else 65535,
        "mode": config.mode,
        "preset": config.preset,
        "training": asdict(prepared.training),
        "preparation": prepared.report,
    }
