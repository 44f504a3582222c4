"""Containers of tasks that are over; those of living tasks and of other Airflows stay."""

from __future__ import annotations

import json
import time

import pytest

from qwen3_airflow.ascend.reaper import reap
from qwen3_airflow.jobs import installation
from waiting import wait_for

SAVES = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *args: (print("saved", flush=True), sys.exit(130)))
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def start(make_runtime, profile, job):
    runtime = make_runtime(profile)

    def start(task: str, *, airflow: str | None = None, code: str = SAVES):
        labels = {"airflow": airflow or installation(), "dag": "d", "run": "r", "task": task, "map_index": "-1", "try": "1"}
        handle = runtime.submit(job(code, name=task, labels=labels, stop_grace=20))
        wait_for("a line", lambda: runtime.logs(handle, 0), seconds=60)
        return handle

    return start


def reap_with(make_runtime, profile, states, **kwargs) -> list[str]:
    return reap(
        make_runtime(profile).engine, lambda labels: states.get(labels["qwen3-ops.task"]), tell=lambda *said: None, **{"keep": 0, **kwargs}
    )


def names(engine, root) -> set[str]:
    return {container["Labels"]["qwen3-ops.task"] for container in engine.containers(root)}


def test_only_what_no_task_waits_for_is_stopped_and_may_save(start, make_runtime, profile, engine, root):
    handles = {task: start(task) for task in ("over", "gone", "lives", "deferred")}
    start("foreign", airflow="http://another")
    reaped = reap_with(make_runtime, profile, {"over": "failed", "lives": "running", "deferred": "deferred"})
    assert len(reaped) == 2
    assert names(engine, root) == {"lives", "deferred", "foreign"}
    for task in ("over", "gone"):
        assert (handles[task].job_folder / "stage.log").read_text() == "ready\nsaved\n"


def test_a_young_container_is_left_alone(start, make_runtime, profile, engine, root):
    start("over")
    assert reap_with(make_runtime, profile, {"over": "failed"}, keep=600) == []


def test_one_whose_time_to_save_is_over_is_ended_by_force(start, make_runtime, profile, engine, root):
    handle = start("running", code="import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)")
    (handle.job_folder / "stop.json").write_text(json.dumps({"container": handle.id, "deadline": time.time() - 120}))
    assert len(reap_with(make_runtime, profile, {"running": "running"}, keep=600)) == 1
    assert engine.containers(root) == []
