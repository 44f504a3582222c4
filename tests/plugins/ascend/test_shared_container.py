"""Setup and teardown of a run's container, as a DAG sees them."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from qwen3_airflow.ascend import shared_container
from qwen3_airflow.ascend.recipes import cpu
from qwen3_airflow.ascend.shared_container import StartContainer, StopContainer, run_container
from qwen3_airflow.operators import ConvertHfToMcore, PlanOperator, PrepareDataset, stage_requests
from qwen3_airflow.runtimes import run_container as runtime_container
from qwen3_airflow.runtimes.base import Ended, Handle, NpusBusy
from qwen3_ops.errors import BadInput
from qwen3_ops.recipes import tiny


@pytest.fixture
def dag():
    with DAG("d", schedule=None) as dag:
        plan = PlanOperator()
        with run_container(plan):
            ConvertHfToMcore()
            PrepareDataset()
    return dag


@pytest.fixture
def told(monkeypatch) -> list[str]:
    lines: list[str] = []
    say = lambda line, *values: lines.append(line % values)  # noqa: E731
    monkeypatch.setattr(shared_container._SharedContainer, "log", SimpleNamespace(info=say, warning=say))
    return lines


@pytest.fixture
def execute(dag, monkeypatch, tmp_path):
    """Runs a task of the DAG against a runtime, for a run of some runtime."""

    def execute(name: str, runtime=None, *, runs_on: str = "docker", **more):
        plan = SimpleNamespace(config=tiny().model_copy(update={"runtime": runs_on}), run_dir=str(tmp_path), stages=[])
        monkeypatch.setattr(shared_container, "load_plan", lambda path: plan)
        monkeypatch.setattr(shared_container, "plan_path", lambda *args: None)
        monkeypatch.setattr(shared_container, "get_runtime", lambda name, **kwargs: runtime)
        monkeypatch.setattr(shared_container, "labels_of", lambda context: {})
        task = dag.get_task(name)
        for field, value in more.items():
            setattr(task, field, value)
        return type(task).execute.__wrapped__(task, {})

    return execute


def test_they_stand_around_the_stages_and_are_no_stages(dag):
    up, down = dag.get_task("start_container"), dag.get_task("stop_container")
    assert (up.is_setup, down.is_teardown) == (True, True)
    assert up.upstream_task_ids == {"plan"}
    assert down.upstream_task_ids == {"start_container", "convert_hf_to_mcore", "prepare_dataset"}
    assert [request.name for request in stage_requests(dag)] == ["convert_hf_to_mcore", "prepare_dataset"]


def test_they_can_be_set_by_hand():
    with DAG("d", schedule=None):
        up, down = StartContainer(task_id="up"), StopContainer(task_id="down")
        up >> ConvertHfToMcore() >> down.as_teardown(setups=up)
    assert down.upstream_task_ids == {"up", "convert_hf_to_mcore"}


@pytest.mark.parametrize(
    ("runs_on", "profile", "words"),
    [
        ("local", {}, "runtime is local"),
        ("docker", {}, "each stage has a container of its own"),
        ("docker", {"container": "shared", "container_name": "by-hand"}, "run in by-hand"),
    ],
)
@pytest.mark.parametrize("name", ["start_container", "stop_container"])
def test_they_do_nothing_and_say_why_where_a_run_has_no_container_of_its_own(execute, told, name, runs_on, profile, words):
    runtime = SimpleNamespace(profile=cpu().model_copy(update=profile))  # nothing but the profile may be looked at
    assert execute(name, runtime, runs_on=runs_on) is None
    (line,) = told
    assert line.startswith("Nothing to do: ")
    assert words in line


@pytest.fixture
def busy(monkeypatch):
    """The runtime of a host whose NPUs are held."""

    def start(engine, profile, job):
        raise NpusBusy("0 are free: other holds 0,1", wanted=8)

    monkeypatch.setattr(runtime_container, "start", start)
    return SimpleNamespace(engine=None, profile=cpu().model_copy(update={"container": "shared"}))


def test_the_setup_waits_on_the_triggerer_for_npus(execute, told, busy):
    with pytest.raises(TaskDeferred) as deferred:
        execute("start_container", busy)
    assert (deferred.value.trigger.npus, deferred.value.method_name) == (8, "execute")
    assert told == ["Waiting: 0 are free: other holds 0,1"]


def test_a_host_that_is_described_wrongly_is_not_tried_again(execute, monkeypatch):
    def no_profile(*args):
        raise BadInput("the host profile is wrong", source="connection c")

    monkeypatch.setattr(shared_container._SharedContainer, "_runtime", no_profile)
    with pytest.raises(AirflowFailException, match="the host profile is wrong"):
        execute("start_container")


def test_the_setups_execution_timeout_bounds_its_wait(execute, told, busy):
    with pytest.raises(TaskDeferred) as deferred:
        execute("start_container", busy, execution_timeout=timedelta(hours=2))
    assert deferred.value.timeout == timedelta(hours=2)


class SharedRuntime:
    """A run's container with a stage that needs some looks to save."""

    profile = cpu().model_copy(update={"container": "shared"})

    def __init__(self, *, looks: int) -> None:
        self.looks, self.done = looks, []
        self.engine = SimpleNamespace(remove=lambda name, force: self.done.append("removed"))

    def running_below(self, run_dir: Path) -> list[Handle]:
        return [Handle(job_folder=run_dir / "train_lora", id="c/1", name="the stage", log_start=0)]

    def stop(self, handle: Handle, *, grace: float) -> None:
        self.done.append(f"told to save within {grace:.0f} s")

    def poll(self, handle: Handle) -> Ended | None:
        self.looks -= 1
        return None if self.looks > 0 else Ended(exit_code=130)


def test_the_teardown_lets_stages_save_before_it_removes_their_container(execute, told, monkeypatch):
    monkeypatch.setattr(shared_container, "_PERIOD", 0.01)
    runtime = SharedRuntime(looks=3)
    execute("stop_container", runtime)
    assert runtime.done == ["told to save within 2100 s", "removed"]
    assert runtime.looks == 0
    assert told == ["Waiting for the stage (train_lora) to save"]


def test_a_stage_that_never_ends_does_not_keep_the_container(execute, told, monkeypatch):
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(shared_container, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda seconds: time.sleep(0)))
    runtime = SharedRuntime(looks=1_000_000)
    execute("stop_container", runtime, stop_grace=timedelta(seconds=60))
    assert runtime.done[-1] == "removed"
