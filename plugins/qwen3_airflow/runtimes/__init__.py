"""Where the process of a stage lives."""

from __future__ import annotations

from qwen3_airflow.runtimes.base import Runtime

PATIENCE = 900.0
"""Seconds for which a Docker Engine may be away, as in an upgrade, before a task gives up following."""


def get_runtime(name: str, *, ascend_conn_id: str, patience: float = PATIENCE) -> Runtime:
    """The runtime that a plan names.

    Args:
        ascend_conn_id: connection of the host, for containers.

    Raises:
        ValueError: there is none of that name.
        BadInput: the connection describes no host.
    """
    if name == "local":
        from qwen3_airflow.runtimes.local import LocalRuntime

        return LocalRuntime()
    if name == "docker":
        from qwen3_airflow.ascend.hook import AscendHook
        from qwen3_airflow.runtimes.docker import DockerRuntime
        from qwen3_airflow.runtimes.engine import Engine
        from qwen3_airflow.runtimes.shared import SharedContainerRuntime

        hook = AscendHook(ascend_conn_id)
        profile = hook.profile()
        engine = Engine(hook.get_conn, address=hook.address(), patience=patience, connect_to_pull=hook.get_conn_to_pull)
        return SharedContainerRuntime(engine, profile) if profile.container == "shared" else DockerRuntime(engine, profile)
    raise ValueError(f"no such runtime: {name!r}")
