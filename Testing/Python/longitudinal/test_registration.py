"""Registration finds known motion, says how well, and says when it failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from MedGSLib.errors import InputError
from MedGSLib.geometry import transform_points
from MedGSLib.longitudinal import registration
from MedGSLib.longitudinal.distance import moved_surface
from MedGSLib.longitudinal.registration_image import mean_rigid, register_images, stable_anatomy
from MedGSLib.longitudinal.registration_surface import register_surfaces
from MedGSLib.mesh import occupancy_to_mesh
from MedGSLib.phantom import AneurysmPhantom, AneurysmTruth
from MedGSLib.phantom_shape import AneurysmShape
from MedGSLib.volume import Volume


def stable(scan: AneurysmPhantom) -> NDArray[np.bool_]:
    return stable_anatomy(scan.image, scan.labels.voxels > 0)


def test_images_are_aligned_on_the_anatomy_that_did_not_grow(
    baseline_scan: AneurysmPhantom, grown_scan: AneurysmPhantom, followup_pose: NDArray[np.float64]
) -> None:
    wall = baseline_scan.truth.mesh(4.0)
    points = np.array([wall.GetPoint(index) for index in range(0, wall.GetNumberOfPoints(), 5)])
    found = register_images(
        baseline_scan.image, grown_scan.image, baseline_stable=stable(baseline_scan), followup_stable=stable(grown_scan), points_ras=points
    )
    error = registration.disagreement_mm(found.matrix, np.linalg.inv(followup_pose), transform_points(followup_pose, points))
    assert found.captured
    assert error < 0.4
    assert 0.0 < found.residual_mm < 1.0
    assert found.rotation_deg == pytest.approx(6.0, abs=0.5)


def test_a_volume_that_shows_something_else_is_not_captured(baseline_scan: AneurysmPhantom) -> None:
    noise = np.random.default_rng(3).normal(size=baseline_scan.image.voxels.shape).astype(np.float32)
    found = register_images(baseline_scan.image, Volume(noise, baseline_scan.image.ijk_to_ras))
    assert not found.captured
    assert found.message.startswith("The registration failed")


def test_stable_anatomy_leaves_out_the_segment_its_margin_and_padding() -> None:
    voxels = np.zeros((6, 20, 20), np.int16)
    voxels[:, :2] = -2048
    segment = np.zeros(voxels.shape, bool)
    segment[3, 10, 10] = True
    matrix = np.diag([2.0, 2.0, 5.0, 1.0])
    stable_voxels = stable_anatomy(Volume(voxels, matrix), segment, margin_mm=6.0)
    assert not stable_voxels[:, :2].any()
    assert not stable_voxels[3, 10, 7:14].any()
    assert stable_voxels[3, 10, 6]
    assert not stable_voxels[2, 10, 10]
    assert stable_voxels[1, 10, 10]


def test_surfaces_are_aligned_in_spite_of_local_growth(followup_pose: NDArray[np.float64]) -> None:
    before, after = (AneurysmTruth(AneurysmShape(growth_mm=growth)).mesh(1.5) for growth in (0.0, 5.0))
    found = register_surfaces(before, moved_surface(after, followup_pose))
    points = np.array([after.GetPoint(index) for index in range(0, after.GetNumberOfPoints(), 50)])
    assert found.captured
    assert registration.disagreement_mm(found.matrix @ followup_pose, np.eye(4), points) < 0.3


def test_uniform_growth_of_a_sphere_is_neither_motion_nor_a_failure() -> None:
    z, y, x = np.indices((46, 46, 46)) - 22.5
    radius = np.sqrt(x**2 + y**2 + z**2)
    small, large = (occupancy_to_mesh(0.5 + 0.5 * np.tanh((size - radius) / 2), np.eye(4)) for size in (15.0, 18.0))
    found = register_surfaces(small, large)
    assert found.captured
    center, wall = np.array([[22.5, 22.5, 22.5]]), np.array([[37.0, 22.5, 22.5]])
    assert registration.disagreement_mm(found.matrix, np.eye(4), center) < 0.1
    assert registration.disagreement_mm(found.matrix, np.eye(4), wall) < 0.5  # the turn of a sphere is free


def test_surfaces_of_different_things_are_not_captured() -> None:
    box = np.zeros((60, 60, 60), np.float32)
    box[20:40, 5:55, 25:35] = 1
    found = register_surfaces(AneurysmTruth(AneurysmShape()).mesh(2.0), occupancy_to_mesh(box, np.eye(4)))
    assert not found.captured


def test_a_transform_file_comes_back_as_it_was(tmp_path: Path, followup_pose: NDArray[np.float64]) -> None:
    registration.write_transform(tmp_path / "move.tfm", followup_pose)
    assert np.allclose(registration.read_transform(tmp_path / "move.tfm"), followup_pose, atol=1e-9)
    with pytest.raises(InputError, match="does not exist"):
        registration.read_transform(tmp_path / "none.tfm")
    (tmp_path / "bad.tfm").write_text("nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        registration.read_transform(tmp_path / "bad.tfm")


def test_only_rigid_transforms_are_taken(followup_pose: NDArray[np.float64]) -> None:
    assert registration.given_registration(followup_pose).rotation_deg == pytest.approx(6.0)
    for wrong in (np.diag([1.1, 1.0, 1.0, 1.0]), np.diag([-1.0, 1.0, 1.0, 1.0]), np.eye(3)):
        with pytest.raises(InputError, match="not rigid"):
            registration.given_registration(wrong)


def test_the_mean_of_two_transforms_lies_halfway() -> None:
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    turned[:3, 3] = (2.0, 0.0, 6.0)
    mean = mean_rigid(np.eye(4), turned, np.zeros(3))
    assert registration.rotation_deg(mean) == pytest.approx(10.0)
    assert mean[:3, 3] == pytest.approx((1.0, 0.0, 3.0))


def test_aligned_real_scans_stay_where_they_are(shared_data: Path) -> None:
    from MedGSLib.io.volumes import read_volume

    folder = shared_data / "mr_meningioma_longitudinal_slicer"
    first, second = (read_volume(folder / f"{name}_image.nrrd") for name in ("t1", "t2"))
    found = register_images(first, second)
    i, j, k = (size / 2 for size in first.shape_ijk)
    middle = transform_points(first.ijk_to_ras, np.array([[i, j, k]]))
    assert found.captured
    assert registration.disagreement_mm(found.matrix, np.eye(4), middle) < 0.5 * 0.3844
