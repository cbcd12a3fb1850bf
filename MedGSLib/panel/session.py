"""The jobs of a panel without the panel: submitted, followed, cancelled, taken over and imported. No Qt."""

from __future__ import annotations

import filecmp
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

import slicer

from MedGSLib.errors import InputError, MedGSError
from MedGSLib.job.events import JobEvent
from MedGSLib.job.folder import FolderState, JobFolder, list_jobs
from MedGSLib.job.launch import WorkerCommand
from MedGSLib.job.process import JobController, JobState
from MedGSLib.job.queue import JobQueue
from MedGSLib.job.request import JobRequest
from MedGSLib.job.result import JobResult
from MedGSLib.scene.context import CONTEXT_KEY, SceneContext, nodeByHint
from MedGSLib.scene.export import SceneInput, sceneToJob
from MedGSLib.scene.maker import inputVolume
from MedGSLib.scene.nodes import OutputChoice, OutputNodes, jobOf, resultToScene

OUTPUTS_KEY = "outputs"
"""The entry of a job's provenance that holds what the user wants of it."""

_WANTED = ("volume", "segmentation", "model", "table", "uncertainty", "show3D")
_TARGETS = {
    "volumeNode": "vtkMRMLScalarVolumeNode",
    "segmentationNode": "vtkMRMLSegmentationNode",
    "modelNode": "vtkMRMLModelNode",
}


@dataclass(frozen=True)
class SessionNews:
    """What happened since the last look."""

    events: Tuple[JobEvent, ...] = ()
    ended: Tuple[JobController, ...] = ()


class PanelSession:
    """All jobs that this application has started or taken over.

    :ivar current: the job that the panel shows: the one that runs, else the last one.
    :ivar preview: the newest preview picture of the current job.
    """

    def __init__(self) -> None:
        self.current: Optional[JobController] = None
        self.preview: Optional[Path] = None
        self._homeless: Set[Path] = set()
        self._begunBefore: Set[JobController] = set()
        self._queue = JobQueue()
        self._watched: List[JobController] = []

    @property
    def isBusy(self) -> bool:
        """Whether a worker is at work."""
        return self._queue.active is not None

    @property
    def waiting(self) -> int:
        """Jobs that wait for the running one."""
        return len(self._queue.waiting)

    def submit(
        self,
        root: Path,
        source: SceneInput,
        parameters: Mapping[str, Any],
        choice: OutputChoice,
        command: WorkerCommand,
        facts: Optional[Mapping[str, Any]] = None,
        refineModel: Optional[Path] = None,
    ) -> JobController:
        """Write a job of what the user picked and start it, or let it wait for the one that runs.

        Where an earlier job with the very same inputs and parameters was stopped, that one goes on from its checkpoint instead.

        :param facts: further entries of the provenance.
        :raises MedGSError: in one sentence, if the inputs cannot be used; nothing is left behind then.
        """
        provenance = {**(facts or {}), OUTPUTS_KEY: choiceToJson(choice)}
        return self.start(_continued(root, sceneToJob(root, source, parameters, provenance, refineModel)), command)

    def start(self, folder: JobFolder, command: WorkerCommand) -> JobController:
        """Start or resume the job of a folder, or let it wait; a worker that already runs in it is taken over.

        :raises InputError: if the job is already followed, or runs while another one does.
        """
        if self.isFollowed(folder):
            raise InputError("The job is already in the queue.")
        job = JobController(folder, command)
        isRunning = folder.state() is FolderState.RUNNING
        if isRunning:
            job.attach()
        if isRunning or folder.has_checkpoint():
            self._begunBefore.add(job)
        self._queue.submit(job)
        self._watched.append(job)
        self._homeless.discard(folder.path)
        if self.current is None or not self.current.state.is_active:
            self._show(job)
        return job

    def isFollowed(self, folder: JobFolder) -> bool:
        """Whether a job runs or waits in this application."""
        return any(job.folder.path == folder.path for job in self._watched)

    def isWhole(self, job: JobController) -> bool:
        """Whether a job was watched from its beginning, so that its duration says how fast the computer is."""
        return job not in self._begunBefore

    def poll(self) -> SessionNews:
        """Look at the jobs; call it a few times a second."""
        shown = tuple(event for job, event in self._queue.poll() if job is self.current)
        for event in shown:
            if event.preview and self.current is not None:
                self.preview = self.current.folder.path / event.preview
        ended = tuple(job for job in self._watched if job.state.is_final)
        self._watched = [job for job in self._watched if not job.state.is_final]
        if self._queue.active is not None and self._queue.active is not self.current and not ended:
            self._show(self._queue.active)
        return SessionNews(shown, ended)

    def leaveScene(self) -> None:
        """The scene is closed: what runs or waits was not made for the next one, which may be another patient's."""
        self._homeless.update(job.folder.path for job in self._watched)

    def belongsTo(self, scene: slicer.vtkMRMLScene, folder: JobFolder) -> bool:
        """Whether a job was made of this scene and its input volume is still there, so that the result may be imported unasked."""
        return folder.path not in self._homeless and isInputIn(scene, folder)

    def cancel(self) -> None:
        """Cancel the running job; it ends within two seconds."""
        if self._queue.active is not None:
            self._queue.cancel(self._queue.active)

    def stop(self) -> None:
        """End the running job because the application ends; its folder keeps what was learnt, so that it can be resumed."""
        self._queue.stop()

    def _show(self, job: JobController) -> None:
        self.current, self.preview = job, None


def _continued(root: Path, folder: JobFolder) -> JobFolder:
    """The stopped job that does the same work as a new one, with the new one's wishes; else the new one."""
    request = folder.read_request()
    for other in reversed(list_jobs(root)):
        if other.path != folder.path and other.has_checkpoint() and other.state() in RESUMABLE and _isSameWork(other, folder, request):
            other.write_request(request)
            folder.delete()
            return other
    return folder


def _isSameWork(other: JobFolder, folder: JobFolder, request: JobRequest) -> bool:
    try:
        earlier = other.read_request()
    except MedGSError:
        return False
    if (earlier.inputs, earlier.geometry, earlier.parameters) != (request.inputs, request.geometry, request.parameters):
        return False
    files = [name for name in (request.inputs.image, request.inputs.mask, request.parameters.get("refine_mask")) if name]
    return not any(filecmp.cmpfiles(other.path, folder.path, files, shallow=False)[1:])


def choiceToJson(choice: OutputChoice) -> Dict[str, Any]:
    """An output choice as plain values, nodes as ID and name."""
    wanted: Dict[str, Any] = {name: getattr(choice, name) for name in _WANTED}
    for name in _TARGETS:
        node = getattr(choice, name)
        if node is not None:
            wanted[name] = [node.GetID(), node.GetName()]
    return wanted


def isInputIn(scene: slicer.vtkMRMLScene, folder: JobFolder) -> bool:
    """Whether the volume that a job was made of is in the scene; without it, what is called alike belongs to another patient."""
    try:
        context = SceneContext.fromDict(folder.read_request().provenance[CONTEXT_KEY])
    except (MedGSError, KeyError):
        return False
    return inputVolume(scene, context) is not None


def choiceOf(scene: slicer.vtkMRMLScene, folder: JobFolder) -> OutputChoice:
    """What the user wanted of a job; target nodes that are gone become new ones, as all do in a scene without the job's input."""
    try:
        stored = folder.read_request().provenance.get(OUTPUTS_KEY, {})
    except MedGSError:
        return OutputChoice()
    choice: Dict[str, Any] = {name: bool(stored[name]) for name in _WANTED if name in stored}
    targets = {name: kind for name, kind in _TARGETS.items() if name in stored}
    if targets and isInputIn(scene, folder):
        for name, kind in targets.items():
            nodeId, nodeName = stored[name]
            choice[name] = nodeByHint(scene, nodeId, nodeName, kind)
    return OutputChoice(**choice)


def importJob(
    scene: slicer.vtkMRMLScene, folder: JobFolder, choice: Optional[OutputChoice] = None, verified: Optional[JobResult] = None
) -> OutputNodes:
    """Import a finished job with the outputs that were asked for when it was started.

    :param verified: its manifest, where its checksums were compared a moment ago.
    :raises InputError: if the result is not complete and sound.
    """
    return resultToScene(scene, folder.path, choice or choiceOf(scene, folder), verified)


@dataclass(frozen=True)
class KnownJob:
    """A job folder of this computer as it was when it was looked at; ``request`` is None where it cannot be read."""

    folder: JobFolder
    state: FolderState
    request: Optional[JobRequest]

    @property
    def title(self) -> str:
        """What the job was made of."""
        return (self.request.title if self.request is not None else "") or self.folder.path.name

    @property
    def text(self) -> str:
        """The job as an entry of a list: its title, when it was asked for, and what became of it."""
        asked = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.folder.request_file.stat().st_mtime))
        return f"{self.title}, {asked}: {self.state.value}"


def knownJobs(root: Path) -> List[KnownJob]:
    """The job folders of this computer, the newest first."""
    return [KnownJob(folder, folder.state(), _requestOf(folder)) for folder in reversed(list_jobs(root))]


def _requestOf(folder: JobFolder) -> Optional[JobRequest]:
    try:
        return folder.read_request()
    except MedGSError:
        return None


RESUMABLE = (FolderState.NEW, FolderState.FAILED, FolderState.CANCELLED, FolderState.INTERRUPTED)
"""States of jobs that stopped before their end."""


def isImported(scene: slicer.vtkMRMLScene, folder: JobFolder) -> bool:
    """Whether some node of the scene came from a job."""
    return any(jobOf(scene.GetNthNode(index)) == folder.path.name for index in range(scene.GetNumberOfNodes()))


def isFinished(job: JobController) -> bool:
    """Whether a job ended with a sound result."""
    return job.state is JobState.SUCCEEDED
