"""What a reconstruction is asked to do: presets, and the options that override them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from MedGSLib.errors import InputError
from MedGSLib.gaussians import FoldSettings
from MedGSLib.prior.image_config import PRIOR_PRESETS, PriorConfig
from MedGSLib.training.config import TrainingConfig, paper_training

Mode = Literal["joint", "image", "mask"]
MODES: tuple[Mode, ...] = ("joint", "image", "mask")


@dataclass(frozen=True)
class ReconstructionConfig:
    """The whole recipe of one reconstruction.

    :ivar mode: heads to fit: image and masks on shared geometry, the image alone, or the masks alone.
    :ivar preset: the name the recipe started from.
    :ivar scale: subdivisions of a slice gap; with neither this nor ``spacing_mm``, what comes closest to cubic voxels.
    :ivar spacing_mm: wanted distance of output slices.
    :ivar device: ``auto``, ``cuda`` or ``cpu``.
    :ivar threads: CPU threads, None for all.
    :ivar seed: of everything random; the same seed on the same machine gives the same result.
    :ivar slice_profile: how a slice of known thickness averages; ``auto`` takes a box of that thickness, ``point`` ignores it.
    :ivar self_check: whether to measure the result by leaving acquired slices out.
    :ivar refine_mask: path of a model whose geometry and image are kept while the mask heads are fitted.
    :ivar start_model: path of an image-only model from which a joint run starts.
    :ivar checkpoint_interval_s: least time between two checkpoints.
    """

    mode: Mode = "joint"
    preset: str = "standard"
    scale: int | None = None
    spacing_mm: float | None = None
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    slice_profile: Literal["auto", "point", "box", "gaussian"] = "auto"
    self_check: bool = True
    training: TrainingConfig = field(default_factory=TrainingConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    fold: FoldSettings = field(default_factory=FoldSettings)
    refine_mask: str | None = None
    start_model: str | None = None
    checkpoint_interval_s: float = 30.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"The mode must be one of {', '.join(MODES)}, not '{self.mode}'.")
        if self.scale is not None and self.spacing_mm is not None:
            raise InputError("Give either a scale or a slice spacing for the output, not both.")
        if self.device not in ("auto", "cuda", "cpu"):
            raise InputError(f"The device must be auto, cuda or cpu, not '{self.device}'.")
        if self.refine_mask is not None and self.start_model is not None:
            raise InputError("Give either a model to refine or a model to start from, not both.")
        if self.mode != "joint" and (self.refine_mask is not None or self.start_model is not None):
            raise InputError(f"A saved model can only be continued in the mode 'joint', with an image and a mask, not in '{self.mode}'.")


@dataclass(frozen=True)
class InputOptions:
    """How the input files are to be read.

    :ivar labels: segments by value or name; empty for all.
    :ivar axis: ``auto``, ``i``, ``j`` or ``k``.
    :ivar margin_mm: distance kept around the segments; None keeps the whole volume.
    :ivar annotated: ``auto``, ``all``, ``every:N`` or ``list:0,5,9``.
    :ivar positions: slice positions in mm, or text or a file of them, or None where the header has them.
    :ivar slice_thickness_mm: thickness over which a slice averages, or None where the header has it or nobody knows.
    """

    labels: tuple[str | int, ...] = ()
    axis: str = "auto"
    margin_mm: float | None = 10.0
    annotated: str = "auto"
    positions: Sequence[float] | str | None = None
    slice_thickness_mm: float | None = None


def _presets() -> dict[str, ReconstructionConfig]:
    fast = TrainingConfig(iterations=150, voxels_per_gaussian=24.0)
    high = TrainingConfig(iterations=400, voxels_per_gaussian=10.0)
    return {
        "fast": ReconstructionConfig(preset="fast", training=fast, prior=PRIOR_PRESETS["fast"], self_check=False),
        "standard": ReconstructionConfig(preset="standard", prior=PRIOR_PRESETS["standard"]),
        "high": ReconstructionConfig(preset="high", training=high, prior=PRIOR_PRESETS["high"]),
        "paper": ReconstructionConfig(
            preset="paper",
            training=paper_training(),
            prior=PriorConfig(method="none"),
            fold=FoldSettings(degree=7, fold="shrink", blending="alpha"),
            self_check=False,
        ),
    }


PRESETS = _presets()
"""``fast``, ``standard`` and ``high`` follow the project's method study; ``paper`` is the recipe of MedGS (Marzol et al. 2025)."""

SHORT_NAMES = {"lambda_img": "image_loss_weight", "lambda_seg": "mask_loss_weight"}


def preset_config(preset: str, **overrides: Any) -> ReconstructionConfig:
    """The recipe of a preset with some options changed; overrides that are None change nothing.

    :param overrides: fields of :class:`ReconstructionConfig`, of :class:`TrainingConfig` (``gaussians``, ``iterations``, ...), of the fold
        (``degree``, ``fold``, ``blending``), or ``lambda_img`` and ``lambda_seg``. The seed goes to every part of the recipe.
    :raises InputError: when the preset or an option is unknown.
    """
    if preset not in PRESETS:
        raise InputError(f"There is no preset '{preset}'; the presets are {', '.join(PRESETS)}.")
    config = PRESETS[preset]
    chosen = {SHORT_NAMES.get(name, name): value for name, value in overrides.items() if value is not None}
    if preset == "paper" and ("iterations" in chosen or "gaussians" in chosen):
        scaled = {name: chosen[name] for name in ("iterations", "gaussians") if name in chosen}
        config = replace(config, training=paper_training(**scaled))
    own, training, fold = ({f.name for f in fields(kind)} for kind in (ReconstructionConfig, TrainingConfig, FoldSettings))
    unknown = sorted(set(chosen) - own - training - fold)
    if unknown:
        raise InputError(f"There is no option called {', '.join(unknown)}.")
    seed = chosen.get("seed", config.seed)
    parts: dict[str, Any] = {
        "training": replace(config.training, **{k: v for k, v in chosen.items() if k in training - own} | {"seed": seed}),
        "fold": replace(config.fold, **{k: v for k, v in chosen.items() if k in fold - own}),
        "prior": replace(config.prior, seed=seed),
    }
    parts |= {name: value for name, value in chosen.items() if name in own}
    return replace(config, **parts)
