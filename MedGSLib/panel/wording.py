"""What the panel says about jobs and results. Plain text, no Qt and no MRML."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence

from MedGSLib.job.events import JobEvent
from MedGSLib.job.process import JobController, JobState

STAGES = {
    "start": "Starting",
    "prior": "Learning what lies between the slices",
    "shape": "Following the shape of the segments",
    "motion": "Following the segments through the image",
    "fit": "Fitting the Gaussians",
    "render": "Drawing the dense slices",
    "surface": "Making the surfaces",
    "write": "Writing the results",
    "finish": "Checking the outputs",
    "done": "Done",
}
"""Names of the worker's stages; others are shown as they are."""


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(8), duration(100), duration(5400)
    ('8 s', '1 min 40 s', '1 h 30 min')
    """
    whole = int(round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def stageName(stage: str) -> str:
    """A stage in plain words."""
    return STAGES.get(stage, stage.replace("_", " ").capitalize())


def statusText(job: Optional[JobController], waiting: int = 0) -> str:
    """One line on where a job stands: stage, elapsed time and time left, or how it ended and what to do next."""
    if job is None or job.state is JobState.IDLE:
        return ""
    if job.state is JobState.SUCCEEDED:
        return f"Done in {duration(job.elapsed_s)}."
    if job.state.is_final:
        failure = job.failure
        return "Cancelled." if failure is None else f"{failure.sentence} {failure.next_step}".strip()
    if job.state is JobState.CANCELLING:
        return "Cancelling..."
    event = job.last_event
    parts = [stageName(event.stage) if event is not None else "Starting the worker", f"{duration(job.elapsed_s)} elapsed"]
    if job.state is JobState.HUNG:
        parts.append("the worker has not answered for a while; cancel it if this goes on")
    elif event is not None and event.eta_s is not None:
        parts.append(f"about {duration(event.eta_s)} left in this step")
    if waiting:
        parts.append(f"{waiting} waiting")
    return ", ".join(parts) + "."


def percent(job: Optional[JobController]) -> Optional[int]:
    """The progress bar's value 0 to 100, or None while it cannot be known."""
    if job is None or job.last_event is None or not job.state.is_active:
        return None
    fraction = job.last_event.fraction
    return None if fraction is None else int(round(100 * fraction))


def logLine(event: JobEvent) -> str:
    """An event as line of the log, or an empty text for those that only move the progress bar."""
    if event.message:
        mark = "" if event.level in ("", "info") else f"{event.level.upper()}: "
        return f"[{stageName(event.stage)}] {mark}{event.message}" + (f" {event.next_step}" if event.next_step else "")
    if event.step == 0 and event.level == "info" and event.total:
        return f"[{stageName(event.stage)}]"
    return ""


def summary(report: Mapping[str, Any], sentences: Sequence[str]) -> str:
    """The result in a few lines: size of each segment, self-check against linear interpolation, remarks, what was measured.

    :param report: the worker's ``report.json``.
    :param sentences: on acquired and interpolated slices, and whatever else the user should know.
    """
    lines = [_segmentLine(name, values) for name, values in _mapping(report, "segments").items() if isinstance(values, Mapping)]
    lines += _selfCheckLines(_mapping(report, "self_check"))
    lines += [str(remark) for remark in report.get("remarks") or ()]
    return "\n".join([*lines, *sentences, "Research use only, not for diagnosis."])


def _segmentLine(name: str, values: Mapping[str, Any]) -> str:
    parts = [
        f"{label} {values[key]:.{digits}f} {unit}"
        for key, label, digits, unit in (
            ("volume_cm3", "volume", 2, "cm3"),
            ("area_cm2", "surface", 1, "cm2"),
            ("max_diameter_mm", "largest diameter", 1, "mm"),
        )
        if isinstance(values.get(key), (int, float))
    ]
    byAreas, error = values.get("volume_by_areas_cm3"), values.get("volume_by_areas_standard_error_cm3")
    if isinstance(byAreas, (int, float)) and isinstance(error, (int, float)):
        parts.append(f"by the areas of the drawn slices {byAreas:.2f} +- {error:.2f} cm3")
    band = values.get("position_error_between_slices_q90_mm")
    if isinstance(band, (int, float)) and values.get("position_error_is_calibrated"):
        parts.append(f"surface between slices right to {band:.1f} mm (90 %)")
    return f"{name}: " + ", ".join(parts)


def _selfCheckLines(check: Mapping[str, Any]) -> List[str]:
    lines = []
    image = _mapping(check, "image")
    ours, linear = _mapping(image, "medgs").get("psnr_db"), _mapping(image, "linear").get("psnr_db")
    if isinstance(ours, (int, float)) and isinstance(linear, (int, float)):
        lines.append(f"Self-check on left-out slices: image {ours:.1f} dB, linear interpolation {linear:.1f} dB.")
    for name, values in _mapping(check, "masks").items():
        ours, other = values.get("dice_medgs"), values.get("dice_sdf_linear")
        if isinstance(ours, (int, float)) and isinstance(other, (int, float)):
            lines.append(f"Self-check of {name}: Dice {ours:.3f}, linear interpolation of contours {other:.3f}.")
    return lines


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}
