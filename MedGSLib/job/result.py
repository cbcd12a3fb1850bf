"""``result.json``: the manifest that makes a job a success; written last, by rename, and believed only where every hash agrees."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from MedGSLib import __version__
from MedGSLib.errors import InputError
from MedGSLib.io.atomic import write_json
from MedGSLib.job.schema import SCHEMA_VERSION, Fields, file_sha256, is_plain_name, read_json

RESULT_NAME = "result.json"
WHAT = "The job result"

KINDS: Dict[str, str] = {
    "volume.nrrd": "volume",
    "occupancy.nrrd": "occupancy",
    "segmentation.nrrd": "segmentation",
    "uncertainty.nrrd": "uncertainty",
    "mesh.vtp": "mesh",
    "mesh.stl": "mesh",
    "mesh.ply": "mesh",
    "model.medgs": "model",
    "report.json": "report",
    "preview.png": "preview",
}
"""What the files of the output folder are; any other file is of the kind ``other``."""


@dataclass(frozen=True)
class OutputFile:
    """One output: ``name`` without folder, ``file`` relative to the job folder with forward slashes, and its checksum."""

    name: str
    file: str
    kind: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, folder: Path, file: Path) -> OutputFile:
        """Describe ``file``, which lies somewhere under ``folder``."""
        relative = file.relative_to(folder).as_posix()
        return cls(file.name, relative, KINDS.get(file.name, "other"), file_sha256(file), file.stat().st_size)

    @classmethod
    def from_json(cls, document: Any) -> OutputFile:
        """:raises InputError: if an entry is missing, of another type, or names a file outside the folder."""
        fields = Fields(document, "An output of the job result")
        return cls(
            name=fields.get("name", str),
            file=fields.file_name("file"),
            kind=fields.get("kind", str),
            sha256=fields.get("sha256", str),
            bytes=fields.get("bytes", int),
        )


@dataclass(frozen=True)
class JobResult:
    """What a finished job made.

    :ivar metrics: the self-check and the measures of the segments, as the report has them.
    :ivar timings: seconds by stage.
    :ivar request_sha256: of the ``request.json`` that was worked on.
    """

    outputs: Tuple[OutputFile, ...]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    request_sha256: str = ""
    finished: float = 0.0
    schema: int = SCHEMA_VERSION

    def path(self, folder: Path, kind: str, suffix: str = "") -> Optional[Path]:
        """The first output of a kind (and file suffix, e.g. ``".vtp"``), or None."""
        for output in self.outputs:
            if output.kind == kind and output.file.endswith(suffix):
                return folder / output.file
        return None

    @classmethod
    def from_json(cls, document: Any) -> JobResult:
        """:raises InputError: naming the first entry that does not fit."""
        fields = Fields(document, WHAT)
        fields.check_version()
        outputs = tuple(OutputFile.from_json(entry) for entry in fields.get("outputs", list))
        if not outputs:
            raise InputError("The job result lists no outputs.")
        return cls(
            outputs=outputs,
            metrics=fields.get("metrics", dict, {}),
            timings=fields.get("timings", dict, {}),
            versions=fields.get("versions", dict, {}),
            request_sha256=fields.get("request_sha256", str, ""),
            finished=fields.get("finished", float, 0.0),
            schema=fields.get("schema", int),
        )


def collect_outputs(folder: Path, output_folder: Path) -> Tuple[OutputFile, ...]:
    """Describe every finished file of the output folder; checkpoints, hidden and temporary files are not outputs.

    :raises InputError: if there is none.
    """
    files = sorted(path for path in output_folder.rglob("*") if path.is_file())
    finished = [path for path in files if is_plain_name(path.relative_to(folder).as_posix()) and not _is_checkpoint(path, output_folder)]
    if not finished:
        raise InputError("The reconstruction ended without writing any output.")
    return tuple(OutputFile.of(folder, path) for path in finished)


def write_result(folder: Path, result: JobResult) -> None:
    """Write the manifest by rename.

    :raises ResourceError: if the disk is full; no half manifest is left.
    :raises InputError: if the folder cannot be written to.
    """
    write_json(folder / RESULT_NAME, asdict(result))


def verify(folder: Path) -> JobResult:
    """Read the manifest and compare each output with its size and SHA-256.

    :raises InputError: if the manifest is missing or damaged, or an output is missing, changed or outside the folder.
    """
    result = JobResult.from_json(read_json(folder / RESULT_NAME, WHAT))
    root = folder.resolve()
    for output in result.outputs:
        path = folder / output.file
        if not path.is_file() or root not in path.resolve().parents:
            raise InputError(f"The output {output.file} of the job is missing; run the job again.")
        if path.stat().st_size != output.bytes or file_sha256(path) != output.sha256:
            raise InputError(f"The output {output.file} of the job was changed after it was written; run the job again.")
    return result


def current_versions(extra: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
    """:return: versions of MedGS, Python and the platform, with ``extra`` ones added."""
    return {"medgs": __version__, "python": platform.python_version(), "platform": platform.platform(), **(extra or {})}


def _is_checkpoint(path: Path, output_folder: Path) -> bool:
    return path.relative_to(output_folder).parts[0].startswith("checkpoint")
