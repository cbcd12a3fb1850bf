"""From nodes to a job folder: the inputs of a reconstruction as files, and the request that names them."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import slicer
from numpy.typing import NDArray

from MedGSLib import __version__, geometry
from MedGSLib.errors import InputError, ResourceError
from MedGSLib.geometry import Matrix
from MedGSLib.job.folder import JobFolder
from MedGSLib.job.request import JobGeometry, JobInputs, JobRequest
from MedGSLib.scene import frames, segments, volumes
from MedGSLib.scene.context import CONTEXT_KEY, SceneContext, SegmentSource, VolumeLook, parentContext
from MedGSLib.scene.segments import SegmentBlock
from MedGSLib.scene.volumes import Crop, VolumeFrame
from MedGSLib.volume import Label, Volume

IMAGE_FILE = "image.nrrd"
MASK_FILE = "mask.nrrd"
MODEL_FILE = "start.medgs"
MAX_SEGMENTS = 255


@dataclass(frozen=True)
class SceneInput:
    """What the user picked in the scene.

    :ivar segmentIds: the segments to reconstruct; empty with a segmentation means all of them.
    :ivar hardenNonLinear: apply transforms that bend space on a hidden copy instead of refusing them.
    """

    volumeNode: slicer.vtkMRMLScalarVolumeNode
    segmentationNode: Optional[slicer.vtkMRMLSegmentationNode] = None
    segmentIds: Tuple[str, ...] = ()
    roiNode: Optional[slicer.vtkMRMLMarkupsROINode] = None
    hardenNonLinear: bool = False


def missingInputs(source: SceneInput, parameters: Mapping[str, Any]) -> List[str]:
    """What keeps the input from being run, one short sentence each; quick enough to ask after every click."""
    missing = ["Choose an input volume."] if source.volumeNode is None else list(_volumeProblems(source, parameters))
    if parameters.get("mode") != "image" and not chosenSegmentIds(source):
        missing.append("Choose at least one segment, or 'Image only' under Advanced.")
    missing.extend(_segmentProblems(source))
    if not missing and not source.hardenNonLinear:
        missing.extend(_transformProblems(source))
    return missing


def _segmentProblems(source: SceneInput) -> Iterator[str]:
    """Complaints about chosen segments that were deleted since."""
    if source.segmentationNode is not None:
        known = segments.segmentIds(source.segmentationNode)
        for segmentId in source.segmentIds:
            if segmentId not in known:
                yield f"The segmentation '{source.segmentationNode.GetName()}' has no segment '{segmentId}'."


def _volumeProblems(source: SceneInput, parameters: Mapping[str, Any]) -> Iterator[str]:
    """A complaint about voxels that cannot be used, or a region without any."""
    try:
        shape = volumes.voxels(source.volumeNode).shape
        geometry.slice_axis(volumes.ijkToRas(source.volumeNode), shape[::-1], parameters.get("axis", "auto"))
        if source.roiNode is not None:
            volumes.roiCrop(source.roiNode, source.volumeNode)
    except InputError as error:
        yield str(error)


def _transformProblems(source: SceneInput) -> Iterator[str]:
    """Complaints about transforms that bend space."""
    try:
        volumes.volumeFrame(source.volumeNode)
        if source.segmentationNode is not None:
            segments.requireUsableTransform(source.segmentationNode, source.volumeNode)
    except InputError as error:
        yield str(error)


def sceneToJob(
    root: Path,
    source: SceneInput,
    parameters: Optional[Mapping[str, Any]] = None,
    provenance: Optional[Mapping[str, Any]] = None,
    refineModel: Optional[Path] = None,
) -> JobFolder:
    """Write the inputs and the request of a job into a new folder under ``root``; the scene is left as it was.

    :param parameters: as in :class:`MedGSLib.job.request.JobRequest`; ``annotated`` counts the slices of the whole volume.
    :param provenance: further facts that the outputs should remember.
    :param refineModel: an earlier model whose Gaussians and image are kept while the segments are learnt anew.
    :raises InputError: if the nodes cannot be used, in one sentence that says what to do.
    :raises ResourceError: if the disk is full; no half-made folder is left.
    """
    with ExitStack() as stack:
        usable = _withoutNonLinear(source, stack)
        image = volumes.voxels(usable.volumeNode)
        frame = volumes.volumeFrame(usable.volumeNode)
        crop = _crop(usable, image)
        sources, masks = _masks(usable, source, crop)
        context = _context(usable, source, frame, sources)
        matrix, positions = croppedGeometry(frame, crop)
        options = _shiftedOptions(dict(parameters or {}), frame.ijkToRas, image.shape[::-1], crop)
        if refineModel is not None:
            options["refine_mask"] = MODEL_FILE
        labels = _labels(sources)
        request = JobRequest(
            inputs=JobInputs(IMAGE_FILE, MASK_FILE if masks else None, labels),
            geometry=JobGeometry.from_matrix(matrix, positions),
            parameters=options,
            provenance={**(provenance or {}), "medgs": __version__, CONTEXT_KEY: context.asDict()},
            title=context.outputName,
        )
        folder = JobFolder.create(root, request)
        try:
            volumes.writeNrrd(folder.path / IMAGE_FILE, image[crop.slices], matrix)
            if masks:
                _writeMask(folder.path / MASK_FILE, masks, crop.shape, matrix, labels)
            if refineModel is not None:
                _copy(refineModel, folder.path / MODEL_FILE)
        except BaseException:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
    return folder


def _writeMask(path: Path, masks: Sequence[SegmentBlock], shape: Tuple[int, ...], matrix: Matrix, labels: Sequence[Label]) -> None:
    """Write the segments with the header by which the library and Slicer know their names: as one label map, or where they overlap
    with a layer for each.

    :raises ResourceError: if the file cannot be written.
    """
    import SimpleITK as sitk  # not needed before a job is made

    from MedGSLib.io.images import set_geometry
    from MedGSLib.io.writers import segment_header

    together = segments.labelmapOf(masks, shape)
    header = segment_header(labels, Volume(np.broadcast_to(np.uint8(0), shape), matrix))
    if together is not None:
        image = sitk.GetImageFromArray(together)
    else:
        image = sitk.GetImageFromArray(segments.layersOf(masks, shape), isVector=True)
        header.update({f"Segment{number}_Layer": str(number) for number in range(len(labels))})
    for key, value in header.items():
        image.SetMetaData(key, value)
    try:
        sitk.WriteImage(set_geometry(image, matrix), str(path), useCompression=True)
    except RuntimeError as error:
        raise ResourceError(f"'{path.name}' could not be written to '{path.parent}': check the free space and the permissions.") from error


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise InputError(f"The model {source} cannot be read: {error.strerror or error}.") from error


def _withoutNonLinear(source: SceneInput, stack: ExitStack) -> SceneInput:
    """The input with the volume replaced by a hardened copy where that is asked for and needed."""
    if not source.hardenNonLinear or frames.isLinear(source.volumeNode.GetParentTransformNode()):
        return source
    try:
        volumes.volumeFrame(source.volumeNode)
    except InputError:
        return replace(source, volumeNode=stack.enter_context(frames.hardenedCopy(source.volumeNode)))
    return source


def _crop(source: SceneInput, image: NDArray) -> Crop:
    return Crop.whole(image.shape) if source.roiNode is None else volumes.roiCrop(source.roiNode, source.volumeNode)


def chosenSegmentIds(source: SceneInput) -> Sequence[str]:
    """The IDs of the segments to reconstruct; all of the segmentation's where none was picked."""
    if source.segmentationNode is None:
        return ()
    return source.segmentIds or segments.segmentIds(source.segmentationNode)


def _masks(usable: SceneInput, original: SceneInput, crop: Crop) -> Tuple[Tuple[SegmentSource, ...], List[SegmentBlock]]:
    """The segments and their masks on the voxels of the crop; nothing without a segmentation."""
    ids = chosenSegmentIds(usable)
    if len(ids) > MAX_SEGMENTS:
        raise InputError(f"{len(ids)} segments are too many for one job; choose at most {MAX_SEGMENTS}.")
    sources, masks = [], []
    for value, segmentId in enumerate(ids, start=1):
        properties = segments.segmentProperties(original.segmentationNode, segmentId)
        mask = segments.segmentBlock(usable.segmentationNode, segmentId, usable.volumeNode, usable.hardenNonLinear).within(crop)
        if not mask.array.any():
            place = original.roiNode or original.volumeNode
            raise InputError(f"The segment '{properties.name}' is empty inside '{place.GetName()}'.")
        sources.append(SegmentSource(segmentId, value, properties))
        masks.append(mask)
    return tuple(sources), masks


def _labels(sources: Sequence[SegmentSource]) -> Tuple[Label, ...]:
    """The segments as labels whose names also differ as file names."""
    labels: List[Label] = []
    for source in sources:
        name = " ".join(source.properties.name.split()) or f"Segment {source.value}"
        label = Label(source.value, name, source.properties.color)
        if label.file_name.lower() in {other.file_name.lower() for other in labels}:
            label = replace(label, name=f"{label.name} ({label.value})")
        labels.append(label)
    return tuple(labels)


def _context(usable: SceneInput, source: SceneInput, frame: VolumeFrame, sources: Tuple[SegmentSource, ...]) -> SceneContext:
    volume, segmentation = source.volumeNode, source.segmentationNode
    isLocal = usable is source and frame.parent is volume.GetParentTransformNode()
    item = volumes.sequenceItem(volume)
    shown = () if item is None else (f"Of the sequence '{item['sequence']}' this is the item with {item['index']}.",)
    return SceneContext(
        volumeId=volume.GetID(),
        volumeName=volume.GetName(),
        look=VolumeLook.of(volume),
        volumeIjkToRas=tuple(map(tuple, frame.ijkToRas.tolist())) if isLocal else None,
        gridIjkToRas=tuple(map(tuple, volumes.ijkToRas(volume).tolist())),
        segmentationId="" if segmentation is None else segmentation.GetID(),
        segmentationName="" if segmentation is None else segmentation.GetName(),
        segments=sources,
        sequence=item,
        roiName="" if source.roiNode is None else source.roiNode.GetName(),
        studyDate=volumes.studyDate(volume),
        notes=(*frame.notes, *shown),
        **parentContext(frame.parent),
    )


def croppedGeometry(frame: VolumeFrame, crop: Crop) -> Tuple[NDArray[np.float64], Optional[NDArray[np.float64]]]:
    """The 4x4 ijkToRas and the slice positions (or None) of a cropped volume."""
    i, j, k = crop.start
    if frame.positionsMm is None:
        return geometry.shifted_origin(frame.ijkToRas, crop.start), None
    matrix = geometry.shifted_origin(frame.ijkToRas, (i, j, 0))
    normal = matrix[:3, 2] / geometry.spacing(matrix)[2]
    matrix[:3, 3] += normal * frame.positionsMm[k]
    positions = frame.positionsMm[k : crop.stop[2]]
    return matrix, positions - positions[0]


def _shiftedOptions(options: Dict[str, Any], matrix: NDArray, shapeIjk: Tuple[int, ...], crop: Crop) -> Dict[str, Any]:
    """The parameters with ``annotated`` counted from the first slice of the crop."""
    annotated = str(options.get("annotated", "auto"))
    axis = geometry.slice_axis(matrix, shapeIjk, options.get("axis", "auto"))
    start, stop = crop.start[axis], crop.stop[axis]
    if (start, stop) == (0, shapeIjk[axis]) or annotated in ("auto", "all"):
        return options
    kind, _, value = annotated.partition(":")
    try:
        numbers = range(0, shapeIjk[axis], int(value)) if kind == "every" else [int(part) for part in value.split(",")]
    except ValueError as error:
        raise InputError(f"The annotated slices '{annotated}' are none of auto, all, every:N, list:0,5,9.") from error
    inside = [str(number - start) for number in numbers if start <= number < stop]
    if not inside:
        raise InputError("None of the annotated slices lies inside the region of interest.")
    return {**options, "annotated": "list:" + ",".join(inside)}
