"""Names of the protocols, methods and figures of an evaluation, free of heavy imports."""

from __future__ import annotations

from typing import Literal

IMAGE, MASK, SPARSE, THICK = "image", "mask", "sparse", "thick"
PROTOCOLS = (IMAGE, MASK, SPARSE, THICK)
"""Thin slices left out of an image; mask on every n-th slice of a dense image; both on every n-th slice; averages over n slices."""

PROFILES: dict[str, tuple[Literal["box", "gaussian"], float]] = {
    "box": ("box", 1.0),
    "gaussian": ("gaussian", 1.0),
    "box taken 1.5x": ("box", 1.5),
    "box taken 0.5x": ("box", 0.5),
}
"""Thick slices: the true profile (n slices wide), and the thickness that methods are told over the true one."""

MEDGS, PRIOR = "medgs", "prior"
OWN = (MEDGS, PRIOR)
IMAGE_ALTERNATIVES = ("linear", "cubic", "sinc", "flow", "flow_dis")
THICK_ALTERNATIVES = (*IMAGE_ALTERNATIVES, "cubic_bp", "flow_bp")
MASK_ALTERNATIVES = ("nearest", "nearest_smooth", "sdf", "sdf_cubic", "morphological", "poisson")
METHODS = (*OWN, *THICK_ALTERNATIVES, *MASK_ALTERNATIVES)

METHODS_OF = {
    IMAGE: (*OWN, *IMAGE_ALTERNATIVES),
    MASK: (*OWN, *MASK_ALTERNATIVES),
    SPARSE: (*OWN, *MASK_ALTERNATIVES),
    THICK: (*OWN, *THICK_ALTERNATIVES),
}

IMAGE_FIGURES = ("psnr_db", "ssim", "sharpness", "acquired_psnr_db")
MASK_FIGURES = (
    "dice_slices", "dice_volume", "chamfer_mm", "hd95_mm", "volume_bias_percent", "diameter_error_mm", "roughness_deg",
)  # fmt: skip
COSTS = ("cpu_s", "wall_s", "peak_mib")

BETTER_HIGH = {"psnr_db": True, "ssim": True, "dice_volume": True, "dice_slices": True, "chamfer_mm": False, "hd95_mm": False}
"""Figures by which methods are ranked, and whether more is better."""
RANKED = {IMAGE: ("psnr_db", "ssim"), THICK: ("psnr_db", "ssim")} | {
    protocol: ("dice_volume", "dice_slices", "chamfer_mm", "hd95_mm") for protocol in (MASK, SPARSE)
}


def kind_of(method: str) -> str:
    """The method without its preset: ``medgs:fast`` is of the kind ``medgs``."""
    return method.partition(":")[0]
