"""A data set prepared in parts by Airflow's dynamic task mapping: the bytes of one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from planned_model import request
from qwen3_ops.artifacts import read_manifest, require_artifact

ROOT = Path(__file__).resolve().parents[2]
SHARDS = 3
RUN = """
import json, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1] + "/scripts", sys.argv[1] + "/dags"]
import local_airflow
local_airflow.start_session(Path(sys.argv[2]), Path(sys.argv[3]))
local_airflow.ensure_database(Path(sys.argv[2]))
from qwen3_prepare_data import dag
for task in dag.tasks:
    task.retries = 0
run = dag.test(run_conf=json.loads(sys.argv[4]))
tasks = sorted([ti.task_id, ti.map_index, str(ti.state)] for ti in run.get_task_instances())
print(json.dumps({"state": run.state, "tasks": tasks}))
"""


@pytest.fixture(scope="module")
def enwiki(tmp_path_factory) -> Path:
    """Parquet files as enwiki's, of unequal size."""
    folder = tmp_path_factory.mktemp("enwiki")
    for number in range(4):
        texts = [f"Article {number}-{row}. " + "The text of an article. " * (row % 7) for row in range(30 + 40 * number)]
        pq.write_table(
            pa.table({"id": range(len(texts)), "text": texts}), folder / f"train-{number:05}-of-00004.parquet", row_group_size=16
        )
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Of one Airflow for all runs, with the model's folder."""
    return tmp_path_factory.mktemp("home")


def run_dag(home: Path, **conf: object) -> dict:
    asked = {**request(home), "handler_name": "GeneralPretrainHandler", **conf}
    command = [sys.executable, "-c", RUN, str(ROOT), str(home / "airflow"), str(home), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "said": done.stdout[-3000:] + done.stderr[-6000:]}


def data_set(store: Path) -> Path:
    (made,) = (path.parent for path in (store / "artifacts" / "prepare_dataset").glob("*/manifest.json"))
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".bin", ".idx")}


def test_parts_are_mapped_joined_and_made_again_where_one_is_lost(tmp_path, home, enwiki):
    given = {"input": str(enwiki), "map_keys": None}
    whole = run_dag(home, **given, output_root=str(tmp_path / "whole"))
    assert (whole["state"], ["prepare_part", -1, "skipped"] in whole["tasks"]) == ("success", True)
    parts = run_dag(home, **given, output_root=str(tmp_path / "parts"), data_shards=SHARDS)
    assert parts["state"] == "success", parts["said"]
    assert [task for task in parts["tasks"] if task[0] == "prepare_part"] == [["prepare_part", index, "success"] for index in range(SHARDS)]

    one, joined = data_set(tmp_path / "whole"), data_set(tmp_path / "parts")
    assert one.name == joined.name  # the same key, however it was made
    assert files(one) == files(joined)
    assert len(files(one)) == 2
    ledgers = [json.loads((folder / "ledger.json").read_text(encoding="utf-8")) for folder in (one, joined)]
    assert ledgers[0] == ledgers[1]
    manifest = require_artifact(joined, ["dataset"])
    assert sorted(manifest.inputs) == sorted(f"{index}/{SHARDS}" for index in range(SHARDS))
    assert all(read_manifest(Path(part.path)).key == part.key for part in manifest.inputs.values())

    made = {Path(part.path): Path(part.path, "manifest.json").stat().st_mtime_ns for part in manifest.inputs.values()}
    lost = next(iter(made))
    for number, folder in enumerate((joined, lost)):
        folder.rename(tmp_path / f"away-{number}")
    again = run_dag(home, **given, output_root=str(tmp_path / "parts"), data_shards=SHARDS)
    assert again["state"] == "success", again["said"]
    assert files(joined) == files(one)
    assert {part for part, stamp in made.items() if Path(part, "manifest.json").stat().st_mtime_ns != stamp} == {lost}

    last = run_dag(home, **given, output_root=str(tmp_path / "parts"), data_shards=SHARDS)
    assert ["prepare_part", -1, "skipped"] in last["tasks"]  # the data set is there
