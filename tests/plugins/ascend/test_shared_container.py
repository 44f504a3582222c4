"""Setup and teardown of a run's container, as a DAG sees them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.sdk import DAG

from qwen3_airflow.ascend import shared_container
from qwen3_airflow.ascend.recipes import cpu
from qwen3_airflow.ascend.shared_container import StartContainer, StopContainer
from qwen3_airflow.operators import ConvertHfToMcore, PlanOperator, stage_requests
from qwen3_ops.recipes import tiny


@pytest.fixture
def dag():
    with DAG("d", schedule=None) as dag:
        PlanOperator() >> StartContainer() >> ConvertHfToMcore() >> StopContainer()
    return dag


def test_they_stand_around_the_stages_and_are_no_stages(dag):
    up, down = dag.get_task("start_container"), dag.get_task("stop_container")
    assert (up.is_setup, down.is_teardown) == (True, True)
    assert [request.name for request in stage_requests(dag)] == ["convert_hf_to_mcore"]


@pytest.mark.parametrize("case", ["local runtime", "a container each", "a container that stands"])
def test_they_do_nothing_where_a_run_has_no_container_of_its_own(dag, monkeypatch, case):
    config = tiny().model_copy(update={"runtime": "local" if case == "local runtime" else "docker"})
    container = {"container": "shared", "container_name": "by-hand"} if case == "a container that stands" else {}
    runtime = SimpleNamespace(profile=cpu().model_copy(update=container))
    monkeypatch.setattr(shared_container, "load_plan", lambda path: SimpleNamespace(config=config, run_dir="/r"))
    monkeypatch.setattr(shared_container, "plan_path", lambda *args: None)
    monkeypatch.setattr(shared_container, "get_runtime", lambda name, **kwargs: runtime)
    for name in ("start_container", "stop_container"):
        task = dag.get_task(name)
        assert type(task).execute.__wrapped__(task, {}) is None
