"""``render``, ``plan --sweep`` and the plan's report, as a person or a program starts them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from qwen3_ops.cli import app
from qwen3_ops.errors import OpsError


def said(*argv):
    done = CliRunner(env={"COLUMNS": "160"}).invoke(app, list(map(str, argv)))
    if isinstance(done.exception, OpsError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_render_prints_what_a_program_reads(golden):
    truth = json.loads((golden / "commands" / "18_multinode_pretrain_node1.json").read_text())
    shown = json.loads(said("render", "multinode_pretrain_node1", "--fidelity", "runbook", "--json"))
    assert shown == {key: truth[key] for key in ("env", "cwd", "argv")}


def test_render_reads_a_models_config(hf_model):
    argv = json.loads(said("render", "full_sft_alpaca", "--model-dir", hf_model, "--set", "lr=3e-6", "--json"))["argv"]
    assert argv[argv.index("--num-layers") + 1] == "4"
    assert argv[argv.index("--lr") + 1] == "3e-6"


def test_render_lists_its_names():
    assert "lora_merge_mcore2mcore" in said("render")


def test_render_warns_of_what_can_not_run():
    done = CliRunner().invoke(app, ["render", "pretrain", "--set", "tensor_model_parallel_size=3"])
    assert "num_query_groups (num_key_value_heads) = 8, tensor_model_parallel_size = 3" in done.stderr
    assert "--tensor-model-parallel-size 3" in done.stdout


def test_a_sweep_for_people_and_for_programs():
    request = ("plan", "--sweep", "--recipe", "qwen3-8b-full", "--pipeline", "full_sft")
    best = json.loads(said(*request, "--json"))[0]
    table = said(*request)
    assert f"--set tensor_model_parallel_size={best['changes']['tensor_model_parallel_size']}" in table
    assert "step time" in table


def test_a_sweep_where_nothing_fits():
    assert said("plan", "--sweep", "--set", "device_memory=4").startswith("0 layouts")


@pytest.fixture
def request_options(hf_model, golden, tmp_path):
    tasks = tmp_path / "mmlu"
    tasks.mkdir()
    (tasks / "law_test.csv").write_text("q,a,b,c,d,A\n")
    data = golden / "data" / "inputs" / "alpaca.parquet"
    values = {"model_dir": hf_model, "input": data, "task_data_path": tasks, "output_root": tmp_path / "out", "step_seconds": 2}
    return [option for name, value in values.items() for option in ("--set", f"{name}={value}")]


def test_the_report_has_stages_mends_findings_and_forecast(request_options):
    shown = said("plan", "--recipe", "tiny", *request_options, "--set", "save_interval=500")
    for text in ("train_lora", "--norm-epsilon", "save_interval should be smaller", "tokens", "4 min", "host memory, conversion"):
        assert text in shown


def test_a_refusal_still_tells_what_it_would_take(request_options):
    done = CliRunner(env={"COLUMNS": "160"}).invoke(app, ["plan", "--recipe", "qwen3-14b-full", "--pipeline", "full_sft"])
    assert isinstance(done.exception, OpsError)
    assert "52.6 GiB" in done.stdout
    done = CliRunner().invoke(app, ["plan", "--recipe", "tiny", *request_options, "--set", "lr=0", "--json"])
    assert json.loads(done.stdout)["findings"][0]["fields"] == ["lr"]


def test_the_recipe_may_also_be_set(request_options):
    plan = json.loads(said("plan", "--set", "recipe=tiny", *request_options, "--json"))
    assert plan["config"]["recipe"] == "tiny"
