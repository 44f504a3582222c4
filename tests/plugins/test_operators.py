from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from qwen3_airflow import operators
from qwen3_airflow.jobs import name_of_run
from qwen3_airflow.operators import (
    ConvertHfToMcore,
    EvaluateMmlu,
    MergeLora,
    PlanOperator,
    Preflight,
    PrepareDataset,
    TrainLora,
    stage_requests,
)
from qwen3_airflow.runtimes.base import Ended, Handle, Job, NpusBusy
from qwen3_ops.errors import BadInput, ExitCode
from qwen3_ops.findings import Finding, PlanRefused
from qwen3_ops.pipelines import StageRequest
from qwen3_ops.recipes import tiny


class FakeRuntime:
    """Plays back a process: pieces of log, one a look, then its end."""

    deferrable = False
    python = "/usr/bin/python3"

    def __init__(self, *, pieces: tuple[bytes, ...] = (), ended: Ended = Ended(exit_code=0), standing: Handle | None = None) -> None:
        self.pieces, self.ended, self.standing = list(pieces), ended, standing
        self.submitted: list[Job] = []
        self.stopped: list[tuple[Handle, float]] = []
        self.removed: list[Handle] = []
        self._log = b""
        self.on_poll = lambda: None
        self.busy: list[NpusBusy] = []
        self.examine = lambda: []

    def submit(self, job: Job) -> Handle:
        if self.busy:
            raise self.busy.pop()
        self.submitted.append(job)
        return Handle(job_folder=job.folder, id="process 1", log_start=0)

    def find(self, job: Job) -> Handle | None:
        return self.standing

    def poll(self, handle: Handle) -> Ended | None:
        self.on_poll()
        if self.pieces:
            self._log += self.pieces.pop(0)
            return None
        return self.ended

    def logs(self, handle: Handle, offset: int) -> bytes:
        return self._log[offset:]

    def stop(self, handle: Handle, *, grace: float) -> None:
        self.stopped.append((handle, grace))

    def remove(self, handle: Handle) -> None:
        self.removed.append(handle)


class Ti:
    dag_id, run_id, task_id, map_index, try_number = "d", "r", "t", -1, 1
    stats_tags: dict[str, str] = {}

    def xcom_pull(self, *, task_ids: str):
        return {"plan": "/runs/r/plan.json"} if task_ids == "plan" else None


class Store(dict):
    """As Airflow's task_state_store."""

    def set(self, key: str, value) -> None:
        self[key] = value


@pytest.fixture
def told(monkeypatch) -> list[tuple[str, str]]:
    """(level, line) of everything an operator logs."""
    lines: list[tuple[str, str]] = []
    log = SimpleNamespace(
        debug=lambda *said, **fields: None,
        **{
            level: lambda line, *values, level=level, **fields: lines.append((level, line % values if values else line))
            for level in ("info", "warning")
        },
    )
    monkeypatch.setattr(operators.JobOperator, "log", log)
    return lines


@pytest.fixture
def run(monkeypatch, tmp_path, told) -> Iterator:
    def run(runtime: FakeRuntime, **kwargs):
        plan = SimpleNamespace(
            config=tiny(),
            stage_dir=lambda name: tmp_path / "run" / name,
            stage=lambda name: SimpleNamespace(name=name, output=str(tmp_path / "artifact"), verb="preprocess-data"),
        )
        manifest = SimpleNamespace(key="k1", kind="dataset", metrics={"rows": 3})
        monkeypatch.setattr(operators, "load_plan", lambda path: plan)
        monkeypatch.setattr(operators, "get_runtime", lambda name, *, ascend_conn_id: runtime)
        monkeypatch.setattr(operators, "read_manifest", kwargs.pop("read_manifest", lambda folder: manifest))
        monkeypatch.setattr(operators, "needs_npus", lambda plan: False)
        operator = kwargs.pop("make", PrepareDataset)(poll_interval=0, **kwargs)
        store = Store()
        execute = operators.StageOperator.execute.__wrapped__  # outside a task runner Airflow's wrapper only complains
        return operator, lambda: execute(operator, {"ti": Ti(), "task_state_store": store})

    return run


def test_a_stage_starts_one_process_without_a_shell_and_returns_the_artifact(run, tmp_path):
    runtime = FakeRuntime()
    _, execute = run(runtime)
    assert execute() == {"path": str(tmp_path / "artifact"), "key": "k1", "kind": "dataset", "metrics": {"rows": 3}}
    (job,) = runtime.submitted
    assert job.folder == tmp_path / "run" / "prepare_dataset"
    assert job.argv[1:] == ("-m", "qwen3_ops", "run-stage", "/runs/r/plan.json", "prepare_dataset")


def test_the_log_is_followed_in_whole_lines(run, told):
    pieces = (
        b"one\ntw",
        b"o\nwarning: flag --x has no effect\n",
        b"50%\r100%\nlast ",
        "行 100% sure".encode()[:4],
        "行 100% sure".encode()[4:],
    )
    _, execute = run(FakeRuntime(pieces=pieces))
    execute()
    assert told == [
        ("info", "one"),
        ("info", "two"),
        ("warning", "warning: flag --x has no effect"),
        ("info", "100%"),
        ("info", "last 行 100% sure"),
    ]


@pytest.mark.parametrize("code", [ExitCode.BAD_INPUT, ExitCode.QUALITY_GATE])
def test_what_can_not_change_is_not_tried_again(run, code):
    _, execute = run(FakeRuntime(ended=Ended(exit_code=int(code), error="no such column: text")))
    with pytest.raises(AirflowFailException, match=r"^no such column: text$"):
        execute()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (int(ExitCode.UNEXPECTED), "unexpected"),
        (int(ExitCode.INFRASTRUCTURE), "infrastructure"),
        (int(ExitCode.INTERRUPTED), "interrupted"),
        (-9, "out of memory"),
        (-15, "SIGTERM"),
        (77, "not one of the contract"),
        (None, "left no word"),
    ],
)
def test_what_may_pass_is_tried_again(run, code, words):
    _, execute = run(FakeRuntime(ended=Ended(exit_code=code)))
    with pytest.raises(AirflowException, match=words) as raised:
        execute()
    assert not isinstance(raised.value, AirflowFailException)


def test_a_process_that_survived_its_worker_is_followed_not_doubled(run, told, tmp_path):
    standing = Handle(job_folder=tmp_path, id="process 7", log_start=4)
    runtime = FakeRuntime(pieces=(b"old\nnew\n",), standing=standing)
    _, execute = run(runtime)
    execute()
    assert runtime.submitted == []
    assert told == [("info", "Following process 7, which an earlier try started"), ("info", "new")]


def test_a_process_that_is_being_stopped_is_waited_for_and_then_started_anew(run, tmp_path):
    standing = Handle(job_folder=tmp_path, id="process 7", log_start=0, stopping=True)
    runtime = FakeRuntime(pieces=(b"saving\n",), standing=standing)
    _, execute = run(runtime)
    execute()
    assert len(runtime.submitted) == 1


def test_on_kill_stops_the_process_with_the_grace_and_goes_on_following(run, told):
    runtime = FakeRuntime(pieces=(b"step 1\n", b"saved\n"), ended=Ended(exit_code=int(ExitCode.INTERRUPTED)))
    operator, execute = run(runtime, stop_grace=timedelta(seconds=40))
    polls = []
    runtime.on_poll = lambda: polls.append(1) or (len(polls) == 2 and operator.on_kill())
    with pytest.raises(AirflowException):
        execute()
    ((handle, grace),) = runtime.stopped
    assert (handle.id, grace) == ("process 1", 40.0)
    assert ("info", "saved") in told
    operator.on_kill()
    assert len(runtime.stopped) == 1, "nothing runs any more"


def test_free_npus_are_waited_for_on_the_triggerer_by_a_synchronous_task_too(run, told):
    runtime = FakeRuntime()
    runtime.busy = [NpusBusy("8 of 16 NPUs are wanted, 0 are free: a holds 0,1", wanted=8)]
    operator, execute = run(runtime, deferrable=False)
    with pytest.raises(TaskDeferred) as deferred:
        execute()
    assert (deferred.value.trigger.npus, deferred.value.method_name) == (8, "npus_are_free")
    assert told == [("info", "Waiting: 8 of 16 NPUs are wanted, 0 are free: a holds 0,1")]
    operator.npus_are_free({"ti": Ti(), "task_state_store": Store()}, {"npus": 8})
    assert len(runtime.submitted) == 1


@pytest.mark.parametrize(("made", "npus"), [(None, 8), (SimpleNamespace(key="k", kind="m", metrics={}), 0)])
def test_a_stage_whose_artifact_stands_waits_for_no_npus(run, made, npus, monkeypatch):
    manifests = [made, made or SimpleNamespace(key="k", kind="m", metrics={})]
    runtime = FakeRuntime()
    monkeypatch.setattr(operators, "VERBS", {"preprocess-data": SimpleNamespace(on_devices=True)})
    _, execute = run(runtime, read_manifest=lambda folder: manifests.pop(0))
    execute()
    assert [job.npus for job in runtime.submitted] == [npus]


WARNING = Finding(
    rule="the host's image must be made for its processor",
    fields=("runtime",),
    values="x is for arm64",
    consequence="slow",
    remedy="...",
    severity="warn",
)


def test_the_preflight_tells_of_the_host_and_looks_at_it_from_inside(run, told):
    runtime = FakeRuntime(pieces=(b"preflight: 1 warning\n",))
    runtime.examine = lambda: [WARNING]
    _, execute = run(runtime, make=Preflight)
    assert execute() is None
    assert told[0] == ("warning", str(WARNING))
    assert told[-1] == ("info", "preflight: 1 warning")
    (job,) = runtime.submitted
    assert (job.argv[3], job.npus) == ("preflight", 0)


def test_the_preflight_refuses_a_host_where_nothing_can_start(run):
    def examine():
        raise PlanRefused([WARNING.model_copy(update={"severity": "refuse"})], who="The host")

    runtime = FakeRuntime()
    runtime.examine = examine
    _, execute = run(runtime, make=Preflight)
    with pytest.raises(AirflowFailException, match=r"The host refuses this run, 1 finding"):
        execute()
    assert runtime.submitted == []


def test_no_artifact_after_a_good_end_is_an_error(run):
    _, execute = run(FakeRuntime(), read_manifest=lambda folder: None)
    with pytest.raises(AirflowException, match="left no artifact"):
        execute()


def test_a_stage_without_a_plan_says_what_to_do(run):
    operator, _ = run(FakeRuntime(), plan_task_id="other")
    with pytest.raises(AirflowFailException, match="clear the task 'other' first"):
        operator.execute({"ti": Ti()})


def test_the_plan_asks_for_the_stages_of_its_own_dag():
    with DAG("d", schedule=None) as dag:
        plan = PlanOperator()
        base = ConvertHfToMcore()
        data = PrepareDataset(task_id="records")
        adapter = TrainLora(checkpoint=base.output, dataset=data.output)
        score = EvaluateMmlu(task_id="score", checkpoint=MergeLora(checkpoint=base.output, adapter=adapter.output).output)
        plan >> [base, data]
    assert stage_requests(dag) == (
        StageRequest(name="convert_hf_to_mcore", stage="convert_hf_to_mcore"),
        StageRequest(name="records", stage="prepare_dataset"),
        StageRequest(name="train_lora", stage="train_lora", inputs={"checkpoint": "convert_hf_to_mcore", "dataset": "records"}),
        StageRequest(name="merge_lora", stage="merge_lora", inputs={"checkpoint": "convert_hf_to_mcore", "adapter": "train_lora"}),
        StageRequest(name="score", stage="evaluate_mmlu", inputs={"checkpoint": "merge_lora"}),
    )
    assert score.upstream_task_ids == {"merge_lora"}
    assert plan.downstream_task_ids == {"convert_hf_to_mcore", "records"}


def dag_run(**kwargs) -> dict:
    return {"dag_run": SimpleNamespace(**{"dag_id": "d", "run_id": "r", "conf": None, **kwargs})}


def test_the_plan_sees_unknown_keys_of_conf_and_params_that_conf_overrides(monkeypatch):
    seen = {}

    def make_plan(request, *, stages, run_id):
        seen.update(request=dict(request), stages=stages, run_id=run_id)
        return SimpleNamespace(config=tiny(), findings=[], stages=[], forecast=None)

    monkeypatch.setattr(operators, "make_plan", make_plan)
    monkeypatch.setattr(operators, "save_plan", lambda plan: Path("/runs/r/plan.json"))
    with DAG("d", schedule=None):
        plan = PlanOperator()
        ConvertHfToMcore()
    context = {"params": {"recipe": "tiny", "lr": None}, **dag_run(conf={"recipe": "tiny", "trian_iters": 3})}
    assert plan.execute(context) == {"plan": "/runs/r/plan.json"}
    assert seen["request"] == {"recipe": "tiny", "lr": None, "trian_iters": 3}
    assert [stage.name for stage in seen["stages"]] == ["convert_hf_to_mcore"]


def test_a_refusal_fails_the_plan_at_once_with_the_whole_report(monkeypatch):
    def make_plan(request, *, stages, run_id):
        raise BadInput("two findings:\n  lr: ...\n  seed: ...")

    monkeypatch.setattr(operators, "make_plan", make_plan)
    with DAG("d", schedule=None, default_args={"retries": 2}):
        plan = PlanOperator()
    assert plan.retries == 2, "a lost worker is no refusal"
    with pytest.raises(AirflowFailException, match=r"lr: .*\n.*seed"):
        plan.execute({"params": {}, **dag_run()})


def test_run_ids_become_folder_names_that_stay_apart():
    names = {
        name_of_run(dag, run)
        for dag, run in [
            ("d", "manual__2026-01-01T00:00:00+00:00"),
            ("d", "manual__2026-01-01T00-00-00-00-00"),
            ("e", "x/../y"),
            ("e", "x-..-y"),
        ]
    }
    assert len(names) == 4
    assert all("/" not in name and ":" not in name for name in names)


def test_ids_as_long_as_airflow_allows_become_a_folder_name(tmp_path):
    (tmp_path / name_of_run("d" * 250, "r" * 250)).mkdir()
    assert name_of_run("d" * 250, "r" * 250) != name_of_run("d" * 250, "r" * 249 + "s")


def test_a_host_that_is_described_wrongly_is_not_tried_again_after_the_wait_either(run, monkeypatch):
    def no_profile(name, *, ascend_conn_id):
        raise BadInput("the host profile is wrong", source="connection c")

    operator, _ = run(FakeRuntime())
    monkeypatch.setattr(operators, "get_runtime", no_profile)
    event = {"handle": Handle(job_folder=Path("/j"), id="c1", log_start=0).to_json(), "offset": 0}
    with pytest.raises(AirflowFailException, match="the host profile is wrong"):
        operator.resume({"ti": Ti()}, event)


def test_a_dag_that_maps_no_parts_refuses_them(monkeypatch):
    asked = SimpleNamespace(config=tiny().model_copy(update={"data_shards": 4}), findings=[], stages=[], forecast=None)
    monkeypatch.setattr(operators, "make_plan", lambda request, *, stages, run_id: asked)
    with DAG("d", schedule=None):
        plan = PlanOperator()
        PrepareDataset()
    with pytest.raises(AirflowFailException, match="d prepares its data in one run: set data_shards to 1"):
        plan.execute({"params": {"recipe": "tiny"}, **dag_run()})


def test_a_training_that_is_stopped_may_save_for_longer_than_its_engine_waits():
    from qwen3_ops.mindspeed.supervisor import Limits

    for training in (operators.TrainLora, operators.TrainFull, operators.Pretrain):
        task = training(checkpoint="checkpoint", dataset="dataset")
        assert task.stop_grace.total_seconds() > Limits(silence=1.0).save_grace
