"""Ends a group of processes: politely, then by force.

Runs as ``python -m qwen3_airflow.runtimes.stopper VARIABLE VALUE SESSION GRACE_SECONDS``, so
that the grace is kept even when the worker that asked for it is killed meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from qwen3_ops.procfs import Identity, in_session, is_session_leader, with_variable

_PERIOD = 0.1  # seconds between two looks


def stop_all(variable: str, value: str, *, session: int | None = None, grace: float) -> None:
    """End every process with ``variable=value`` or of the session; returns when none is left.

    SIGTERM goes to session leaders first, as ``docker stop`` does: they save what they have
    while their helpers still live. The helpers left over are told next. What remains after
    ``grace`` seconds gets SIGKILL.
    """
    deadline = time.monotonic() + grace
    told: set[Identity] = set()
    while living := with_variable(variable, value) | (in_session(session) if session is not None else set()):
        if time.monotonic() >= deadline:
            _signal(living, signal.SIGKILL)
        leaders = {process for process in living if is_session_leader(process)}
        _signal((leaders or living) - told, signal.SIGTERM)
        told |= leaders or living
        time.sleep(_PERIOD)


def _signal(processes: set[Identity], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


if __name__ == "__main__":
    stop_all(sys.argv[1], sys.argv[2], session=int(sys.argv[3]), grace=float(sys.argv[4]))
