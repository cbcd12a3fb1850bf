"""The worker: works on one job folder from its request to its result, and says at each moment what it is doing."""

from __future__ import annotations

import _thread
import logging
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, TextIO

from MedGSLib.errors import EXIT_BAD_INPUT, EXIT_DONE, Cancelled, InputError, MedGSError
from MedGSLib.job.events import HEARTBEAT, EventWriter, JobEvent
from MedGSLib.job.failures import explain_exception
from MedGSLib.job.folder import JobFolder
from MedGSLib.job.request import JobRequest
from MedGSLib.job.result import JobResult, collect_outputs, current_versions, verify, write_result
from MedGSLib.job.schema import file_sha256
from MedGSLib.progress import ProgressCallback, ProgressEvent

logger = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
"""A line goes into the events at least this often while the process can run Python at all."""

WATCH_S = 0.1
"""How often the cancel file is looked for."""

CANCEL_PATIENCE_S = 0.4
"""Time for the work to notice a cancellation by itself before it is interrupted where it stands."""

STEP_INTERVAL_S = 0.25
"""Steps of one stage are written at most this often, since hours of training would else fill the disk with lines."""

PREVIEW_INTERVAL_S = 0.5
LOG_BYTES = 4 << 20

Reconstruct = Callable[[JobRequest, JobFolder, ProgressCallback, bool], Mapping[str, Any]]
"""(request, folder, progress callback, whether to go on from a checkpoint) -> ``metrics``, ``timings`` and ``versions`` for the manifest.

Writes its files to ``folder.output``.
"""


class EventStream:
    """Where the worker's events go: the file, standard output, and an observer who may cancel.

    Usable as the library's progress callback; beside it a thread writes heartbeats and watches for the cancel file.
    """

    def __init__(self, folder: JobFolder, echo: Optional[TextIO], observer: Optional[ProgressCallback]) -> None:
        self._folder = folder
        self._writer = EventWriter(folder.events_file)
        self._echo = echo
        self._observer = observer
        self._cancelled = threading.Event()
        self._closed = threading.Event()
        self._progress_at = self._written_at = self._step_at = time.monotonic()
        self._stage = "start"
        self._previews: Dict[Path, float] = {}
        self._previews_at = 0.0
        self._watcher = threading.Thread(target=self._watch, name="heartbeat", daemon=True)

    def __enter__(self) -> EventStream:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_watching()
        self._writer.close()

    def __call__(self, event: ProgressEvent) -> bool:
        """Forward a progress event. :return: False once the job is to be cancelled."""
        now = time.monotonic()
        self._progress_at = now
        middle = event.stage == self._stage and not event.message and event.level == "info" and event.step != event.total
        if not middle or now - self._step_at >= STEP_INTERVAL_S:
            self._stage, self._step_at = event.stage, now
            self.send(JobEvent.from_progress(event))
            self._announce_previews(event.stage)
        if self._observer is not None and self._observer(event) is False:
            self._cancelled.set()
        return not self._cancelled.is_set()

    def send(self, event: JobEvent) -> None:
        """Write one event to the file and to standard output."""
        self._written_at = time.monotonic()
        self._writer.write(event)
        if self._echo is not None:
            try:
                self._echo.write(event.as_line() + "\n")
                self._echo.flush()
            except (OSError, ValueError):
                self._echo = None

    def stop_watching(self) -> None:
        """End the thread; from here on nothing interrupts the work any more.

        :raises KeyboardInterrupt: if the thread interrupted the work in this very moment.
        """
        self._closed.set()
        if self._watcher.is_alive():
            self._watcher.join(timeout=5.0)

    def _announce_previews(self, stage: str) -> None:
        now = time.monotonic()
        if now - self._previews_at < PREVIEW_INTERVAL_S:
            return
        self._previews_at = now
        for path in self._folder.output.glob("preview*"):
            with suppress(OSError):
                changed = path.stat().st_mtime
                if self._previews.get(path) != changed:
                    self._previews[path] = changed
                    name = path.relative_to(self._folder.path).as_posix()
                    self.send(JobEvent(stage, level="preview", time=time.time(), preview=name))

    def _watch(self) -> None:
        interrupt_at = float("inf")
        while not self._closed.wait(WATCH_S):
            now = time.monotonic()
            if not self._cancelled.is_set() and self._folder.cancel_file.exists():
                self._cancelled.set()
            if self._cancelled.is_set() and interrupt_at == float("inf"):
                interrupt_at = now + CANCEL_PATIENCE_S
            if now >= interrupt_at:
                _interrupt_main()
                return
            if now - self._written_at >= HEARTBEAT_S:
                self.send(JobEvent(self._stage, level=HEARTBEAT, time=time.time(), idle_s=round(now - self._progress_at, 1)))


def _interrupt_main() -> None:
    """Raise KeyboardInterrupt in the main thread; where the system can, by a true signal, since only that ends a sleep."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def run_job(path: Path, reconstruct: Optional[Reconstruct] = None, stop: Optional[ProgressCallback] = None) -> int:
    """Work on a job folder; this is ``medgs worker JOBDIR``.

    A folder that is already finished is left as it is; one that was interrupted is resumed from its checkpoint.

    :param reconstruct: does the work; by default the library's main job.
    :param stop: sees every progress event and cancels by answering False.
    :return: the exit code: 0 only once result.json is in place; see :mod:`MedGSLib.errors`.
    """
    folder = JobFolder(Path(path))
    if not folder.path.is_dir():
        sys.stderr.write(f"There is no job folder {folder.path}.\n")
        return EXIT_BAD_INPUT
    with ExitStack() as cleanup:
        try:
            folder.claim()
            if _is_finished(folder):
                return EXIT_DONE
            for leftover in (folder.cancel_file, folder.result_file):
                leftover.unlink(missing_ok=True)
            cleanup.callback(_close_log, _open_log(folder.log_file))
            stream = cleanup.enter_context(EventStream(folder, _echo(), stop))
        except (MedGSError, OSError) as error:
            failure = explain_exception(error)
            sys.stderr.write(f"{failure.sentence}\n")
            return failure.exit_code
        return _run(folder, reconstruct or _library_reconstruct, stream)


def _run(folder: JobFolder, reconstruct: Reconstruct, stream: EventStream) -> int:
    try:
        _work(folder, reconstruct, stream)
    except (Cancelled, KeyboardInterrupt) as error:
        return _report_failure(stream, error)
    except Exception as error:
        level = logging.INFO if isinstance(error, MedGSError) else logging.ERROR
        logger.log(level, "The job in %s failed", folder.path, exc_info=error)
        return _report_failure(stream, error)
    return EXIT_DONE


def _work(folder: JobFolder, reconstruct: Reconstruct, stream: EventStream) -> None:
    started = time.monotonic()
    request = folder.read_request()
    resume = folder.has_checkpoint()
    logger.info("Job '%s' in %s%s", request.title, folder.path, ", going on from its checkpoint" if resume else "")
    stream(ProgressEvent("start", message="Going on from the last checkpoint" if resume else "Starting"))
    folder.output.mkdir(exist_ok=True)
    report = reconstruct(request, folder, stream, resume)
    stream.stop_watching()
    if stream(ProgressEvent("finish", message="Checking the outputs")) is False:
        raise Cancelled()
    result = JobResult(
        outputs=collect_outputs(folder.path, folder.output),
        metrics=_section(report, "metrics"),
        timings={**_section(report, "timings"), "job_s": round(time.monotonic() - started, 3)},
        versions=current_versions(_section(report, "versions")),
        request_sha256=file_sha256(folder.request_file),
        finished=time.time(),
    )
    stream(ProgressEvent("done", 1, 1, message="Done"))
    write_result(folder.path, result)


def _report_failure(stream: EventStream, error: BaseException) -> int:
    with suppress(KeyboardInterrupt):
        stream.stop_watching()
    failure = explain_exception(error)
    logger.error("%s %s", failure.sentence, failure.next_step)
    stream.send(
        JobEvent("end", level="error", message=failure.sentence, time=time.time(), next_step=failure.next_step, exit_code=failure.exit_code)
    )
    return failure.exit_code


def _library_reconstruct(request: JobRequest, folder: JobFolder, progress: ProgressCallback, resume: bool) -> Mapping[str, Any]:
    """The main job of the library on a request, whose parameters have the names of the command line's options."""
    from MedGSLib.config import InputOptions, preset_config
    from MedGSLib.reconstruct import reconstruct_files

    parameters = dict(request.parameters)
    options: Dict[str, Any] = {"labels": tuple(label.value for label in request.inputs.labels)}
    if request.geometry is not None:
        options["positions"] = request.geometry.positions_mm
    for name, option in (("axis", "axis"), ("annotated", "annotated"), ("margin", "margin_mm"), ("slice_thickness", "slice_thickness_mm")):
        if name in parameters:
            options[option] = parameters.pop(name)
    if parameters.pop("crop", True) is False:
        options["margin_mm"] = None
    settings = {**parameters.pop("overrides", {}), "mode": _mode(request)}
    preset = parameters.pop("preset", "standard")
    for name, value in parameters.items():
        if name in ("refine_mask", "start_model"):
            value = str(folder.path / value)
        settings["spacing_mm" if name == "spacing" else name] = value
    image, mask = (None if name is None else folder.path / name for name in (request.inputs.image, request.inputs.mask))
    config, inputs = preset_config(preset, **settings), InputOptions(**options)
    report = reconstruct_files(image, mask, folder.output, config, inputs, progress=progress, resume=resume)
    metrics = {name: report[name] for name in ("segments", "self_check", "fit") if report.get(name)}
    return {"metrics": metrics, "timings": report.get("timings"), "versions": report.get("versions")}


def _mode(request: JobRequest) -> str:
    inputs = request.inputs
    return request.parameters.get("mode") or ("mask" if inputs.image is None else "image" if inputs.mask is None else "joint")


def _is_finished(folder: JobFolder) -> bool:
    """Whether a valid result of exactly this request is already there."""
    if not folder.result_file.is_file():
        return False
    try:
        return verify(folder.path).request_sha256 == file_sha256(folder.request_file)
    except (InputError, OSError):
        return False


def _section(report: Any, name: str) -> Mapping[str, Any]:
    section = report.get(name) if isinstance(report, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def _echo() -> Optional[TextIO]:
    """Standard output for programs; a person at a terminal sees the progress bar of the command line instead."""
    return None if sys.stdout is None or sys.stdout.isatty() else sys.stdout


def _open_log(path: Path) -> logging.Handler:
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    library = logging.getLogger("MedGSLib")
    library.addHandler(handler)
    library.setLevel(min(library.level or logging.INFO, logging.INFO))
    return handler


def _close_log(handler: logging.Handler) -> None:
    logging.getLogger("MedGSLib").removeHandler(handler)
    handler.close()
