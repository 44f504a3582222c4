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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def server(engine: TestEngine, folder: Path, npu_nodes: None, npu_smi: Path):
    dags = folder / "dags"
    dags.mkdir()
    for source in (ROOT / "dags" / "qwen3_lora_sft.py", Path(__file__).parent / "dags" / "light.py"):
        (dags / source.name).symlink_to(source)
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
    connection = json.dumps({"conn_type": "ascend", "host": engine.url, "extra": extra})
    server = AirflowServer(
        folder / "home",
        dags=dags,
        variables={
            f"AIRFLOW_CONN_{DEFAULT_CONN_ID.upper()}": connection,
            "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins"), str(ROOT / "tests" / "support")]),
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
def pipeline(server, hf_model, golden, folder):
    """The LoRA pipeline on the smallest of models, started before the parts of Airflow are killed."""
    tasks = folder / "mmlu"
    tasks.mkdir()
    (tasks / "anatomy_test.csv").write_text('"What is a heart?",muscle,bone,nerve,skin,A\n"What is a femur?",muscle,bone,nerve,skin,B\n')
    (folder / "outputs").mkdir()
    (folder / "model").mkdir()
    for file in hf_model.iterdir():
        (folder / "model" / file.name).write_bytes(file.read_bytes())
    data = folder / "alpaca.json"
    data.write_bytes((golden / "data" / "inputs" / "alpaca_small.json").read_bytes())
    airflow = server.rest("qwen3_lora_sft")
    run_id = airflow.trigger(
        recipe="tiny", runtime="docker", model_dir=str(folder / "model"), input=str(data), task_data_path=str(tasks),
        output_root=str(folder / "outputs"), train_iters=4, save_interval=2, log_interval=1, global_batch_size=4, micro_batch_size=4,
        seq_length=128, max_new_tokens=4,
    )  # fmt: skip
    return airflow, run_id


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
    assert "qwen3-ops train" in airflow.log(run_id, "train_lora", attempt=airflow.task(run_id, "train_lora")["try_number"])
    assert engine.containers(folder / "outputs") == []
