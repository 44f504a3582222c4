"""A runtime is five verbs: submit, find, poll, logs, stop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

LOG = "stage.log"
"""What the process printed, raw; attempts follow each other in one file."""

EXIT = "exit.json"
"""How the last attempt ended, written by the stage itself: also known when no one waited for it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One stage of one run, as it is to be started.

    Attributes:
        folder: of its side files; also its identity, because no two stages share one.
        argv: never passes through a shell.
    """

    folder: Path
    argv: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Handle:
    """A process that was started for a job.

    Attributes:
        job_folder: the job's folder.
        id: what the runtime calls it; for people.
        log_start: offset in bytes of its first line in ``stage.log``.
        stopping: it was told to stop; its end is not this job's outcome.
    """

    job_folder: Path
    id: str
    log_start: int
    stopping: bool = False


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended; ``exit_code`` is None when no one saw it, negative for a signal."""

    exit_code: int | None
    error: str | None = None


class Runtime(Protocol):
    """Starts processes that outlive whoever started them, and finds them again."""

    def submit(self, job: Job) -> Handle:
        """Start the job. Call ``find`` first: two processes of one job must never meet."""

    def find(self, job: Job) -> Handle | None:
        """The job's process that still runs, whoever started it."""

    def poll(self, handle: Handle) -> Ended | None:
        """None while the process runs."""

    def logs(self, handle: Handle, offset: int) -> bytes:
        """A bounded piece of ``stage.log`` from ``offset``; empty when there is no more yet."""

    def stop(self, handle: Handle, *, grace: float) -> None:
        """Ask the process to save and end, force it after ``grace`` seconds. Does not wait."""
