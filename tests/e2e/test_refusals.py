"""Bad requests end in the plan, within seconds, and leave nothing behind."""

from __future__ import annotations

import time

import pytest


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"tensor_model_parallel_size": 3}, ["tensor_model_parallel_size", "num_attention_heads", "3", "8"]),
        ({"trian_iters": 20}, ["trian_iters", "unknown key", "train_iters"]),
        ({"input": "/no/such/file.parquet"}, ["input", "/no/such/file.parquet"]),
    ],
    ids=["layout", "unknown-key", "missing-path"],
)
def test_the_plan_refuses(airflow, tmp_path, conf, words):
    started = time.monotonic()
    run_id = airflow.trigger(recipe="tiny", output_root=str(tmp_path / "outputs"), **conf)
    assert airflow.wait_for_run(run_id, seconds=60) == "failed"
    assert time.monotonic() - started < 30
    assert airflow.task(run_id, "plan")["state"] == "failed"
    assert airflow.task(run_id, "plan")["try_number"] == 1
    assert airflow.task(run_id, "convert_hf_to_mcore")["state"] == "upstream_failed"
    log = airflow.log(run_id, "plan")
    assert [word for word in words if word not in log] == []
    assert list(tmp_path.iterdir()) == []


def test_wrong_types_are_refused_before_a_run_exists(airflow):
    answer = airflow.http.post(f"{airflow.dag}/dagRuns", json={"logical_date": None, "conf": {"recipe": "tiny", "train_iters": "many"}})
    assert answer.status_code == 400
    assert "many" in answer.text
