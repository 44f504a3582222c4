"""A worker that dies loses nothing; a training that dies goes on from its last save."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qwen3_ops.artifacts import read_manifest
from waiting import wait_for

SHORT = {"recipe": "tiny", "train_iters": 120, "save_interval": 10, "log_interval": 1}


@pytest.fixture(scope="session")
def uninterrupted(folder, twin_environment) -> dict:
    """Metrics of the same training without Airflow and without a crash."""
    settings = [f"--set={name}={value}" for name, value in SHORT.items() if name != "recipe"]
    command = [sys.executable, "-m", "qwen3_ops"]
    planned = subprocess.run(
        [*command, "plan", "--recipe", "tiny", *settings, f"--set=output_root={folder / 'uninterrupted'}", "--save", "--json"],
        capture_output=True, text=True, check=True, env=twin_environment,
    )  # fmt: skip
    plan_json = re.search(r"plan: (\S+)", planned.stderr)[1]
    for stage in ("convert_hf_to_mcore", "prepare_dataset", "train_lora"):
        subprocess.run([*command, "run-stage", plan_json, stage], check=True, env=twin_environment)
    (training,) = [stage for stage in json.loads(Path(plan_json).read_text())["stages"] if stage["name"] == "train_lora"]
    return read_manifest(Path(training["output"])).metrics


def process_of(outputs: Path) -> int | None:
    """Pid of the training, once it has been started."""
    for record in outputs.glob("runs/*/train_lora/process.json"):
        return json.loads(record.read_text())["identity"]["pid"]
    return None


def saved(outputs: Path, iteration: int) -> bool:
    trackers = list(outputs.glob("artifacts/train_lora/*/latest_checkpointed_iteration.txt"))
    return bool(trackers) and int(trackers[0].read_text()) >= iteration


def test_a_run_marked_failed_lets_its_training_end_in_order(airflow, folder):
    outputs = folder / "stopping"
    run_id = airflow.trigger(recipe="tiny", train_iters=5000, save_interval=10, output_root=str(outputs))
    wait_for("a save", lambda: saved(outputs, 10), seconds=180)
    training = process_of(outputs)
    airflow.set_run_state(run_id, "failed")
    wait_for("the end of the training", lambda: not Path(f"/proc/{training}").exists(), seconds=60)
    (exit_json,) = outputs.glob("runs/*/train_lora/exit.json")
    assert json.loads(exit_json.read_text())["exit_code"] == 130


def test_training_survives_its_worker_and_resumes_after_its_own_death(airflow, uninterrupted, folder):
    outputs = folder / "crashing"
    run_id = airflow.trigger(**SHORT, output_root=str(outputs))

    training = wait_for("the training to start", lambda: process_of(outputs), seconds=120)
    wait_for("a save", lambda: saved(outputs, 10), seconds=120)

    worker = int(Path(f"/proc/{training}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(worker, signal.SIGKILL)
    airflow.wait_for_task(run_id, "train_lora", "up_for_retry", seconds=60)
    airflow.clear(run_id, "train_lora")
    wait_for("the next try", lambda: "Following process" in airflow.log(run_id, "train_lora", attempt=2), seconds=60)
    assert process_of(outputs) == training, "one process, not two"

    os.kill(training, signal.SIGKILL)
    airflow.wait_for_task(run_id, "train_lora", "up_for_retry", seconds=60)
    assert "left no word" in airflow.log(run_id, "train_lora", attempt=2)
    airflow.clear(run_id, "train_lora")
    assert airflow.wait_for_task(run_id, "train_lora", "success", "failed", seconds=240) == "success"
    assert re.search(r"going on from iteration \d+", airflow.log(run_id, "train_lora", attempt=3))
    airflow.set_run_state(run_id, "failed")

    (manifest,) = [read_manifest(path) for path in outputs.glob("artifacts/train_lora/*") if path.is_dir()]
    assert manifest.metrics["last_loss"] == uninterrupted["last_loss"]
