"""``medgs train``: Gaussians from a folder of frames, with the option names that users of the MedGS authors' tool know."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from MedGSLib.cli.console import Console
from MedGSLib.cli.parser import PRESETS, ArgumentParser, add_command, count, degree, existing, non_negative, positive, seed

DETAILS = """frames:  DATASET/original/0000.png, 0001.png, ...   masks: DATASET/mask/ or DATASET/masks/ with the same names
(a frame without a mask file counts as not annotated; PNG, JPEG, TIFF and BMP are read)

written: MODELDIR/settings.json
         MODELDIR/point_cloud/iteration_N/model.medgs and point_cloud.ply
         MODELDIR/checkpoints/iteration_N.safetensors    MODELDIR/xyz/iteration_N.npy    MODELDIR/test_metrics.csv

examples:
  medgs train -s prostate -m run1 --pipeline joint --lambda_seg 2
  medgs train -s prostate -m run2 --pipeline seg --mask_only --start_checkpoint run_img/point_cloud/iteration_300/model.medgs
  medgs train -s prostate -m run3 --preset paper --poly_degree 2"""


def add_parser(commands: Any) -> None:
    """Add the grammar of this subcommand."""
    parser = add_command(commands, "train", run, "fit Gaussians to a folder of frames", DETAILS)
    parser.add_argument("-s", "--source", required=True, type=Path, metavar="DATASET", help="folder with original/ and mask/ or masks/")
    parser.add_argument("-m", "--model", required=True, type=Path, metavar="MODELDIR", help="folder for the model")
    parser.add_argument(
        "--pipeline", choices=("img", "seg", "joint"), default="joint", help="heads to train: image, mask, or both (default: joint)"
    )
    _add_recipe(parser)
    _add_saving(parser)
    device = parser.add_argument_group("machine")
    device.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="where to compute (default: auto)")
    device.add_argument("--threads", type=count, metavar="N", help="CPU threads (default: all cores)")


def _add_recipe(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("recipe")
    group.add_argument(
        "--preset",
        choices=PRESETS,
        default="standard",
        help="'paper' is the published recipe, the others are MedGS's own (default: standard)",
    )
    group.add_argument("--lambda_img", "--lambda-img", type=non_negative, metavar="X", help="weight of the image loss (default: 1)")
    group.add_argument("--lambda_seg", "--lambda-seg", type=non_negative, metavar="X", help="weight of the mask loss (default: 1)")
    group.add_argument(
        "--poly_degree",
        "--poly-degree",
        dest="degree",
        type=degree,
        metavar="0..7",
        help="degree of the drift polynomial (default: the preset's)",
    )
    group.add_argument("--batch_size", "--batch-size", type=count, metavar="N", help="frames rendered in each step (default: the preset's)")
    group.add_argument("--iterations", type=count, metavar="N", help="optimiser steps (default: the preset's)")
    group.add_argument("--gaussians", type=count, metavar="N", help="number of Gaussians at the start (default: the preset's)")
    group.add_argument("--random_background", "--random-background", action="store_true", help="another background value in each step")
    group.add_argument(
        "--interp", type=count, default=4, metavar="K", help="positions for each gap that in-between targets are learnt at (default: 4)"
    )
    group.add_argument(
        "--spacing",
        type=positive,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="pixel width, pixel height and frame distance in mm (default: 1 1 K)",
    )
    group.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of every random choice (default: 0)")


def _add_saving(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("saving and continuing")
    lists = {
        "test": "iterations at which the PSNR and Dice on the frames are measured",
        "save": "iterations at which the model is saved for rendering (the last one always is)",
        "checkpoint": "iterations at which a checkpoint is written",
    }
    for name, help_text in lists.items():
        group.add_argument(f"--{name}_iterations", f"--{name}-iterations", type=count, nargs="+", default=[], metavar="N", help=help_text)
    group.add_argument(
        "--start_checkpoint",
        "--start-checkpoint",
        type=Path,
        metavar="FILE",
        help="continue from a checkpoint or model; an image-only one may start a joint run",
    )
    group.add_argument(
        "--mask_only", "--mask-only", action="store_true", help="train the mask head alone on the frozen geometry of --start_checkpoint"
    )
    group.add_argument(
        "--save_xyz",
        "--save-xyz",
        type=count,
        nargs="?",
        const=100,
        metavar="N",
        help="save the Gaussians' positions (x, y in px, frame) every N iterations (default N: 100)",
    )


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Train and save the model."""
    existing(arguments.source, "dataset")
    existing(arguments.start_checkpoint, "checkpoint")

    from MedGSLib.config import preset_config
    from MedGSLib.frame_workflow.train import TrainOptions, train

    names = ("device", "threads", "seed", "lambda_img", "lambda_seg", "degree", "iterations", "gaussians")
    overrides = {name: getattr(arguments, name) for name in names}
    config = preset_config(
        arguments.preset,
        mode={"img": "image", "seg": "mask", "joint": "joint"}[arguments.pipeline],
        slices_per_step=arguments.batch_size,
        random_background=arguments.random_background or None,
        scale=1 if arguments.preset == "paper" else arguments.interp,
        **overrides,
    )
    options = TrainOptions(
        spacing_mm=tuple(arguments.spacing) if arguments.spacing else None,
        test_iterations=tuple(arguments.test_iterations),
        save_iterations=tuple(arguments.save_iterations),
        checkpoint_iterations=tuple(arguments.checkpoint_iterations),
        start_checkpoint=arguments.start_checkpoint,
        mask_only=arguments.mask_only,
        xyz_interval=arguments.save_xyz,
    )
    path = train(arguments.source, arguments.model, config, options, console.progress)
    console.result(f"The model is {path}", model=str(path))
