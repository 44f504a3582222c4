"""The runbook's own mistakes, each written as a request, each caught."""

from __future__ import annotations

import json

import pytest

from qwen3_ops.errors import BadInput
from qwen3_ops.model import ModelSpec


def only(findings, severity=None):
    (finding,) = [finding for finding in findings if severity in (None, finding.severity)]
    return finding


@pytest.mark.parametrize("pipeline", ["lora_sft", "full_sft", "pretrain"])
def test_the_recipes_themselves_are_clean(machine, pipeline):
    assert machine.findings(pipeline) == []


def test_the_table_says_four_query_groups(machine):
    finding = only(machine.findings(num_query_groups=4))
    assert finding.severity == "refuse"
    assert "config.json" in finding.remedy


def test_the_table_says_there_is_a_qkv_bias(machine):
    assert "config.json" in only(machine.findings(add_qkv_bias=True)).remedy
    config = json.loads((machine.model / "config.json").read_text())
    (machine.model / "config.json").write_text(json.dumps({**config, "attention_bias": True}))
    with pytest.raises(BadInput, match="attention_bias is true"):
        ModelSpec.from_hf(machine.model)


def test_the_data_was_downloaded_from_a_web_page(machine):
    machine.data.write_bytes(b"\n<!DOCTYPE html>\n<html>")
    finding = only(machine.findings())
    assert "page" in finding.rule
    assert "/resolve/" in finding.remedy


def test_the_openai_example_has_llamas_template(machine):
    finding = only(machine.findings(prompt_type="llama2"))
    assert finding.fields == ("prompt_type",)
    assert "qwen" in finding.remedy


def test_a_template_that_the_parser_knows_and_the_tool_has_not(machine):
    finding = only(machine.findings(prompt_type="qwen3"))
    assert finding.severity == "refuse"
    assert "Template qwen3 does not exist" in finding.consequence
    assert machine.findings(prompt_type="qwen3", mindspeed_version="26.0.0") == []


def test_exports_go_into_the_base_models_folder(machine):
    finding = only(machine.findings(output_root=f"{machine.model}/mg2hf"))
    assert "beside the base weights" in finding.consequence


@pytest.mark.parametrize("save_interval", [2000, 5000])
def test_the_only_save_is_at_the_end(machine, save_interval):
    finding = only(machine.findings(save_interval=save_interval, train_iters=2000))
    assert "loses everything" in finding.consequence


def test_generation_on_four_devices_lowers_the_pipeline(machine):
    finding = only(machine.findings(nproc_per_node=4))
    assert "here to TP2 PP2" in finding.consequence
    assert finding.severity == "refuse"


@pytest.mark.parametrize("name", ["gpus_per_node", "npus_per_node"])
def test_the_multi_node_block_sets_another_variable(machine, name):
    assert "nproc_per_node" in only(machine.findings(**{name: 8})).remedy


def test_two_nodes_with_localhost(machine):
    findings = machine.findings("full_sft", nnodes=2, hosts=["localhost", "10.0.0.2"], global_batch_size=16, socket_ifname="eth0")
    assert "another machine on every node" in only(findings).values


def test_two_nodes_without_addresses(machine):
    assert "one address each, 0 given" in only(machine.findings("full_sft", nnodes=2, socket_ifname="eth0")).values


def test_the_larger_models_port_lies_among_hccls(machine):
    finding = only(machine.findings(master_port=60015, hccl_if_base_port=60000), severity="refuse")
    assert "60000 to 60031" in finding.values


def test_data_at_the_other_of_two_paths(machine):
    assert only(machine.findings(input="/apps/hw/datasets/sharegpt/x.jsonl")).fields == ("input",)


FAULTS = {
    "lora_sft": {
        "--norm-epsilon",
        "--params-dtype",
        "--tensorboard-dir",
        "--save-dir",
        "--task",
        "--initial-loss-scale",
        "--exit-on-missing-checkpoint",
        "--max-position-embeddings",
        "--exit-signal-handler",
    },
    "full_sft": {"--tensorboard-dir", "--save-dir", "--task", "--log-throughput", "--exit-on-missing-checkpoint"},
    "pretrain": {"--finetune", "--tensorboard-dir", "--save-dir", "--task"},
}


@pytest.mark.parametrize("pipeline", FAULTS)
def test_what_the_scripts_lack_is_told_in_runbook_fidelity(machine, pipeline):
    findings = machine.findings(pipeline, fidelity="runbook")
    told = {finding.values.removeprefix("fidelity = runbook: ") for finding in findings}
    assert FAULTS[pipeline] <= told
    assert "--save-interval" not in told  # the recipe saves in between, whatever the fidelity
    assert all(finding.severity == "warn" and finding.consequence for finding in findings)


def test_a_habit_that_a_run_shares_is_told_too(machine):
    told = {finding.values for finding in machine.findings("lora_sft", fidelity="runbook", sequence_parallel=False)}
    assert "fidelity = runbook: --sequence-parallel" in told
