"""Where the process of a stage lives."""

from __future__ import annotations

from qwen3_airflow.runtimes.base import Runtime


def get_runtime(name: str) -> Runtime:
    """The runtime that a plan names.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "local":
        from qwen3_airflow.runtimes.local import LocalRuntime

        return LocalRuntime()
    raise ValueError(f"no such runtime: {name!r}")
