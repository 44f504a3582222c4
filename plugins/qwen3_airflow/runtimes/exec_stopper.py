"""Ends a stage in a shared container: politely, then by force; the container goes on.

Runs as ``python -m qwen3_airflow.runtimes.exec_stopper`` with its order on stdin, as
``docker_stopper`` does.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

from qwen3_airflow.runtimes.base import read_json
from qwen3_airflow.runtimes.engine import Engine, EngineAddress
from qwen3_airflow.runtimes.shared import lives
from qwen3_ops.attempt import ATTEMPT

_PATIENCE = 3600.0
_PERIOD = 0.5
_KILL = "import os, sys; os.kill(int(sys.argv[1]), int(sys.argv[2]))"


def stop(engine: Engine, *, container: str, python: str, folder: Path, attempt: str, grace: float, user: str = "") -> None:
    """SIGTERM to the attempt now, SIGKILL to its stage after ``grace`` seconds; returns when it has ended."""
    deadline = time.monotonic() + grace

    def send(number: signal.Signals, pid: int | None) -> None:
        if pid is not None:
            created = engine.call("exec_create", container, [python, "-c", _KILL, str(pid), str(int(number))], user=user)
            engine.call("exec_start", created["Id"])

    send(signal.SIGTERM, _pid(folder, attempt, "pid"))
    while lives(engine, container, attempt):
        if time.monotonic() >= deadline:  # its child's end lets the attempt close its record
            send(signal.SIGKILL, _pid(folder, attempt, "child") or _pid(folder, attempt, "pid"))
        time.sleep(_PERIOD)


def _pid(folder: Path, attempt: str, key: str) -> int | None:
    """As the container numbers its processes."""
    record = read_json(folder / ATTEMPT)
    return None if record is None or record["id"] != attempt else record[key]


def main() -> None:
    order = json.loads(sys.stdin.readline())  # not to its end: a fork of who asked may hold the pipe open
    address = EngineAddress(**order.pop("address"))
    stop(Engine(address.connect, address=address, patience=_PATIENCE), **{**order, "folder": Path(order["folder"])})


if __name__ == "__main__":
    main()
