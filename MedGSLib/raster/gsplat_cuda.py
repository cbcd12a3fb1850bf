"""The CUDA backend: gsplat's tile rasterizer with slices as images and heads as channels.

gsplat (1.5.3) composites front to back, so this backend does the two alpha blendings; "alpha_normalized" is what stands in for the
normalised blending on a GPU. Nothing of gsplat or CUDA is imported before it is asked for.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from MedGSLib.errors import BackendError
from MedGSLib.gaussians import SlicedGaussians
from MedGSLib.raster.interface import ALPHA_MIN, blended, check_request

TILE = 16
"""Side of gsplat's tiles, px."""

_logger = logging.getLogger(__name__)
_CUDA_HOME = Path("/usr/local/cuda")


class TileKernels(Protocol):
    """The three functions of gsplat that are used."""

    def isect_tiles(self, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor, Tensor]: ...

    def isect_offset_encode(self, *arguments: Any) -> Tensor: ...

    def rasterize_to_pixels(self, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]: ...


class GsplatRasterizer:
    """Renders on an NVIDIA GPU.

    :param kernels: the gsplat package, or functions that stand in for it; None loads gsplat, which compiles its kernels on first use.
    :param blending: a blending that will be asked for, if one is known.
    :raises BackendError: when gsplat's kernels cannot be loaded, or do not do the blending.
    """

    name = "gsplat_cuda"
    blendings = frozenset({"alpha", "alpha_normalized"})

    def __init__(self, kernels: TileKernels | None = None, device: str = "cuda", blending: str | None = None) -> None:
        if blending is not None:
            self._check_blending(blending)
        self.device = device
        self._kernels = kernels or load_kernels()

    def rasterize(
        self, sliced: SlicedGaussians, height: int, width: int, *, blending: str, epsilon: float, background: float
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`MedGSLib.raster.interface.Rasterizer.rasterize`."""
        check_request(sliced, height, width, blending)
        self._check_blending(blending)
        if sliced.center.device.type != torch.device(self.device).type:
            raise BackendError(f"The GPU rasterizer cannot render Gaussians that are on the device {sliced.center.device}.")
        center, conic, weight, values = (
            tensor.float().contiguous() for tensor in (sliced.center + 0.5, sliced.conic, sliced.weight, sliced.values)
        )
        columns, rows = tile_grid(height, width)
        _, tile_keys, tile_pairs = self._kernels.isect_tiles(
            center,
            pair_radii(conic, weight),
            pair_depths(weight),
            TILE,
            columns,
            rows,
            packed=True,
            n_images=sliced.slices,
            image_ids=sliced.slice_index,
            gaussian_ids=sliced.gaussian_index,
        )
        offsets = self._kernels.isect_offset_encode(tile_keys, sliced.slices, columns, rows)
        composite, alpha = self._kernels.rasterize_to_pixels(
            center, conic, values, weight, width, height, TILE, offsets, tile_pairs, packed=True
        )
        alpha = alpha[..., 0]
        return blended(composite, alpha, blending=blending, epsilon=epsilon, background=background), alpha

    def _check_blending(self, blending: str) -> None:
        if blending not in self.blendings:
            raise BackendError(f"The GPU rasterizer composites front to back and cannot do the blending {blending!r}; the CPU can.")


def tile_grid(height: int, width: int) -> tuple[int, int]:
    """Columns and rows of tiles that cover the image."""
    return -(-width // TILE), -(-height // TILE)


@torch.no_grad()
def pair_radii(conic: Tensor, opacity: Tensor) -> Tensor:
    """Half-widths (M, 2) int32, px in x and y, of the box outside which a pair's alpha is below 1/255; 0 where it is so everywhere."""
    a, b, c = conic.unbind(1)
    reach = 2.0 * torch.log(opacity / ALPHA_MIN).clamp(min=0.0)
    determinant = (a * c - b * b).clamp(min=torch.finfo(conic.dtype).tiny)
    half = torch.sqrt(reach[:, None] * torch.stack((c, a), dim=1) / determinant[:, None])
    return torch.ceil(half).clamp(max=float(1 << 24)).to(torch.int32)


@torch.no_grad()
def pair_depths(opacity: Tensor) -> Tensor:
    """Depths (M,) that keep the pairs in their order; past the integers of float32 gsplat's sort, which is stable, keeps it."""
    return torch.arange(opacity.shape[0], dtype=torch.float32, device=opacity.device)


def gsplat_status() -> tuple[bool, str]:
    """Whether the backend can be tried and, in one sentence, why or what is missing; builds and loads nothing."""
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        return False, "No CUDA device was found." if built else "The installed PyTorch was built without CUDA."
    package = importlib.util.find_spec("gsplat")
    if package is None or not package.submodule_search_locations:
        return False, "The package gsplat is not installed."
    device = torch.cuda.get_device_name()
    if _built_kernels(Path(next(iter(package.submodule_search_locations)))):
        return True, f"gsplat is installed, its kernels are built and {device} is available."
    missing = [tool for tool, found in (("the CUDA compiler nvcc", _has_nvcc()), ("ninja", _has_ninja())) if not found]
    if missing:
        return False, f"The CUDA kernels of gsplat are not built and cannot be, because {' and '.join(missing)} cannot be found."
    return True, f"gsplat compiles its kernels for {device} on first use, which takes some minutes once."


def load_kernels() -> TileKernels:
    """The gsplat package with its compiled kernels, built and cached by gsplat where they are not.

    :raises BackendError: when something is missing or the build fails.
    """
    ready, reason = gsplat_status()
    if not ready:
        raise BackendError(reason)
    _logger.info(reason)
    try:
        import gsplat
        from gsplat.cuda._backend import _C as compiled
    except (ImportError, OSError, RuntimeError) as error:
        _logger.debug("gsplat could not be loaded", exc_info=True)
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BackendError(f"The CUDA kernels of gsplat could not be built or loaded: {first_line}") from error
    if compiled is None:
        raise BackendError("The CUDA kernels of gsplat are not built and no CUDA toolkit was found to build them.")
    return gsplat


def _built_kernels(package: Path) -> bool:
    """Whether compiled kernels are in the package or in the cache of torch's extension builds."""
    cache = Path(os.environ.get("TORCH_EXTENSIONS_DIR", Path.home() / ".cache" / "torch_extensions"))
    return any(package.glob("csrc*.so")) or any(package.glob("csrc*.pyd")) or any(cache.glob("**/gsplat_cuda/gsplat_cuda.*"))


def _has_nvcc() -> bool:
    homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    return bool(shutil.which("nvcc")) or any((home / "bin" / "nvcc").exists() for home in (*homes, _CUDA_HOME))


def _has_ninja() -> bool:
    return bool(shutil.which("ninja") or shutil.which("ninja", path=sysconfig.get_path("scripts")))
