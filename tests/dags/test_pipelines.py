from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

from qwen3_airflow.operators import EvaluateMmlu, Generate, PlanOperator, TrainingOperator, stage_requests
from qwen3_ops.pipelines import KINDS, PIPELINES
from qwen3_ops.recipes import name_of

DAGS = Path(__file__).resolve().parents[2] / "dags"
IN_PARTS = {"pretrain"}


@pytest.fixture(scope="module")
def bag():
    bag = DagBag(dag_folder=str(DAGS))
    assert bag.import_errors == {}
    return bag


@pytest.fixture(params=PIPELINES)
def pipeline(request):
    return request.param


@pytest.fixture
def dag(bag, pipeline):
    return bag.dags[f"qwen3_{pipeline}"]


def test_the_file_says_the_same_as_the_pipeline(dag, pipeline):
    assert stage_requests(dag) == PIPELINES[pipeline]


def test_the_plan_comes_before_everything(dag):
    plan = dag.get_task("plan")
    assert isinstance(plan, PlanOperator)
    assert plan.get_flat_relative_ids(upstream=False) == {task.task_id for task in dag.tasks} - {"plan"}


def test_edges_are_the_dataflow_between_setup_and_teardown(dag, pipeline):
    requests = PIPELINES[pipeline]
    expected = {request.name: set(request.inputs.values()) or {"start_container"} for request in requests}
    if pipeline in IN_PARTS:
        expected |= {"list_parts": {"start_container"}, "prepare_part": {"list_parts"}, "prepare_dataset": {"prepare_part"}}
    for first_on_npus in ("mmlu_base", next(request.name for request in requests if "dataset" in request.inputs)):
        expected[first_on_npus] |= {"preflight"}
    last = {request.name for request in requests} - {name for request in requests for name in request.inputs.values()}
    around = {
        "plan": set(),
        "start_container": {"plan"},
        "preflight": {"start_container"},
        "stop_container": {"start_container", *last},
    }
    assert {task.task_id: task.upstream_task_ids for task in dag.tasks} == {**around, **expected}


def test_only_what_takes_npus_waits_for_the_preflight(dag):
    waiting = dag.get_task("preflight").get_flat_relative_ids(upstream=False) - {"stop_container"}
    assert {"convert_hf_to_mcore", "prepare_dataset"}.isdisjoint(waiting)
    on_devices = {task.task_id for task in dag.tasks if isinstance(task, (EvaluateMmlu, Generate, TrainingOperator))}
    assert on_devices <= waiting


@pytest.mark.parametrize("dag_id", [*(f"qwen3_{name}" for name in PIPELINES), "qwen3_prepare_data"])
def test_every_stage_stands_between_setup_and_teardown(bag, dag_id):
    dag = bag.dags[dag_id]
    up, down = dag.get_task("start_container"), dag.get_task("stop_container")
    assert (up.is_setup, down.is_teardown, down.on_failure_fail_dagrun) == (True, True, False)
    between = up.get_flat_relative_ids(upstream=False) & down.get_flat_relative_ids(upstream=True)
    assert between == {task.task_id for task in dag.tasks} - {"plan", "start_container", "stop_container"}


def test_every_task_is_tried_again(dag):
    """A refusal fails at once all the same; it is a worker's death that is tried again."""
    assert {task.retries for task in dag.tasks} == {2}


def test_the_form_starts_from_a_recipe_of_its_kind(dag, pipeline):
    assert dag.params["recipe"] == name_of("14B", KINDS[pipeline])


def test_no_task_waits_for_a_pool_that_someone_has_to_make(dag):
    assert {task.pool for task in dag.tasks} == {"default_pool"}


def test_it_runs_only_when_asked(dag):
    assert dag.schedule is None
    assert not dag.catchup


@pytest.mark.parametrize("file", sorted(DAGS.glob("*.py")), ids=lambda file: file.stem)
def test_parsing_loads_nothing_heavy(file):
    code = f"import runpy, sys; runpy.run_path({str(file)!r}); print(sorted({{'torch', 'transformers', 'docker'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
