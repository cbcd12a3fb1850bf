"""A job folder: the whole state of one job, and the names of the files in it."""

from __future__ import annotations

import enum
import json
import os
import re
import secrets
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from MedGSLib.errors import EXIT_CANCELLED, InputError
from MedGSLib.io.atomic import write_error, write_json
from MedGSLib.job.events import EventReader
from MedGSLib.job.process_tree import start_token
from MedGSLib.job.request import WHAT, JobRequest
from MedGSLib.job.result import RESULT_NAME
from MedGSLib.job.schema import Fields, read_json


class FolderState(enum.Enum):
    """What became of a job, judged by its folder alone."""

    NEW = "not started"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class ProcessRecord:
    """``process.json``: which process works on the folder; ``token`` tells it from a later one with the same number."""

    pid: int
    token: str
    host: str

    @classmethod
    def of(cls, pid: int) -> ProcessRecord:
        """The record of a living process of this machine."""
        return cls(pid, start_token(pid) or "", socket.gethostname())

    def is_alive(self) -> bool:
        """Whether that very process still runs; processes of another machine count as ended."""
        return self.host == socket.gethostname() and bool(self.token) and start_token(self.pid) == self.token


@dataclass(frozen=True)
class JobFolder:
    """Names inside a job folder; ``path`` need not exist yet."""

    path: Path

    @property
    def request_file(self) -> Path:
        """What is to be done."""
        return self.path / "request.json"

    @property
    def events_file(self) -> Path:
        """The worker's events, one JSON object a line."""
        return self.path / "events.jsonl"

    @property
    def result_file(self) -> Path:
        """The manifest, there only after success."""
        return self.path / RESULT_NAME

    @property
    def cancel_file(self) -> Path:
        """Its existence asks the worker to stop."""
        return self.path / "cancel.request"

    @property
    def process_file(self) -> Path:
        """Which process works on the folder."""
        return self.path / "process.json"

    @property
    def log_file(self) -> Path:
        """The worker's log."""
        return self.path / "run.log"

    @property
    def console_file(self) -> Path:
        """Everything that the worker process and its libraries printed."""
        return self.path / "console.log"

    @property
    def output(self) -> Path:
        """Where the outputs of the reconstruction go."""
        return self.path / "output"

    @classmethod
    def create(cls, root: Path, request: JobRequest) -> JobFolder:
        """Make a new folder under ``root``, named by time and title, with the request in it.

        :raises InputError: if the folder cannot be made. :raises ResourceError: if the disk is full.
        """
        title = re.sub(r"[^A-Za-z0-9]+", "-", request.title).strip("-")[:40]
        name = "-".join(part for part in ("job", time.strftime("%Y%m%d-%H%M%S"), title, secrets.token_hex(2)) if part)
        try:
            (root / name).mkdir(parents=True)
        except OSError as error:
            raise write_error(root / name, error) from error
        folder = cls(root / name)
        folder.write_request(request)
        return folder

    def write_request(self, request: JobRequest) -> None:
        """Check the request as the worker will, and write it.

        :raises InputError: if it is not valid.
        """
        document = json.loads(json.dumps(request.as_json(), default=str))
        JobRequest.from_json(document)
        write_json(self.request_file, document)

    def read_request(self) -> JobRequest:
        """:raises InputError: if the request is missing or not valid, or an input file that it names is missing."""
        request = JobRequest.from_json(read_json(self.request_file, WHAT))
        parameters = request.parameters
        for name in (request.inputs.image, request.inputs.mask, parameters.get("refine_mask"), parameters.get("start_model")):
            if name is not None and not (self.path / name).is_file():
                raise InputError(f"The input file {name} of the job is missing from {self.path}.")
        return request

    def process(self) -> Optional[ProcessRecord]:
        """The process that works or last worked on the folder, or None where there is no readable record."""
        try:
            fields = Fields(read_json(self.process_file, "The process record"), "The process record")
            return ProcessRecord(fields.get("pid", int), fields.get("token", str), fields.get("host", str))
        except InputError:
            return None

    def claim(self) -> None:
        """Record that this process, the worker, works on the folder; where its parent, a launcher, is recorded, that stands for it.

        :raises InputError: if another living process already does.
        """
        current = self.process()
        if current is not None and current.is_alive():
            if current.pid not in (os.getpid(), os.getppid()):
                raise InputError(f"Another process ({current.pid}) is already working on the job folder {self.path}.")
            return
        self.record(os.getpid())

    def record(self, pid: int) -> None:
        """Record which process works on the folder."""
        record = ProcessRecord.of(pid)
        write_json(self.process_file, {"pid": record.pid, "token": record.token, "host": record.host})

    def has_checkpoint(self) -> bool:
        """Whether a stopped worker left something to go on from."""
        return any(self.output.glob("checkpoint*"))

    def state(self) -> FolderState:
        """What became of the job; FINISHED is not verified here, see :func:`MedGSLib.job.result.verify`."""
        record = self.process()
        if record is not None and record.is_alive():
            return FolderState.RUNNING
        if self.result_file.is_file():
            return FolderState.FINISHED
        if not self.events_file.exists():
            return FolderState.NEW
        code = last_exit_code(self.events_file)
        if code is None:
            return FolderState.CANCELLED if self.cancel_file.exists() else FolderState.INTERRUPTED
        return FolderState.CANCELLED if code == EXIT_CANCELLED else FolderState.FAILED

    def delete(self) -> None:
        """Remove the folder with everything in it.

        :raises InputError: if it is no job folder, its worker still runs, or parts of it cannot be removed.
        """
        if not self.request_file.is_file():
            raise InputError(f"{self.path} is not a job folder and was left alone.")
        if self.state() is FolderState.RUNNING:
            raise InputError(f"The job in {self.path} is still running; cancel it first.")
        try:
            shutil.rmtree(self.path)
        except OSError as error:
            raise InputError(f"{error.filename or self.path} cannot be removed; close what uses it and try again.") from error


def list_jobs(root: Path) -> List[JobFolder]:
    """:return: the job folders under ``root``, oldest first."""
    found = [JobFolder(path) for path in root.glob("*") if (path / "request.json").is_file()] if root.is_dir() else []
    return sorted(found, key=lambda folder: folder.request_file.stat().st_mtime)


def last_exit_code(events_file: Path) -> Optional[int]:
    """:return: the exit code that the last run in the folder reported, or None where it ended without a word."""
    words = [event for event in EventReader(events_file).read(most=-1) if not event.is_heartbeat]
    return words[-1].exit_code if words else None
