"""Errors and the exit-code contract between a stage and whoever started it."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a stage's exit status means; Airflow decides about a retry from it alone."""

    DONE = 0
    UNEXPECTED = 1  # a defect of ours or of a library: traceback in the log, retried
    BAD_INPUT = 2  # never retried; the same status that usage errors have everywhere
    QUALITY_GATE = 3  # the work was done, its result is not good enough
    INFRASTRUCTURE = 75  # EX_TEMPFAIL: disk, memory, device, network; retried, resumes
    INTERRUPTED = 130  # stopped from outside after saving; retried, resumes

    @property
    def retryable(self) -> bool:
        return self in (ExitCode.UNEXPECTED, ExitCode.INFRASTRUCTURE, ExitCode.INTERRUPTED)


class OpsError(Exception):
    """An error a user can act on.

    Args:
        what: what is wrong, one sentence without a full stop.
        value: the offending value, shown with ``repr`` unless it is a string.
        source: where the value came from: a file, a flag, a field of the run's configuration.
        remedy: what to do about it.
    """

    exit_code = ExitCode.UNEXPECTED

    def __init__(
        self,
        what: str,
        *,
        value: object | None = None,
        source: object | None = None,
        remedy: str | None = None,
    ) -> None:
        self.what, self.value, self.source, self.remedy = what, value, source, remedy
        super().__init__(what)

    def __str__(self) -> str:
        text = self.what
        if self.value is not None:
            text += f": {self.value}"
        if self.source is not None:
            text += f" (from {self.source})"
        return f"{text}. {self.remedy}" if self.remedy else text


class BadInput(OpsError):
    """The request or its input can not work; repeating it changes nothing."""

    exit_code = ExitCode.BAD_INPUT


class QualityGate(OpsError):
    """The stage ran, but what it made is below the threshold asked for."""

    exit_code = ExitCode.QUALITY_GATE


class Infrastructure(OpsError):
    """Disk, memory, device or network failed; the same request may succeed later."""

    exit_code = ExitCode.INFRASTRUCTURE


class Interrupted(OpsError):
    """Stopped from outside; what was finished is saved and a new start resumes."""

    exit_code = ExitCode.INTERRUPTED
