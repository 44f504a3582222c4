"""The whole pipeline on the tiny twin: `make demo`'s dag.test(), then a server's REST API."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from qwen3_ops.artifacts import read_manifest
from qwen3_ops.pipelines import LORA_SFT

ROOT = Path(__file__).resolve().parents[2]
TASKS = ["plan", *(request.name for request in LORA_SFT)]


@pytest.fixture(scope="session")
def demo(folder, twin):
    """What `make demo` prints the first time."""
    return run_demo(folder)


def run_demo(folder: Path) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def table(printed: str) -> dict[str, tuple[str, Path]]:
    """Task -> (made or reused, artifact)."""
    store = Path(re.search(r"artifacts are in (\S+)", printed)[1])
    rows = re.findall(r"^ *(\w+) +[\d.]+ +(made|reused) +(\S+) *$", printed, re.MULTILINE)
    return {task: (how, store / artifact) for task, how, artifact in rows}


def test_dag_test_makes_every_artifact_and_the_model_learns(demo):
    rows = table(demo)
    assert list(rows) == TASKS[1:]
    assert {how for how, _ in rows.values()} == {"made"}
    assert all(read_manifest(artifact) for _, artifact in rows.values())
    first, last = map(float, re.search(r"training loss +first ([\d.]+), last ([\d.]+)", demo).groups())
    assert last <= first / 2
    base, tuned = map(float, re.search(r"MMLU accuracy +base ([\d.]+)%, tuned ([\d.]+)%", demo).groups())
    assert tuned >= base + 30


def test_long_stages_show_their_progress(demo):
    assert re.search(r"\[ *\d+%\] .*: \d+/\d+ ", demo) or re.search(r"iteration +\d+/ +\d+", demo)


def test_a_second_demo_reuses_everything(demo, folder):
    assert {how for how, _ in table(run_demo(folder)).values()} == {"reused"}


def test_the_exported_model_equals_the_merged_one(demo):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from qwen3_ops.model import ModelSpec
    from qwen3_ops.native.checkpoint.mcore import open_checkpoint
    from qwen3_ops.native.model import build_model, load_full_state

    exported = Path(re.search(r"exported model +(\S+)", demo)[1])
    _, merged = table(demo)["merge_lora"]
    spec = ModelSpec.from_hf(exported)
    ours = build_model(spec, dtype=torch.float32)
    load_full_state(ours, open_checkpoint(merged).state(padded=True))
    theirs = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(exported)("What is a sparrow?\nA. animal\nB. plant\nAnswer:", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = theirs(ids).logits
        difference = (ours(ids)[..., : expected.shape[-1]] - expected).abs().max()
    assert expected.std() > 0.1
    assert difference < 1e-4


def test_a_run_over_rest_succeeds(demo, airflow):
    run_id = airflow.trigger(recipe="tiny")
    assert airflow.wait_for_run(run_id, seconds=240) == "success"
    for task_id in TASKS:
        assert airflow.task(run_id, task_id)["state"] == "success"
    assert "finished before" in airflow.log(run_id, "train_lora")
    xcom = airflow.http.get(f"{airflow.dag}/dagRuns/{run_id}/taskInstances/export_hf/xcomEntries/return_value").json()["value"]
    assert "hf_model" in str(xcom)


def test_the_form_starts_from_the_twin_and_groups_its_fields(airflow):
    params = airflow.http.get(f"{airflow.dag}/details").json()["params"]
    assert params["recipe"]["value"] == "tiny"
    assert params["tensor_model_parallel_size"]["schema"]["section"] == "Devices and layout"


def test_there_are_no_import_errors(airflow):
    assert airflow.http.get("/api/v2/importErrors").json()["total_entries"] == 0
