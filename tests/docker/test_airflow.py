"""Stages in containers through a real Airflow: the whole pipeline, and what happens when a part of Airflow dies."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from airflow_server import AirflowServer
from engine import SKELETON, TestEngine, package_dir, system_mounts
from qwen3_airflow.ascend.hook import DEFAULT_CONN_ID
from qwen3_ops.pipelines import LORA_SFT
from waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
MODES = ("deferrable", "synchronous")
POLICY = """
def task_policy(task):
    if task.dag_id in ("qwen3_prepare_data", "light_shared") and hasattr(task, "ascend_conn_id"):
        task.ascend_conn_id = "ascend_shared"
"""
"""How docs/containers.md has an administrator change the shipped DAGs: here some use another host's connection."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def server(engine: TestEngine, folder: Path, npu_nodes: None, npu_smi: Path):
    dags = folder / "dags"
    dags.mkdir()
    here = Path(__file__).parent / "dags"
    for source in (ROOT / "dags" / "qwen3_lora_sft.py", ROOT / "dags" / "qwen3_prepare_data.py", here / "light.py", here / "reaper.py"):
        (dags / source.name).symlink_to(source)
    policies = folder / "policies"
    policies.mkdir()
    (policies / "airflow_local_settings.py").write_text(POLICY)
    profile = {
        "npus": 16,
        "dies_per_npu": 2,
        "control_devices": ["/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"],
        "driver_mounts": [*system_mounts(), str(npu_smi)],
        "package_dir": package_dir(),
        "python": sys.executable,
        "environment": {"OMP_NUM_THREADS": "1"},
    }
    extra = {"recipe": "cpu", "image": SKELETON, "data_roots": [str(folder)], "profile": profile}
    shared = {**extra, "profile": {**profile, "container": "shared"}}
    connections = {
        f"AIRFLOW_CONN_{name.upper()}": json.dumps({"conn_type": "ascend", "host": engine.url, "extra": of})
        for name, of in ((DEFAULT_CONN_ID, extra), ("ascend_shared", shared))
    }
    server = AirflowServer(
        folder / "home",
        dags=dags,
        variables={
            **connections,
            "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins"), str(ROOT / "tests" / "support"), str(policies)]),
        },
    )
    server.start()
    yield server
    server.stop()
    engine.remove_all(folder)


class LightRun:
    """A run of the DAG `light`: both tasks print and wait for `go`."""

    def __init__(self, server: AirflowServer, engine: TestEngine, folder: Path) -> None:
        folder.mkdir()
        self.airflow, self.engine, self.folder = server.rest("light"), engine, folder
        self.id = self.airflow.trigger(folder=str(folder))
        for mode in MODES:
            wait_for(f"the stage of {mode}", lambda mode=mode: self.starts(mode) == 1, seconds=90)
        self.airflow.wait_for_task(self.id, "deferrable", "deferred", seconds=60)
        # The state comes before the triggerer has looked, and a trigger that never ran is not told that its task was ended.
        wait_for("the triggerer's first look", lambda: "line 19" in self.log("deferrable"), seconds=60)

    def job(self, mode: str) -> Path:
        return next(self.folder.glob(f"light-*/{mode}"), self.folder / "none")

    def starts(self, mode: str) -> int:
        path = self.job(mode) / "starts"
        return path.read_text().count("started") if path.exists() else 0

    def go_on(self) -> None:
        (self.folder / "go").touch()

    def log(self, mode: str) -> str:
        """Of the last try."""
        return self.airflow.log(self.id, mode, attempt=self.airflow.task(self.id, mode)["try_number"])

    def must_end_well(self, *, starts: int = 1) -> None:
        assert self.airflow.wait_for_run(self.id, seconds=180) == "success"
        for mode in MODES:
            assert self.starts(mode) == starts, mode
            log = self.log(mode)
            assert [line for line in range(20) if not re.search(rf"line {line}\b", log)] == [], mode
            assert "the last line" in log
        assert self.engine.containers(self.folder) == []


@pytest.fixture
def light(server, engine, folder, request):
    return LightRun(server, engine, folder / request.node.name)


@pytest.fixture(scope="module")
def conf(hf_model, golden, folder) -> dict:
    """A run on the smallest of models, in containers."""
    tasks = folder / "mmlu"
    tasks.mkdir()
    (tasks / "anatomy_test.csv").write_text('"What is a heart?",muscle,bone,nerve,skin,A\n"What is a femur?",muscle,bone,nerve,skin,B\n')
    (folder / "outputs").mkdir()
    (folder / "model").mkdir()
    for file in hf_model.iterdir():
        (folder / "model" / file.name).write_bytes(file.read_bytes())
    data = folder / "alpaca.json"
    data.write_bytes((golden / "data" / "inputs" / "alpaca_small.json").read_bytes())
    return {
        "recipe": "tiny", "runtime": "docker", "model_dir": str(folder / "model"), "input": str(data), "task_data_path": str(tasks),
        "output_root": str(folder / "outputs"), "train_iters": 4, "save_interval": 2, "log_interval": 1, "global_batch_size": 4,
        "micro_batch_size": 4, "seq_length": 128, "max_new_tokens": 4,
    }  # fmt: skip


@pytest.fixture(scope="module")
def pipeline(server, conf):
    """The LoRA pipeline, started before the parts of Airflow are killed."""
    airflow = server.rest("qwen3_lora_sft")
    return airflow, airflow.trigger(**conf)


def test_the_worker_is_killed(pipeline, light):
    pid = wait_for("the worker's process", lambda: light.airflow.task(light.id, "synchronous")["pid"], seconds=30)
    os.kill(pid, signal.SIGKILL)
    wait_for("the next try", lambda: "Reconnecting" in light.log("synchronous") or "Following" in light.log("synchronous"), seconds=90)
    light.go_on()
    light.must_end_well()


def test_the_triggerer_is_killed(server, light):
    server.kill_part("triggerer")
    light.go_on()
    server.start_part("triggerer")
    light.must_end_well()


def test_the_scheduler_is_killed_with_its_workers(server, light):
    server.kill_part("scheduler")
    server.start_part("scheduler")
    light.go_on()
    light.must_end_well()


def test_a_run_marked_failed_stops_its_containers_after_they_saved(light):
    light.airflow.set_run_state(light.id, "failed")
    for mode in MODES:
        wait_for(f"{mode} to save", lambda mode=mode: "saved" in (light.job(mode) / "stage.log").read_text(), seconds=60)
    wait_for("the containers to go", lambda: light.engine.containers(light.folder) == [], seconds=90)
    assert [json.loads((light.job(mode) / "attempt.json").read_text())["exit_code"] for mode in MODES] == [130, 130]


def test_a_cleared_task_is_stopped_and_starts_anew(light):
    for mode in MODES:
        light.airflow.clear(light.id, mode)
    for mode in MODES:
        wait_for(f"{mode} to start anew", lambda mode=mode: light.starts(mode) == 2, seconds=120)
        assert (light.job(mode) / "stage.log").read_text().count("saved") == 1
    light.go_on()
    light.must_end_well(starts=2)


def test_the_pipeline_runs_with_every_stage_in_a_container(pipeline, engine, folder):
    airflow, run_id = pipeline
    assert airflow.wait_for_run(run_id, seconds=400) == "success"
    for request in LORA_SFT:
        assert airflow.task(run_id, request.name)["state"] == "success"
        (attempt,) = folder.glob(f"outputs/runs/*/{request.name}/attempt.json")
        assert json.loads(attempt.read_text())["exit_code"] == 0
    assert "Nothing to do: by the profile" in airflow.log(run_id, "start_container")
    assert "no stage of this run needs an NPU" in airflow.log(run_id, "preflight", attempt=airflow.task(run_id, "preflight")["try_number"])
    assert "qwen3-ops train" in airflow.log(run_id, "train_lora", attempt=airflow.task(run_id, "train_lora")["try_number"])
    assert engine.containers(folder / "outputs") == []


def test_a_shipped_dag_makes_one_container_for_its_run_and_removes_it(server, conf, engine, folder):
    airflow = server.rest("qwen3_prepare_data")
    run_id = airflow.trigger(**{**conf, "seq_length": 96})
    assert airflow.wait_for_run(run_id, seconds=180) == "success"
    states = {name: airflow.task(run_id, name)["state"] for name in ("start_container", "prepare_dataset", "stop_container")}
    assert set(states.values()) == {"success"}
    (job,) = folder.glob("outputs/runs/qwen3_prepare_data-*/prepare_dataset")
    assert json.loads((job / "attempt.json").read_text())["exit_code"] == 0
    assert (job.parent / "container.json").exists()
    assert engine.containers(folder / "outputs") == []
    airflow.clear(run_id, "prepare_dataset")
    airflow.wait_for_task(run_id, "prepare_dataset", "running", "deferred", seconds=60)
    assert airflow.wait_for_run(run_id, seconds=120) == "success"
    assert {airflow.task(run_id, name)["try_number"] for name in states} == {2}, "setup and teardown come with the stage"
    assert "finished before" in airflow.log(run_id, "prepare_dataset", attempt=2)
    assert engine.containers(folder / "outputs") == []


def test_a_run_marked_failed_has_its_stages_save_before_their_container_goes(server, conf, engine, folder):
    airflow, outputs = server.rest("light_shared"), folder / "shared"
    outputs.mkdir()
    run_id = airflow.trigger(**{**conf, "output_root": str(outputs)})
    for mode in MODES:
        wait_for(f"the stage of {mode}", lambda mode=mode: list(outputs.glob(f"runs/*/{mode}/starts")), seconds=90)
    airflow.wait_for_task(run_id, "deferrable", "deferred", seconds=60)
    wait_for("the triggerer's first look", lambda: "line 19" in airflow.log(run_id, "deferrable"), seconds=60)
    assert len(engine.containers(outputs)) == 1
    airflow.set_run_state(run_id, "failed")
    airflow.wait_for_task(run_id, "stop_container", "success", seconds=90)
    assert engine.containers(outputs) == []
    for mode in MODES:
        (job,) = outputs.glob(f"runs/*/{mode}")
        assert (job / "stage.log").read_text().count("saved") == 1, mode
        assert json.loads((job / "attempt.json").read_text())["exit_code"] == 130, mode
    assert airflow.wait_for_run(run_id, seconds=60) == "failed"


def test_the_reaper_asks_airflow_whose_container_is_nobodys(server, engine, folder, make_runtime, profile, job, root):
    """Tasks that run and that are over, mapped ones too, runs that are gone, and containers that live as long as a run."""
    (folder / "states").mkdir()
    states, reaper = server.rest("states"), server.rest("reaper")
    run_id = states.trigger(folder=str(folder / "states"))
    wait_for("one to wait and one to end", lambda: states.mapped_states(run_id, "wait") == ["success", "running"], seconds=90)
    over = reaper.trigger()
    assert reaper.wait_for_run(over, seconds=90) == "success"

    runtime = make_runtime(profile)
    of = {
        "mapped and over": {"dag": "states", "run": run_id, "task": "wait", "map_index": "0"},
        "mapped and running": {"dag": "states", "run": run_id, "task": "wait", "map_index": "1"},
        "over": {"dag": "reaper", "run": over, "task": "reap"},
        "no such run": {"dag": "states", "run": "gone", "task": "wait"},
        "no such dag": {"dag": "gone", "run": run_id, "task": "wait"},
        "of a living run": {"dag": "states", "run": run_id, "task": "start_container", "shared": "1"},
        "of a run that is over": {"dag": "reaper", "run": over, "task": "start_container", "shared": "1"},
        "of no run": {"dag": "states", "run": "gone", "task": "start_container", "shared": "1"},
    }
    for number, labels in enumerate(of.values()):
        whole = {"airflow": server.url, "map_index": "-1", "try": "1", **labels}
        runtime.submit(job("import time; time.sleep(600)", name=f"job-{number}", labels=whole, stop_grace=0))

    run = reaper.trigger()
    assert reaper.wait_for_run(run, seconds=120) == "success"
    left = {container["Labels"]["qwen3-ops.job"].rpartition("-")[2] for container in engine.containers(root)}
    assert [name for number, name in enumerate(of) if str(number) in left] == ["mapped and running", "of a living run"]
    (folder / "states" / "go").touch()
    assert states.wait_for_run(run_id, seconds=60) == "success"
