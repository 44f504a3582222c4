"""What the end of a stage's process means to Airflow."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from qwen3_airflow.runtimes.base import Ended
from qwen3_ops.errors import BadInput, ExitCode


@contextmanager
def refusals_are_final() -> Iterator[None]:
    """No retry mends a request, a folder, a profile or an image that can not work: BadInput becomes AirflowFailException."""
    try:
        yield
    except BadInput as refusal:
        raise AirflowFailException(str(refusal)) from None


def raise_unless_done(ended: Ended) -> None:
    """Turn an exit status into Airflow's terms.

    Raises:
        AirflowFailException: trying again changes nothing: bad input, a missed quality gate.
        AirflowException: it may: the next try resumes from what was saved.
    """
    code = ended.exit_code
    if code == ExitCode.DONE:
        return
    message = ended.error or _describe(code)
    raise AirflowException(message) if may_pass(ended) else AirflowFailException(message)


def may_pass(ended: Ended) -> bool:
    """Whether a process that ended like this is worth another start."""
    code = ended.exit_code
    return code not in set(ExitCode) or ExitCode(code).retryable


def _describe(code: int | None) -> str:
    if code is None:
        return "its process is gone and left no word: killed, or the machine went down"
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL): by hand, or because the machine ran out of memory"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    name = ExitCode(code).name.lower().replace("_", " ") if code in set(ExitCode) else "not one of the contract"
    return f"exit status {code} ({name}); the reason is in the log above"
