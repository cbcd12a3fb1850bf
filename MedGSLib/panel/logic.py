"""What the module does besides showing it: jobs from parameters, results into the scene, and how long things take."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Callable, Optional

import qt
import slicer

from MedGSLib.job.folder import JobFolder
from MedGSLib.job.launch import WorkerCommand
from MedGSLib.job.process import JobController
from MedGSLib.job.result import JobResult
from MedGSLib.panel import parameters
from MedGSLib.panel.calibration import Calibration
from MedGSLib.panel.environmentbox import userFolder
from MedGSLib.panel.parameters import MedGSParameterNode
from MedGSLib.panel.session import PanelSession, importJob
from MedGSLib.scene.estimate import outputVoxels
from MedGSLib.scene.nodes import OutputNodes
from MedGSLib.scene.results import readReport

CALIBRATION_SETTING = "MedGS/Calibration"

logger = logging.getLogger(__name__)


class PanelLogic:
    """What the module does, for the panel and for scripts; no widgets.

    :ivar session: the jobs of this application.
    :param parameterNode: gives the scripted module node of the scene.
    """

    def __init__(self, parameterNode: Callable[[], slicer.vtkMRMLScriptedModuleNode]) -> None:
        self.session = PanelSession()
        self.jobsFolder = userFolder() / "jobs"
        self._parameterNode = parameterNode
        self._wrapped: Optional[Any] = None

    def getParameterNode(self) -> MedGSParameterNode:
        """The parameters that are saved with the scene; the same object as long as the node is the same, as it observes the node."""
        node = self._parameterNode()
        if self._wrapped is None or self._wrapped.parameterNode is not node:
            self._wrapped = MedGSParameterNode(node)  # type: ignore[call-arg]  # made by the decorator
        return self._wrapped

    def submit(self, node: MedGSParameterNode, command: WorkerCommand) -> JobController:
        """Start a job with the parameters of the panel, or let it wait for the one that runs.

        :raises MedGSError: if the inputs cannot be used.
        """
        logger.info("MedGS: reconstructing %s", node.inputVolume.GetName())
        return self.session.submit(
            self.jobsFolder,
            parameters.sceneInput(node),
            parameters.jobParameters(node),
            parameters.outputChoice(node),
            command,
            {"slicer": slicer.app.applicationVersion},
            Path(node.refineModel) if node.refineModel else None,
        )

    def estimate(self, node: MedGSParameterNode, onGpu: bool) -> str:
        """How long a job would take, in one sentence."""
        voxels = outputVoxels(parameters.sceneInput(node), parameters.jobParameters(node))
        return self._calibration().sentence(voxels, node.preset, onGpu)

    def learn(self, job: JobController) -> None:
        """Remember how fast a finished job was."""
        calibration = self._calibration()
        calibration.learn(readReport(job.folder.path), job.elapsed_s)
        qt.QSettings().setValue(CALIBRATION_SETTING, calibration.text)

    def importResult(self, folder: JobFolder, verified: Optional[JobResult] = None) -> OutputNodes:
        """Put the result of a finished job into the scene.

        :param verified: its manifest, where its checksums were compared a moment ago.
        :raises MedGSError: if it is not complete and sound; the scene is then as before.
        """
        return importJob(slicer.mrmlScene, folder, verified=verified)

    @staticmethod
    def _calibration() -> Calibration:
        return Calibration(slicer.util.settingsValue(CALIBRATION_SETTING, ""))
