"""The state of the panel, saved with the scene, and what it means for the worker."""

from typing import Annotated, Any, Dict, List, Tuple

import slicer
from slicer.parameterNodeWrapper import Choice, Maximum, Minimum, WithinRange, parameterNodeWrapper

from MedGSLib.errors import InputError
from MedGSLib.scene.export import SceneInput
from MedGSLib.scene.nodes import OutputChoice
from MedGSLib.scene.segments import segmentIds

AXES = ["auto", "i", "j", "k"]
MODES = {"Image and segments": "joint", "Image only": "image", "Segments only": "mask"}
RESOLUTIONS = ["Nearly cubic voxels", "Slices per gap", "Slice spacing"]
ANNOTATED = ["Detect", "All slices", "Every N-th slice", "These slices"]
PRESETS = ["fast", "standard", "high", "paper"]
DEVICES = ["auto", "cuda", "cpu"]
REGISTRATIONS = ["auto", "image", "surface", "none"]
LARGEST = 100_000_000


@parameterNodeWrapper
class MedGSParameterNode:
    """Everything the user chose.

    ``segmentation`` and ``segmentIds`` belong to one widget that the wrapper does not know, so does ``preset``; a value of 0 (degree: -1)
    in Gaussians, iterations and threads leaves it to the preset. ``jobFolder`` is the last job of this scene.
    """

    inputVolume: slicer.vtkMRMLScalarVolumeNode
    segmentation: slicer.vtkMRMLSegmentationNode
    segmentIds: str = ""
    roi: slicer.vtkMRMLMarkupsROINode
    axis: Annotated[str, Choice(AXES)] = "auto"
    annotated: Annotated[str, Choice(ANNOTATED)] = "Detect"
    annotatedDetail: str = ""
    makeVolume: bool = True
    makeSegmentation: bool = True
    makeModel: bool = True
    makeTable: bool = True
    makeUncertainty: bool = False
    show3D: bool = True
    outputVolume: slicer.vtkMRMLScalarVolumeNode
    outputSegmentation: slicer.vtkMRMLSegmentationNode
    outputModel: slicer.vtkMRMLModelNode
    preset: Annotated[str, Choice(PRESETS)] = "standard"
    mode: Annotated[str, Choice(list(MODES))] = "Image and segments"
    resolution: Annotated[str, Choice(RESOLUTIONS)] = "Nearly cubic voxels"
    scale: Annotated[int, WithinRange(1, 32)] = 3
    spacing: Annotated[float, WithinRange(0.01, 50.0)] = 1.0
    sliceThickness: Annotated[float, WithinRange(0.0, 50.0)] = 0.0
    crop: bool = True
    margin: Annotated[float, WithinRange(0.0, 500.0)] = 10.0
    gaussians: Annotated[int, Minimum(0), Maximum(LARGEST)] = 0
    iterations: Annotated[int, Minimum(0), Maximum(LARGEST)] = 0
    degree: Annotated[int, WithinRange(-1, 7)] = -1
    imageWeight: Annotated[float, WithinRange(0.0, 100.0)] = 1.0
    maskWeight: Annotated[float, WithinRange(0.0, 100.0)] = 1.0
    seed: Annotated[int, Minimum(0), Maximum(LARGEST)] = 0
    device: Annotated[str, Choice(DEVICES)] = "auto"
    threads: Annotated[int, WithinRange(0, 256)] = 0
    refineModel: str = ""
    hardenNonLinear: bool = False
    registration: Annotated[str, Choice(REGISTRATIONS)] = "auto"
    jobFolder: str = ""


def chosenSegmentIds(parameters: MedGSParameterNode) -> Tuple[str, ...]:
    """The IDs of the ticked segments that still exist; empty for all."""
    known = () if parameters.segmentation is None else segmentIds(parameters.segmentation)
    return tuple(entry for entry in parameters.segmentIds.split("\n") if entry in known)


def sceneInput(parameters: MedGSParameterNode) -> SceneInput:
    """What the user picked in the scene; the segmentation is left out where only the image is wanted."""
    wantsMask = MODES[parameters.mode] != "image"
    return SceneInput(
        volumeNode=parameters.inputVolume,
        segmentationNode=parameters.segmentation if wantsMask else None,
        segmentIds=chosenSegmentIds(parameters) if wantsMask else (),
        roiNode=parameters.roi,
        hardenNonLinear=parameters.hardenNonLinear,
    )


def outputChoice(parameters: MedGSParameterNode) -> OutputChoice:
    """Which outputs the user wants, and where."""
    return OutputChoice(
        volume=parameters.makeVolume,
        segmentation=parameters.makeSegmentation,
        model=parameters.makeModel,
        table=parameters.makeTable,
        uncertainty=parameters.makeUncertainty,
        show3D=parameters.show3D,
        volumeNode=parameters.outputVolume,
        segmentationNode=parameters.outputSegmentation,
        modelNode=parameters.outputModel,
    )


def outputProblems(parameters: MedGSParameterNode) -> List[str]:
    """Complaints about outputs that would overwrite the inputs."""
    pairs = (
        (parameters.makeVolume, parameters.outputVolume, parameters.inputVolume, "volume"),
        (parameters.makeSegmentation, parameters.outputSegmentation, parameters.segmentation, "segmentation"),
    )
    return [
        f"The output {kind} is the input; choose another one, or 'Create new node'."
        for isMade, output, source, kind in pairs
        if isMade and output is not None and output is source
    ]


def jobParameters(parameters: MedGSParameterNode) -> Dict[str, Any]:
    """The options of the job request; what was left to the preset is left out.

    :raises InputError: if the annotated slices are not numbers.
    """
    options: Dict[str, Any] = {
        "preset": parameters.preset,
        "mode": MODES[parameters.mode],
        "axis": parameters.axis,
        "annotated": annotatedOption(parameters.annotated, parameters.annotatedDetail),
        "device": parameters.device,
        "seed": parameters.seed,
        "crop": parameters.crop,
    }
    if parameters.crop:
        options["margin"] = parameters.margin
    if parameters.resolution == RESOLUTIONS[1]:
        options["scale"] = parameters.scale
    elif parameters.resolution == RESOLUTIONS[2]:
        options["spacing"] = parameters.spacing
    if parameters.sliceThickness > 0:
        options["slice_thickness"] = parameters.sliceThickness
    if parameters.threads > 0:
        options["threads"] = parameters.threads
    overrides = _overrides(parameters)
    return {**options, "overrides": overrides} if overrides else options


def _overrides(parameters: MedGSParameterNode) -> Dict[str, Any]:
    """Settings that differ from the preset, under the names of the command line's options."""
    overrides: Dict[str, Any] = {}
    if parameters.gaussians > 0:
        overrides["gaussians"] = parameters.gaussians
    if parameters.iterations > 0:
        overrides["iterations"] = parameters.iterations
    if parameters.degree >= 0:
        overrides["degree"] = parameters.degree
    if parameters.imageWeight != 1.0:
        overrides["lambda_img"] = parameters.imageWeight
    if parameters.maskWeight != 1.0:
        overrides["lambda_seg"] = parameters.maskWeight
    return overrides


def annotatedOption(kind: str, detail: str) -> str:
    """The option ``--annotated`` that a choice of :data:`ANNOTATED` and its text mean.

    :raises InputError: if the text does not fit.
    """
    if kind in ANNOTATED[:2]:
        return ("auto", "all")[ANNOTATED.index(kind)]
    try:
        numbers = [int(part) for part in detail.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if kind == ANNOTATED[2] and len(numbers) == 1 and numbers[0] >= 1:
        return f"every:{numbers[0]}"
    if kind == ANNOTATED[3] and numbers and min(numbers) >= 0:
        return "list:" + ",".join(str(number) for number in sorted(set(numbers)))
    wanted = "a number such as 3" if kind == ANNOTATED[2] else "slice numbers such as 0, 5, 9"
    raise InputError(f"Annotated slices: write {wanted} next to '{kind}'.")
