"""Ends a container: politely, then by force, and removes it.

Runs as ``python -m qwen3_airflow.runtimes.docker_stopper`` with its order on stdin, so that
the grace is kept even when the worker that asked for it is killed meanwhile. The engine's
own `stop` would not do: newer ones cut the grace short when the client that asked is gone.
"""

from __future__ import annotations

import json
import sys
import time

from docker.errors import APIError

from qwen3_airflow.runtimes.engine import CONFLICT, NOT_FOUND, Engine, EngineAddress

_PATIENCE = 3600.0
_PERIOD = 0.5
_LINGER = 30.0  # seconds for whoever follows the container to read its end


def stop(engine: Engine, container: str, *, grace: float, linger: float = _LINGER) -> None:
    """SIGTERM now, SIGKILL after ``grace`` seconds; returns when the container is gone."""
    deadline = time.monotonic() + grace
    _signal(engine, container, "SIGTERM")
    while _runs(engine, container):
        if time.monotonic() >= deadline:
            _signal(engine, container, "SIGKILL")
        time.sleep(_PERIOD)
    gone = time.monotonic() + linger
    while time.monotonic() < gone and engine.inspect(container) is not None:
        time.sleep(_PERIOD)
    engine.remove(container, force=True)


def _runs(engine: Engine, container: str) -> bool:
    found = engine.inspect(container)
    return found is not None and found["State"]["Running"]


def _signal(engine: Engine, container: str, name: str) -> None:
    try:
        engine.call("kill", container, name)
    except APIError as error:
        if error.status_code not in (NOT_FOUND, CONFLICT):  # it ended by itself
            raise


def main() -> None:
    order = json.load(sys.stdin)
    address = EngineAddress(**order["address"])
    stop(Engine(address.connect, address=address, patience=_PATIENCE), order["container"], grace=order["grace"])


if __name__ == "__main__":
    main()
