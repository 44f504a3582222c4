"""Containers that no task waits for any more: stopped, given time to save, removed.

Everything else ends its containers itself; this is for what a lost machine leaves behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from qwen3_airflow.ascend.hook import DEFAULT_CONN_ID, AscendHook
from qwen3_airflow.jobs import installation
from qwen3_airflow.runtimes.base import read_json

if TYPE_CHECKING:
    from airflow.sdk import Context

    from qwen3_airflow.runtimes.engine import Engine

WAITED_FOR = frozenset({"scheduled", "queued", "running", "deferred", "restarting", "up_for_retry", "up_for_reschedule"})
"""States of a task that comes back to its container."""

_PREFIX = "qwen3-ops."


class ReapContainers(BaseOperator):
    """Stops and removes the containers of this Airflow whose task is over or gone.

    Args:
        ascend_conn_id: connection of the host.
        keep: seconds after its creation for which a container is left alone.

    Returns:
        Names of the containers that were stopped or removed.
    """

    def __init__(self, *, ascend_conn_id: str = DEFAULT_CONN_ID, keep: float = 600.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ascend_conn_id, self.keep = ascend_conn_id, keep

    def execute(self, context: Context) -> list[str]:
        from qwen3_airflow.ascend.leases import remove_stale_lock
        from qwen3_airflow.runtimes.engine import Engine

        hook = AscendHook(self.ascend_conn_id)
        engine = Engine(hook.get_conn, address=hook.address(), patience=60.0)
        remove_stale_lock(engine)

        reaped = reap(engine, lambda labels: state_in_airflow(context["ti"], labels), keep=self.keep, tell=self.log.info)
        self.log.info("%d containers were nobody's", len(reaped))
        return reaped


def state_in_airflow(ti: Any, labels: Mapping[str, str]) -> str | None:
    """What the task of a container is doing; None where Airflow knows no such task.

    Args:
        ti: of the running task: its way to Airflow's API.
    """
    dag_id, run_id = labels[_PREFIX + "dag"], labels[_PREFIX + "run"]
    if labels.get(_PREFIX + "shared"):  # it lives as long as its run; asked by a count, because a state of no run is an error
        return "running" if ti.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=["queued", "running"]) else None
    task, index = labels[_PREFIX + "task"], int(labels[_PREFIX + "map_index"])
    states = ti.get_task_states(dag_id=dag_id, map_index=index if index >= 0 else None, task_ids=[task], run_ids=[run_id])
    found: str | None = states.get(run_id, {}).get(task if index < 0 else f"{task}_{index}")
    return found


def reap(engine: Engine, state_of: Callable[[Mapping[str, str]], str | None], *, keep: float, tell: Callable[..., None]) -> list[str]:
    """Look at every container of this installation; ``state_of`` says what its task is doing, by its labels."""
    from qwen3_airflow.runtimes.docker_stopper import stop

    reaped = []
    for container in engine.call("containers", all=True, filters={"label": f"{_PREFIX}airflow={installation()}"}):
        labels, name = container["Labels"], container["Names"][0].lstrip("/")
        found = engine.inspect(container["Id"])
        if found is None:
            continue
        state = state_of(labels)
        overdue = _overdue(labels, container["Id"])
        if not overdue and (state in WAITED_FOR or time.time() - container["Created"] < keep):
            continue
        tell("%s: its task is %s%s", name, state or "gone", ", and its time to save is over" if overdue else "")
        grace = 0.0 if overdue else float(found["Config"].get("StopTimeout") or 0)
        stop(engine, container["Id"], grace=grace, linger=0)
        reaped.append(name)
    return reaped


def _overdue(labels: dict[str, str], container_id: str) -> bool:
    """Whether it was told to stop and the process that keeps its grace is lost."""
    told = read_json(Path(labels[_PREFIX + "job"]) / "stop.json")
    return bool(told is not None and told["container"] == container_id and time.time() > told["deadline"] + 60)
