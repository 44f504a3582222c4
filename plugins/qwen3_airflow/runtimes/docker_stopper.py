"""Ends a container: politely, then by force, and removes it.

Runs as ``python -m qwen3_airflow.runtimes.docker_stopper`` with its order on stdin, so that
the grace is kept even when the worker that asked for it is killed meanwhile. The engine's
own `stop` would not do: newer ones cut the grace short when the client that asked is gone.
"""

from __future__ import annotations

import json
import sys
import time

from qwen3_airflow.runtimes.engine import Engine, EngineAddress

_PATIENCE = 3600.0
_PERIOD = 0.5
_LINGER = 15.0


def stop(engine: Engine, container: str, *, grace: float, linger: float = _LINGER) -> None:
    """SIGTERM now, SIGKILL after ``grace`` seconds; returns when the container is gone.

    Args:
        linger: seconds for whoever follows the container to read its end.
    """
    deadline = time.monotonic() + grace
    engine.signal(container, "SIGTERM")
    while _runs(engine, container):
        if time.monotonic() >= deadline:
            engine.signal(container, "SIGKILL")
        time.sleep(_PERIOD)
    gone = time.monotonic() + linger
    while time.monotonic() < gone and engine.inspect(container) is not None:
        time.sleep(_PERIOD)
    engine.remove(container, force=True)


def _runs(engine: Engine, container: str) -> bool:
    found = engine.inspect(container)
    return found is not None and found["State"]["Running"]


def main() -> None:
    order = json.loads(sys.stdin.readline())  # not to its end: a fork of who asked may hold the pipe open
    address = EngineAddress(**order["address"])
    stop(Engine(address.connect, address=address, patience=_PATIENCE), order["container"], grace=order["grace"])


if __name__ == "__main__":
    main()
