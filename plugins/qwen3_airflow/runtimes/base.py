"""A runtime is six verbs: submit, find, poll, logs, stop, remove; and examine, which looks before the first job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from qwen3_ops.findings import Finding

LOG = "stage.log"
"""What the process printed, raw; attempts follow each other in one file."""

EXIT = "exit.json"
"""How the last attempt ended, written by the stage itself: also known when no one waited for it."""

CHUNK = 1 << 18
"""Bytes of the log in one piece, at most."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One stage of one run, as it is to be started.

    Attributes:
        folder: of its side files; also its identity, because no two stages share one.
        argv: never passes through a shell.
        labels: who wants it: ``dag``, ``run``, ``task``, ``map_index``, ``try``; for people and for the reaper.
        reads: folders and files it may read, where it does not see the whole machine.
        writes: folders it may also write; ``folder`` lies in one of them.
        npus: how many it needs for itself.
        multi_node: whether it talks to other machines.
        stop_grace: seconds it may take to save when it is stopped.
    """

    folder: Path
    argv: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    npus: int = 0
    multi_node: bool = False
    stop_grace: float = 300.0

    def to_json(self) -> dict[str, Any]:
        paths = {"folder": str(self.folder), "reads": [*map(str, self.reads)], "writes": [*map(str, self.writes)]}
        return {**vars(self), **paths, "labels": dict(self.labels)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Job:
        paths = {name: tuple(map(Path, content[name])) for name in ("reads", "writes")}
        return cls(**{**content, **paths, "folder": Path(content["folder"]), "argv": tuple(content["argv"])})


@dataclass(frozen=True, kw_only=True)
class Handle:
    """A process that was started for a job.

    Attributes:
        job_folder: the job's folder.
        id: what the runtime calls it, for all time.
        log_start: offset in bytes of its first line in ``stage.log``.
        stopping: it was told to stop; its end is not this job's outcome.
        name: for people.
        attempt: what ``attempt.json`` calls it, where the runtime writes one.
    """

    job_folder: Path
    id: str
    log_start: int
    stopping: bool = False
    name: str = ""
    attempt: str = ""

    def __str__(self) -> str:
        return self.name or self.id

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "job_folder": str(self.job_folder)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Handle:
        return cls(**{**content, "job_folder": Path(content["job_folder"])})


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended; ``exit_code`` is None when no one saw it, negative for a signal."""

    exit_code: int | None
    error: str | None = None


class RuntimeUnavailable(Exception):
    """Whoever runs the processes does not answer; the processes themselves may well live on."""


class NpusBusy(Exception):
    """Fewer NPUs are free than are wanted; the message says who holds them."""

    def __init__(self, message: str, *, wanted: int) -> None:
        super().__init__(message)
        self.wanted = wanted


class Runtime(Protocol):
    """Starts processes that outlive whoever started them, and finds them again."""

    deferrable: bool
    """Whether any machine of the deployment can poll it, not only the worker that submitted."""

    python: str
    """The Python that has qwen3-ops, where the runtime's processes live."""

    def examine(self) -> list[Finding]:
        """Warnings about the place itself. Raises BadInput: no job can start there."""

    def submit(self, job: Job) -> Handle:
        """Start the job. Call ``find`` first: two processes of one job must never meet.

        Raises:
            NpusBusy: try again later.
        """

    def find(self, job: Job) -> Handle | None:
        """The job's process, whoever started it: one that runs, or one whose end no one has seen to yet."""

    def poll(self, handle: Handle) -> Ended | None:
        """None while the process runs. Raises RuntimeUnavailable."""

    def logs(self, handle: Handle, offset: int) -> bytes:
        """A bounded piece of ``stage.log`` from ``offset``; empty when there is no more yet."""

    def stop(self, handle: Handle, *, grace: float) -> None:
        """Ask the process to save and end, force it after ``grace`` seconds. Does not wait."""

    def remove(self, handle: Handle) -> None:
        """Drop what is kept of an ended process; its files stay."""


def read_log(folder: Path, offset: int) -> bytes:
    """A bounded piece of a job's ``stage.log``; empty when there is none yet."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK)
    except FileNotFoundError:
        return b""


def read_json(path: Path) -> dict[str, Any] | None:
    """A side file, which is replaced as a whole; None where there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content
