"""The methods that are compared: each turns what a problem shows into a dense image or mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from vtkmodules.vtkCommonDataModel import vtkPolyData

from MedGSLib.baselines import images, masks
from MedGSLib.baselines.poisson import poisson
from MedGSLib.config import ReconstructionConfig
from MedGSLib.errors import InputError
from MedGSLib.evaluation.names import IMAGE, MASK, MEDGS, METHODS_OF, PRIOR, THICK, kind_of
from MedGSLib.evaluation.protocols import Problem
from MedGSLib.mesh import occupancy_to_mesh
from MedGSLib.preparation import gap_over_pixel
from MedGSLib.prior.image import image_prior
from MedGSLib.prior.mask import mask_prior
from MedGSLib.prior.mask_distance import soft_occupancy
from MedGSLib.reconstruct import reconstruct

SMOOTHING_ITERATIONS = 20
"""Of the windowed sinc filter, the closed surface's default in 3D Slicer."""


@dataclass(frozen=True)
class Estimate:
    """A method's answer on the T slices of the problem, in the frame and units of its stack.

    :ivar image: float32 (T, H, W) or None; :ivar occupancy: float32 (T, H, W), inside above 0.5, or None.
    :ivar surface: RAS mm, None where there is no mask or nothing of it is left.
    """

    image: NDArray[np.float32] | None = None
    occupancy: NDArray[np.float32] | None = None
    surface: vtkPolyData | None = None


Recipes = Mapping[str, ReconstructionConfig]
"""What ``medgs:NAME`` and ``prior:NAME`` stand for."""


def applies(method: str, problem: Problem) -> bool:
    """Whether the method can take part in the problem's protocol."""
    kind = kind_of(method)
    if kind not in METHODS_OF[problem.protocol]:
        return False
    return not kind.endswith("_bp") or problem.scale == problem.every


def random(method: str) -> bool:
    """Whether the method depends on the seed."""
    return kind_of(method) in (MEDGS, PRIOR)


def solve(method: str, problem: Problem, recipes: Recipes, seed: int = 0) -> Estimate:
    """Let a method reconstruct what the problem hides.

    :param recipes: configuration of each preset after the colon of a method.
    :raises InputError: if the method is unknown or not part of the protocol.
    """
    if not applies(method, problem):
        raise InputError(f"The method '{method}' cannot take part in the protocol '{problem.protocol}'.")
    kind, _, recipe = method.partition(":")
    if kind in (MEDGS, PRIOR):
        if recipe not in recipes:
            raise InputError(f"There is no recipe called '{recipe}' for the method '{method}'.")
        config = _seeded(recipes[recipe], seed)
        return _medgs(problem, config) if kind == MEDGS else _prior(problem, config)
    if problem.protocol in (IMAGE, THICK):
        return Estimate(image=_interpolated(kind, problem))
    return _interpolated_mask(kind, problem)


def _seeded(config: ReconstructionConfig, seed: int) -> ReconstructionConfig:
    return replace(config, seed=seed, training=replace(config.training, seed=seed), prior=replace(config.prior, seed=seed))


def _medgs(problem: Problem, config: ReconstructionConfig) -> Estimate:
    """As a user gets it: a box of the told thickness is what ``auto`` assumes, unless the slices speak against it."""
    kind = problem.profile.kind
    config = replace(
        config,
        mode="image" if problem.protocol in (IMAGE, THICK) else "joint",
        scale=problem.scale,
        spacing_mm=None,
        slice_profile="auto" if kind == "box" else kind,
    )
    result = reconstruct(problem.stack, config)
    if result.occupancy is None:
        return Estimate(image=result.image)
    return Estimate(result.image, result.occupancy[0], result.meshes.get(problem.stack.labels[0].name))


def _prior(problem: Problem, config: ReconstructionConfig) -> Estimate:
    stack = problem.stack
    if problem.protocol in (IMAGE, THICK):
        assert stack.image is not None
        return Estimate(image=image_prior(stack.image, problem.scale, gap_over_pixel(stack), config.prior, problem.profile).image)
    assert stack.occupancy is not None
    guide = stack.image if problem.protocol == MASK else None
    found = mask_prior(stack.occupancy[0], stack.annotated, problem.scale, gap_over_pixel(stack), image=guide)
    return _with_surface(problem, soft_occupancy(found.signed_distance))


_INTERPOLATORS: dict[str, images.Interpolator] = {
    "linear": images.linear,
    "cubic": images.cubic,
    "sinc": images.sinc,
    "flow": images.flow_tvl1,
    "flow_dis": images.flow_dis,
}
_BACK_PROJECTIONS: dict[str, Callable[..., NDArray[np.float32]]] = {
    "cubic_bp": images.cubic_back_projection,
    "flow_bp": images.flow_back_projection,
}


def _interpolated(kind: str, problem: Problem) -> NDArray[np.float32]:
    slices = problem.stack.image
    assert slices is not None
    if kind in _BACK_PROJECTIONS:
        return _BACK_PROJECTIONS[kind](slices, problem.scale, problem.profile)
    return _INTERPOLATORS[kind](slices, np.arange(len(slices), dtype=np.float64), problem.wanted)


def _interpolated_mask(kind: str, problem: Problem) -> Estimate:
    """Masks between the annotated slices; signed distances become the soft occupancy that MedGS uses too."""
    stack = problem.stack
    assert stack.occupancy is not None
    known = np.flatnonzero(stack.annotated)
    occupancy = stack.occupancy[0, known] >= 0.5
    places = known.astype(np.float64)
    if kind in ("sdf", "sdf_cubic"):
        distance = (masks.sdf_linear if kind == "sdf" else masks.sdf_cubic)(occupancy, places, problem.wanted, stack.pixel_mm)
        return _with_surface(problem, soft_occupancy(distance))
    if kind == "morphological":
        return _with_surface(problem, masks.morphological(occupancy, places, problem.wanted))
    if kind == "poisson":
        return _with_surface(problem, poisson(occupancy, places, problem.wanted, gap_over_pixel(stack)))
    smoothing = SMOOTHING_ITERATIONS if kind == "nearest_smooth" else 0
    return _with_surface(problem, masks.nearest(occupancy, places, problem.wanted), smoothing)


def _with_surface(problem: Problem, occupancy: NDArray[np.float32], smoothing: int = 0) -> Estimate:
    if occupancy.max() <= 0.5:
        return Estimate(occupancy=occupancy)
    return Estimate(occupancy=occupancy, surface=occupancy_to_mesh(occupancy, problem.index_to_ras, smoothing_iterations=smoothing))
