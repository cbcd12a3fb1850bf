"""Progress events of long work, and the callback through which the caller may cancel it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, Optional

from MedGSLib.errors import Cancelled


@dataclass(frozen=True)
class ProgressEvent:
    """One line of a job's events: what is being done, how far it is, and how long it will still take."""

    stage: str
    step: int = 0
    total: int = 0
    eta_s: Optional[float] = None
    loss: Optional[float] = None
    psnr: Optional[float] = None
    gpu_mem_mb: Optional[float] = None
    level: str = "info"
    message: str = ""

    def as_dict(self) -> Dict[str, Any]:
        """:return: the event without its empty fields, ready for JSON."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}


ProgressCallback = Callable[[ProgressEvent], Optional[bool]]
"""Called with each event; returning ``False`` cancels the work at that point."""


class Reporter:
    """Turns steps of a stage into :class:`ProgressEvent` with an ETA, and a ``False`` answer into :class:`Cancelled`.

    :param callback: receives every event, or None for silent work.
    """

    WARM_UP_STEPS = 3
    MIN_INTERVAL_S = 0.1

    def __init__(self, callback: Optional[ProgressCallback] = None) -> None:
        self._callback = callback
        self._stage = ""
        self._total = 0
        self._started_at = 0.0
        self._warm_step = 0
        self._last_sent = 0.0

    def start(self, stage: str, total: int = 0, message: str = "") -> None:
        """Open a stage of ``total`` steps (0: unknown).

        :raises Cancelled: if the callback answers False.
        """
        self._stage, self._total = stage, total
        self._started_at = time.monotonic()
        self._warm_step = 0
        self._send(ProgressEvent(stage, 0, total, message=message))

    def step(self, step: int, **fields: Any) -> None:
        """Report that ``step`` steps of the stage are done; ``fields`` as in :class:`ProgressEvent`.

        :raises Cancelled: if the callback answers False.
        """
        now = time.monotonic()
        if self._warm_step == 0 and step >= self.WARM_UP_STEPS:
            self._warm_step, self._started_at = step, now
        if step < self._total and now - self._last_sent < self.MIN_INTERVAL_S:
            return
        eta = None
        if self._warm_step and step > self._warm_step:
            eta = (now - self._started_at) / (step - self._warm_step) * (self._total - step)
        self._send(ProgressEvent(self._stage, step, self._total, eta_s=eta, **fields))

    def message(self, text: str, level: str = "info") -> None:
        """Send a sentence that belongs to the open stage.

        :raises Cancelled: if the callback answers False.
        """
        self._send(ProgressEvent(self._stage, level=level, message=text))

    def _send(self, event: ProgressEvent) -> None:
        self._last_sent = time.monotonic()
        if self._callback is not None and self._callback(event) is False:
            raise Cancelled()
