"""The gsplat backend: its arguments through an emulation of gsplat's tile kernels on the CPU, its refusals, and on a GPU the real thing."""

from __future__ import annotations

import math
import sys
import types
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from MedGSLib.errors import BackendError
from MedGSLib.raster import choose_rasterizer, gsplat_cuda
from MedGSLib.raster.gsplat_cuda import TILE, GsplatRasterizer, gsplat_status, pair_depths, pair_radii, tile_grid
from MedGSLib.raster.reference import ReferenceRasterizer

READY, REASON = gsplat_status()
needs_gpu = pytest.mark.skipif(not READY, reason=f"gsplat cannot run here: {REASON}")
BLENDINGS = ("alpha", "alpha_normalized")


class EmulatedKernels:
    """gsplat's three functions for packed pairs in plain torch: pixel centres at halves, keys image | tile | depth, a stable sort."""

    def isect_tiles(
        self,
        means2d: Tensor,
        radii: Tensor,
        depths: Tensor,
        tile_size: int,
        tile_width: int,
        tile_height: int,
        *,
        packed: bool,
        n_images: int,
        image_ids: Tensor,
        gaussian_ids: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        assert packed
        assert radii.dtype == torch.int32
        assert depths.dtype == torch.float32
        assert image_ids.dtype == torch.int64
        assert gaussian_ids.dtype == torch.int64
        assert (image_ids < n_images).all()
        keys, pairs = [], []
        for pair in range(means2d.shape[0]):
            if (radii[pair] <= 0).any():
                continue
            low = torch.floor((means2d[pair].detach() - radii[pair]) / tile_size).clamp(min=0).long().tolist()
            high = torch.ceil((means2d[pair].detach() + radii[pair]) / tile_size).clamp(min=0).long().tolist()
            for row in range(min(low[1], tile_height), min(high[1], tile_height)):
                for column in range(min(low[0], tile_width), min(high[0], tile_width)):
                    keys.append((int(image_ids[pair]), row * tile_width + column, float(depths[pair])))
                    pairs.append(pair)
        order = sorted(range(len(keys)), key=keys.__getitem__)
        encoded = [keys[place][0] * tile_width * tile_height + keys[place][1] for place in order]
        return torch.zeros(0), torch.tensor(encoded, dtype=torch.int64), torch.tensor([pairs[place] for place in order], dtype=torch.int64)

    def isect_offset_encode(self, isect_ids: Tensor, n_images: int, tile_width: int, tile_height: int) -> Tensor:
        tiles = torch.arange(n_images * tile_height * tile_width)
        return torch.searchsorted(isect_ids, tiles).reshape(n_images, tile_height, tile_width)

    def rasterize_to_pixels(
        self,
        means2d: Tensor,
        conics: Tensor,
        colors: Tensor,
        opacities: Tensor,
        image_width: int,
        image_height: int,
        tile_size: int,
        isect_offsets: Tensor,
        flatten_ids: Tensor,
        *,
        packed: bool,
    ) -> tuple[Tensor, Tensor]:
        assert packed
        for tensor in (means2d, conics, colors, opacities):
            assert tensor.is_contiguous()
            assert tensor.dtype == torch.float32
        images, tile_rows, tile_columns = isect_offsets.shape
        assert tile_rows * tile_size >= image_height
        assert tile_columns * tile_size >= image_width
        stops = torch.cat((isect_offsets.flatten()[1:], torch.tensor([flatten_ids.numel()])))
        canvas = torch.zeros(images, tile_rows * tile_size, tile_columns * tile_size, colors.shape[1] + 1)
        for tile, (start, stop) in enumerate(zip(isect_offsets.flatten().tolist(), stops.tolist(), strict=True)):
            image, row, column = tile // (tile_rows * tile_columns), tile // tile_columns % tile_rows, tile % tile_columns
            top, left = row * tile_size, column * tile_size
            canvas[image, top : top + tile_size, left : left + tile_size] = self._tile(
                means2d, conics, colors, opacities, flatten_ids[start:stop].tolist(), top, left, tile_size
            )
        canvas = canvas[:, :image_height, :image_width]
        return canvas[..., :-1], canvas[..., -1:]

    def _tile(self, means2d, conics, colors, opacities, pairs, top, left, size) -> Tensor:
        y, x = torch.meshgrid(torch.arange(top, top + size) + 0.5, torch.arange(left, left + size) + 0.5, indexing="ij")
        light, composite = torch.ones(size, size), torch.zeros(size, size, colors.shape[1])
        done = torch.zeros(size, size, dtype=torch.bool)
        for pair in pairs:
            dx, dy = means2d[pair, 0] - x, means2d[pair, 1] - y
            sigma = 0.5 * (conics[pair, 0] * dx * dx + conics[pair, 2] * dy * dy) + conics[pair, 1] * dx * dy
            alpha = (opacities[pair] * torch.exp(-sigma)).clamp(max=0.999)
            skipped = (sigma < 0) | (alpha < 1 / 255)
            behind = light * (1 - alpha)
            done = done | (~skipped & (behind <= 1e-4))
            drawn = ~skipped & ~done
            composite = composite + torch.where(drawn, alpha * light, 0.0)[..., None] * colors[pair]
            light = torch.where(drawn, behind, light)
        return torch.cat((composite, 1 - light[..., None]), dim=2)


def emulated() -> GsplatRasterizer:
    return GsplatRasterizer(EmulatedKernels(), device="cpu")


@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.parametrize(("counts", "height", "width", "channels"), [([14], 16, 32, 1), ([9, 0, 12], 21, 37, 2), ([30, 25], 5, 50, 3)])
def test_the_packed_arguments_render_what_the_reference_does(scene, matches_reference, blending, counts, height, width, channels):
    matches_reference(emulated(), scene(counts, height, width, channels), blending)


def test_closing_pixels_and_high_opacity(scene, matches_reference):
    matches_reference(emulated(), scene([70], 18, 19, 1, scale=(3.0, 6.0), opacity=(0.5, 1.0)), "alpha")


def test_the_box_of_a_pair_holds_every_pixel_it_may_touch(scene):
    sliced = scene([200], 40, 40, 1, scale=(0.2, 5.0), anisotropy=8.0, opacity=(0.01, 1.0)).sliced
    sliced.weight[:20] = 0.0039
    radii = pair_radii(sliced.conic, sliced.weight)
    ys, xs = torch.meshgrid(torch.arange(-80, 120.0), torch.arange(-80, 120.0), indexing="ij")
    for pair in range(200):
        dx, dy = xs - sliced.center[pair, 0], ys - sliced.center[pair, 1]
        a, b, c = sliced.conic[pair]
        touched = sliced.weight[pair] * torch.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy)) >= 1 / 255
        if touched.any():
            assert float(dx[touched].abs().max()) <= int(radii[pair, 0])
            assert float(dy[touched].abs().max()) <= int(radii[pair, 1])
    assert not radii[:20].any()


def test_the_box_follows_the_axes():
    radii = pair_radii(torch.tensor([[1 / 100.0, 0.0, 1 / 4.0]]), torch.tensor([1.0]))
    reach = math.sqrt(2 * math.log(255))
    assert radii.tolist() == [[math.ceil(10 * reach), math.ceil(2 * reach)]]


def test_depths_keep_the_order_and_tiles_cover_the_image():
    assert (pair_depths(torch.rand(1000)).diff() > 0).all()
    assert tile_grid(33, 16) == (1, 3)
    assert tile_grid(TILE, TILE + 1) == (2, 1)


def test_normalised_blending_is_refused(scene):
    pairs = scene([3], 5, 5, 1).sliced
    with pytest.raises(BackendError, match="cannot do the blending 'normalized'; the CPU can"):
        emulated().rasterize(pairs, 5, 5, blending="normalized", epsilon=1e-3, background=0.0)


def test_gaussians_elsewhere_are_refused(scene):
    pairs = scene([3], 5, 5, 1).sliced
    with pytest.raises(BackendError, match="on the device cpu"):
        GsplatRasterizer(EmulatedKernels(), device="cuda").rasterize(pairs, 5, 5, blending="alpha", epsilon=1e-3, background=0.0)


def pretend_cuda(monkeypatch, tmp_path, *, built: bool = False) -> None:
    """A machine with a CUDA device and an installed gsplat, without nvcc or ninja."""
    package = tmp_path / "gsplat"
    package.mkdir()
    if built:
        (package / "csrc.abi3.so").touch()
    spec = types.SimpleNamespace(submodule_search_locations=[str(package)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Emulated GPU")
    monkeypatch.setattr(gsplat_cuda.importlib.util, "find_spec", lambda name: spec if name == "gsplat" else object())
    monkeypatch.setattr(gsplat_cuda.shutil, "which", lambda *_a, **_k: None)
    monkeypatch.setattr(gsplat_cuda, "_CUDA_HOME", tmp_path / "no-cuda")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_status_names_the_missing_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert gsplat_status() == (False, "The installed PyTorch was built without CUDA.")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert gsplat_status() == (False, "No CUDA device was found.")


def test_status_names_the_missing_package(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gsplat_cuda.importlib.util, "find_spec", lambda _name: None)
    assert gsplat_status() == (False, "The package gsplat is not installed.")


def test_status_names_what_a_build_needs(monkeypatch, tmp_path):
    pretend_cuda(monkeypatch, tmp_path)
    ready, reason = gsplat_status()
    assert not ready
    assert "the CUDA compiler nvcc and ninja cannot be found" in reason
    (tmp_path / "no-cuda" / "bin").mkdir(parents=True)
    (tmp_path / "no-cuda" / "bin" / "nvcc").touch()
    assert "because ninja cannot be found" in gsplat_status()[1]
    monkeypatch.setattr(gsplat_cuda.shutil, "which", lambda *_a, **_k: "/somewhere")
    assert gsplat_status() == (True, "gsplat compiles its kernels for Emulated GPU on first use, which takes some minutes once.")


def test_status_finds_built_kernels(monkeypatch, tmp_path):
    pretend_cuda(monkeypatch, tmp_path)
    built = tmp_path / "extensions" / "py312_cu128" / "gsplat_cuda"
    built.mkdir(parents=True)
    (built / "gsplat_cuda.so").touch()
    assert gsplat_status() == (True, "gsplat is installed, its kernels are built and Emulated GPU is available.")


@pytest.mark.parametrize("failure", [RuntimeError("Error building extension 'gsplat_cuda'\nlong log"), None])
def test_a_failed_build_is_one_sentence(monkeypatch, tmp_path, failure):
    pretend_cuda(monkeypatch, tmp_path, built=True)
    backend = types.ModuleType("gsplat.cuda._backend")
    if failure is None:
        backend._C = None
    else:
        backend.__getattr__ = lambda _name: (_ for _ in ()).throw(failure)
    for name, module in (("gsplat", types.ModuleType("gsplat")), ("gsplat.cuda", types.ModuleType("gsplat.cuda"))):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", backend)
    with pytest.raises(BackendError) as caught:
        choose_rasterizer("cuda")
    assert "\n" not in str(caught.value)
    assert ("Error building extension 'gsplat_cuda'" in str(caught.value)) == (failure is not None)
    rasterizer, reason = choose_rasterizer("auto", threads=1)
    assert rasterizer.name == "cpu"
    assert "gsplat" in reason


@needs_gpu
@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 6, 8])
@pytest.mark.parametrize(("slices", "height", "width"), [(1, 33, 47), (5, 16, 16), (64, 21, 70)])
def test_on_the_gpu_as_the_reference(scene, blending, channels, slices, height, width):
    placed = scene([0 if s == 1 else 20 for s in range(slices)], height, width, channels)
    results = []
    for rasterizer, device in ((GsplatRasterizer(), "cuda"), (ReferenceRasterizer(), "cpu")):
        moved = {field.name: getattr(placed.sliced, field.name).to(device) for field in fields(placed.sliced)}
        leaves = {name: moved[name].clone().requires_grad_() for name in ("center", "conic", "weight", "values")}
        features, weight = rasterizer.rasterize(
            replace(placed.sliced, **{**moved, **leaves}), height, width, blending=blending, epsilon=1e-3, background=0.25
        )
        (features.square().sum() + weight.sum()).backward()
        results.append([features.detach().cpu(), weight.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves.values())])
    for found, expected in zip(*results, strict=True):
        assert torch.quantile((found - expected).abs().flatten()[:1_000_000], 0.999) <= 1e-3 * max(1.0, float(expected.abs().max()))
