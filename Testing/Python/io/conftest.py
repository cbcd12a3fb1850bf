"""Volumes in every orientation, and small DICOM series, for the tests of files."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from MedGSLib.volume import Volume


def affine(columns: np.ndarray, spacing_mm: tuple[float, float, float], origin: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = columns * np.array(spacing_mm)
    matrix[:3, 3] = origin
    return matrix


OBLIQUE = Rotation.from_euler("xyz", (11.0, -23.0, 37.0), degrees=True).as_matrix()
ORIENTATIONS = {
    "ras": affine(np.eye(3), (0.8, 1.1, 5.0), (-10.0, 20.0, 30.0)),
    "lps": affine(np.diag([-1.0, -1.0, 1.0]), (0.8, 1.1, 5.0), (12.0, 3.0, -40.0)),
    "upside down": affine(np.diag([1.0, -1.0, -1.0]), (0.8, 1.1, 5.0), (12.0, 3.0, -40.0)),
    "left handed": affine(np.diag([-1.0, 1.0, 1.0]), (0.8, 1.1, 5.0), (12.0, 3.0, -40.0)),
    "slices along i": affine(np.eye(3)[:, [2, 0, 1]], (4.0, 0.7, 0.9), (5.0, 6.0, 7.0)),
    "slices along j": affine(np.eye(3)[:, [0, 2, 1]], (0.7, 4.0, 0.9), (5.0, 6.0, 7.0)),
    "oblique": affine(OBLIQUE, (0.8, 1.1, 5.0), (-3.0, 14.0, 8.0)),
    "oblique, flipped, along i": affine(OBLIQUE @ np.diag([1.0, -1.0, 1.0])[:, [2, 0, 1]], (6.0, 0.6, 1.0), (1.0, 2.0, 3.0)),
}


@pytest.fixture(params=list(ORIENTATIONS))
def oriented(request: pytest.FixtureRequest) -> Volume:
    """An int16 volume of 20 x 24 x 28 different values with a matrix of each kind."""
    voxels = np.random.default_rng(3).permutation(28 * 24 * 20).reshape(28, 24, 20).astype(np.int16) - 1000
    return Volume(voxels, ORIENTATIONS[request.param])


def write_plain(path: Path, voxels: np.ndarray, ijk_to_ras: np.ndarray, is_vector: bool = False) -> Path:
    """Write voxels with SimpleITK alone, so that the code under test takes no part."""
    image = sitk.GetImageFromArray(voxels, isVector=is_vector)
    if image.GetDimension() == 3:
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ijk_to_ras
        mm = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(mm.tolist())
        image.SetDirection((lps[:3, :3] / mm).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path), True)
    return path


@pytest.fixture
def plain() -> Callable[..., Path]:
    return write_plain


def write_dicom_slice(
    path: Path,
    pixels: np.ndarray,
    position: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    number: int,
    series: str = "1",
    **tags: object,
) -> None:
    """One CT image by pydicom; ``row`` and ``column`` are ImageOrientationPatient."""
    pydicom = pytest.importorskip("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{series}.{number + 1}"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.9"
    data.SeriesInstanceUID = f"1.2.826.0.1.3680043.8.498.{series}"
    data.SeriesDescription = f"series {series}"
    data.Modality, data.StudyDate, data.PatientID = "CT", "20240131", "P7"
    data.InstanceNumber = number + 1
    data.Rows, data.Columns = pixels.shape
    data.PixelSpacing = [1.5, 0.75]
    data.SliceThickness = 2.5
    data.ImagePositionPatient = [round(float(mm), 5) for mm in position]
    data.ImageOrientationPatient = [round(float(part), 6) for part in (*row, *column)]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleIntercept, data.RescaleSlope = -1024, 1
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = pixels.astype(np.int16).tobytes()
    data.save_as(path, enforce_file_format=True)


@pytest.fixture
def dicom_series(tmp_path: Path) -> Callable[..., tuple[Path, np.ndarray, np.ndarray]]:
    """Make a series of slices at the given positions, with shuffled file names; returns folder, pixels (K, rows, columns), LPS origins."""

    def make(
        positions: list[float], direction: np.ndarray = OBLIQUE, tilt: np.ndarray | None = None, series: str = "1", **tags: object
    ) -> tuple[Path, np.ndarray, np.ndarray]:
        folder = tmp_path / "dicom"
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(5)
        pixels = rng.integers(0, 2000, (len(positions), 6, 8))
        row, column, normal = direction.T
        along = normal if tilt is None else tilt
        origins = np.array([10.0, -20.0, 30.0]) + np.outer(positions, along)
        for number, name in enumerate(rng.permutation(len(positions))):
            write_dicom_slice(folder / f"{series}_{name}.dcm", pixels[number], origins[number], row, column, number, series, **tags)
        return folder, pixels - 1024, origins

    return make


@pytest.fixture
def mask_series(tmp_path: Path) -> Callable[..., Path]:
    """Make a series of masks at the given positions, all filled, in the frame of :func:`dicom_series`; returns the folder."""

    def make(name: str, positions: list[float], direction: np.ndarray = OBLIQUE) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        row, column, normal = direction.T
        pixels = np.zeros((6, 8), np.int16)
        pixels[2:5, 3:6] = 1
        for number, place in enumerate(positions):
            origin = np.array([10.0, -20.0, 30.0]) + place * normal
            write_dicom_slice(folder / f"{number}.dcm", pixels, origin, row, column, number, "2", RescaleIntercept=0)
        return folder

    return make


def write_enhanced_mr(path: Path, pixels: np.ndarray, origins: np.ndarray, scaling: list[tuple[float, float]]) -> None:
    """One enhanced MR file by pydicom: frames (F, rows, columns) in this order, at LPS ``origins`` (F, 3) in axial planes."""
    pydicom = pytest.importorskip("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedMRImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.77.1"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.9", "1.2.826.0.1.3680043.8.498.77"
    data.Modality, data.InstanceNumber = "MR", 1
    data.NumberOfFrames, data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    measures, orientation, shared = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = [1.5, 0.75], 2.5, 7.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    data.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for origin, (slope, intercept) in zip(origins, scaling, strict=True):
        place, values, frame = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [round(float(mm), 5) for mm in origin]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, intercept, "US"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [values]
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = frames
    data.PixelData = pixels.astype(np.uint16).tobytes()
    data.save_as(path, enforce_file_format=True)


@pytest.fixture
def enhanced_mr() -> Callable[..., None]:
    return write_enhanced_mr
