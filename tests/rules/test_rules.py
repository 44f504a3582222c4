"""Every rule finds what it is for; the runbook's own mistakes are in the module beside."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from qwen3_ops.rules import RULES, capacity, network

CASES = [
    ({"tensor_model_parallel_size": 16, "nproc_per_node": 64}, "num_query_groups"),
    ({"pipeline_model_parallel_size": 3, "nproc_per_node": 6}, "num_layers must be divisible"),
    ({"nproc_per_node": 12}, "must be divisible by tensor * pipeline * context"),
    ({"nproc_per_node": 1}, "must not exceed nproc_per_node"),
    ({"global_batch_size": 63}, "global_batch_size must be divisible"),
    ({"global_batch_size": 8}, "at least as many micro batches as pipeline stages"),
    ({"seq_length": 50000}, "must not exceed max_position_embeddings"),
    ({"min_lr": 1}, "min_lr must not exceed lr"),
    ({"lora_r": 256, "lora_alpha": 1}, "lora_alpha / lora_r"),
    ({"handler_name": "GeneralPretrainHandler"}, "pre-training wants plain text"),
    ({"context_parallel_size": 2, "nproc_per_node": 16, "seq_length": 4098}, "multiple of 2 * context_parallel_size"),
    (
        {"context_parallel_size": 8, "tensor_model_parallel_size": 2, "nproc_per_node": 64},
        "which tensor * context parallel size must divide",
    ),
    ({"context_parallel_size": 3, "nproc_per_node": 24}, "ulysses_cp_algo"),
    ({"num_layers_per_virtual_pipeline_stage": 3}, "must divide the layers of a stage"),
    ({"num_layers_per_virtual_pipeline_stage": 5}, "can not generate with virtual stages"),
    ({"num_layers_per_virtual_pipeline_stage": 5}, "can not merge LoRA into virtual stages"),
    ({"num_layers_per_virtual_pipeline_stage": 5, "pipeline_model_parallel_size": 1}, "virtual stages need a pipeline"),
    ({"expert_model_parallel_size": 2}, "expert_model_parallel_size must divide"),
    ({"sequence_parallel": False}, "sequence_parallel should be on"),
    ({"engine": "native", "context_parallel_size": 2, "nproc_per_node": 16}, "computes whole sequences"),
    ({"engine": "native", "num_layers_per_virtual_pipeline_stage": 5}, "no virtual pipeline stages"),
    ({"mindspeed_dir": "/no/MindSpeed-LLM"}, "mindspeed_dir must be"),
    ({"mindspeed_dir": "MindSpeed-LLM", "runtime": "docker"}, "mindspeed_dir must be"),
    ({"cpu_engine": "mindspeed", "mindspeed_version": "26.0.0"}, "made by the native engine"),
    ({"recompute_granularity": "selective"}, "saves nothing beside flash attention"),
    ({"load": "/no/checkpoint"}, "load must be a whole Megatron checkpoint"),
    ({"data_shards": 2, "cpu_engine": "mindspeed"}, "data_shards above 1 needs the native engine"),
    ({"map_keys": "{prompt: a}"}, "map_keys must be a JSON object"),
    ({"map_keys": "[1]"}, "map_keys must be a JSON object"),
    ({"prompt_type": "none"}, "known template"),
    ({"hosts": ["a", "b"]}, "one node, but 2 hosts"),
    ({"nnodes": 2, "hosts": ["10.0.0.1", "10.0.0.1"], "global_batch_size": 128}, "same host twice"),
    ({"nnodes": 2, "hosts": ["10.0.0.1", "10.0.0.300"], "global_batch_size": 128}, "neither an address nor a host name"),
    ({"nnodes": 2, "hosts": ["a", "b"], "socket_ifname": None, "global_batch_size": 128}, "socket_ifname should name"),
    ({"nnodes": 2, "hosts": ["a", "b"], "global_batch_size": 128, "no_shared_storage": True}, "leaves its own part"),
    ({"master_port": 16666}, "outside HCCL's ports"),
    ({"device_memory": 6}, "must fit a device's memory"),
    ({"device_memory": 64}, "should fit a device's memory at full sequence length"),
    ({"output_root": "relative"}, "absolute path"),
    ({"task_data_path": "/no/mmlu"}, "task_data_path must be"),
]


@pytest.mark.parametrize(("changes", "said"), CASES, ids=[said for _, said in CASES])
def test_a_rule_finds_what_it_is_for(machine, changes, said):
    findings = machine.findings(**changes)
    found = [finding for finding in findings if said in f"{finding.rule}; {finding.values}"]
    assert found, [str(finding) for finding in findings]
    assert set(changes) & set(found[0].fields)
    assert found[0].consequence
    assert found[0].remedy


def test_every_rule_is_registered_once_with_fields_of_a_run():
    from qwen3_ops.config import RunConfig

    assert len({rule.name for rule in RULES}) == len(RULES) > 25
    for rule in RULES:
        assert rule.fields, rule.name
        assert set(rule.fields) <= set(RunConfig.model_fields), rule.name


def test_a_port_that_is_taken(machine, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(capacity, "host_memory", lambda: 10**12)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert any("master_port should be free" in finding.rule for finding in machine.findings(master_port=port))
    assert not any("should be free" in finding.rule for finding in machine.findings(master_port=port))
    assert not any("should be free" in finding.rule for finding in machine.findings(master_port=port, runtime="docker"))


def test_ports_that_any_connection_may_get(machine, monkeypatch, tmp_path):
    ranges, reserved = tmp_path / "range", tmp_path / "reserved"
    ranges.write_text("32768\t60999\n")
    reserved.write_text("\n")
    monkeypatch.setattr(network, "_EPHEMERAL", ranges)
    monkeypatch.setattr(network, "_RESERVED", reserved)
    (finding,) = machine.findings(hccl_if_base_port=60000)
    assert "ip_local_reserved_ports=60000-60031" in finding.remedy
    reserved.write_text("50000,60000-60031\n")
    assert machine.findings(hccl_if_base_port=60000) == []
    assert machine.findings(hccl_if_base_port=20000) == []
    assert len(machine.findings(hccl_if_base_port=32760)) == 1  # the last of them are given away
    reserved.write_text("60000-60015\n")
    assert len(machine.findings(hccl_if_base_port=60000)) == 1


def test_results_do_not_go_into_the_base_model_through_a_link(machine):
    (machine.folder / "link").symlink_to(machine.model)
    (finding,) = machine.findings(output_root=str(machine.folder / "link" / "out"))
    assert finding.rule == "output_root must lie outside model_dir"
    (finding,) = machine.findings(output_root=f"{machine.folder}/x/../Qwen3-14B/out")
    assert finding.rule == "output_root must lie outside model_dir"


def test_data_that_can_not_be_read_is_told(machine, monkeypatch):
    real = Path.open

    def refuse(path, *how, **more):
        if path == machine.data:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *how, **more)

    monkeypatch.setattr(Path, "open", refuse)
    (finding,) = machine.findings()
    assert (finding.rule, finding.fields) == ("input must be readable", ("input",))
    assert str(machine.data) in finding.values


def test_a_file_in_a_folders_place_is_not_said_to_be_missing(machine):
    (finding,) = machine.findings(task_data_path=str(machine.data))
    assert finding.values == f"{machine.data} is something else"


def checkpoint(folder, *ranks, tracker="1"):
    for rank in ranks:
        (folder / "iter_0000001" / rank).mkdir(parents=True)
        (folder / "iter_0000001" / rank / "model_optim_rng.pt").touch()
    folder.mkdir(exist_ok=True)
    if tracker is not None:
        (folder / "latest_checkpointed_iteration.txt").write_text(tracker)
    return str(folder)


TP2PP2 = ("mp_rank_00_000", "mp_rank_00_001", "mp_rank_01_000", "mp_rank_01_001")


@pytest.mark.parametrize("ranks", [TP2PP2, ("mp_rank_00",), ("mp_rank_00", "mp_rank_01"), ("mp_rank_00_000", "mp_rank_00_001")])
def test_a_whole_checkpoint_is_taken(machine, ranks):
    assert machine.findings(load=checkpoint(machine.folder / "mg", *ranks)) == []


@pytest.mark.parametrize(
    ("ranks", "tracker", "said"),
    [
        (TP2PP2, None, "has no latest_checkpointed_iteration.txt"),
        (TP2PP2, "latest", "holds no iteration"),
        (TP2PP2, "7", "has no mp_rank_* folders"),
        (TP2PP2[:3], "1", "has 3 rank folders"),
        (TP2PP2[2:], "1", "has 2 rank folders"),
        ((), "1", "has no mp_rank_* folders"),
    ],
)
def test_a_broken_checkpoint_is_refused(machine, ranks, tracker, said):
    (finding,) = machine.findings(load=checkpoint(machine.folder / "mg", *ranks, tracker=tracker))
    assert said in finding.values
    assert "random weights" in finding.consequence


def test_a_file_in_a_ranks_place_is_no_rank(machine):
    load = checkpoint(machine.folder / "mg")
    (machine.folder / "mg" / "iter_0000001").mkdir()
    (machine.folder / "mg" / "iter_0000001" / "mp_rank_00").touch()
    (finding,) = machine.findings(load=load)
    assert "has no mp_rank_* folders" in finding.values


def test_a_hugging_face_folder_is_no_checkpoint(machine):
    (finding,) = machine.findings(load=str(machine.model))
    assert "it is a Hugging Face folder" in finding.values


def test_what_the_real_scripts_want_to_write(machine, monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, mode: "Qwen3-14B" not in str(place) and "mmlu" not in str(place))
    assert {field for finding in machine.findings() for field in finding.fields} == {"task_data_path"}
    findings = machine.findings(cpu_engine="mindspeed")
    assert {field for finding in findings for field in finding.fields} == {"task_data_path", "model_dir"}
    assert machine.findings(engine="native") == []


def test_signs_that_the_real_scripts_refuse(machine):
    folder = machine.folder / "a+b"
    folder.mkdir()
    (finding,) = machine.findings(output_root=str(folder / "out"))
    assert "'+'" in finding.values
    assert machine.findings(output_root=str(folder / "out"), engine="native") == []
    assert machine.findings(output_root=str(machine.folder / "数据 out~1")) == []


def test_the_templates_that_mindspeed_has(machine):
    configs = machine.mindspeed / "configs" / "finetune"
    configs.mkdir(parents=True)
    (configs / "templates.json").write_text('[{"name": "qwen3"}]')
    assert machine.findings(prompt_type="qwen3") == []
    (finding,) = machine.findings(prompt_type="qwen")
    assert "Template qwen does not exist" in finding.consequence
    (configs / "templates.json").write_text("{}")
    assert machine.findings(prompt_type="qwen") == []


def test_a_stranger_among_the_questions(machine):
    (machine.tasks / "README").touch()
    (finding,) = machine.findings()
    assert "README" in finding.values
    assert finding.severity == "warn"


def test_a_host_that_is_too_small(machine, monkeypatch):
    monkeypatch.setattr(capacity, "host_memory", lambda: 64 * 10**9)
    assert machine.findings() == []
    (finding,) = machine.findings(cpu_engine="mindspeed")
    assert "148 GB" in finding.values
    assert "native" in finding.remedy
    (finding,) = machine.findings("full_sft", engine="native")
    assert "training by the native engine" in finding.rule


def test_a_disk_that_is_too_small(machine, monkeypatch):
    from qwen3_ops.findings import PlanRefused
    from qwen3_ops.pipelines import FULL_SFT
    from qwen3_ops.plan import make_plan

    class Usage:
        free = 700 * 10**9

    monkeypatch.setattr(capacity.shutil, "disk_usage", lambda place: Usage)
    assert make_plan(machine.request("full_sft"), stages=FULL_SFT, run_id="r").findings == []
    with pytest.raises(PlanRefused, match="keep_last") as error:
        make_plan(machine.request("full_sft", keep_last=5), stages=FULL_SFT, run_id="r")
    assert "train_full 1033." in str(error.value)
    assert error.value.forecast is not None


def test_the_longest_records_that_fit_are_told(machine):
    (finding,) = machine.findings(device_memory=64)
    assert "records up to" in finding.values
    longest = int(finding.values.split("records up to ")[1].split()[0])
    assert 1000 < longest < 4096
    assert machine.findings(device_memory=64, seq_length=longest) == []
    assert machine.findings(device_memory=64, seq_length=longest + 8) != []


def test_what_a_pipeline_does_not_do_is_not_looked_at(machine):
    """Data preparation alone needs neither MindSpeed-LLM nor devices."""
    from qwen3_ops import rules
    from qwen3_ops.model import ModelSpec
    from qwen3_ops.pipelines import LORA_SFT
    from qwen3_ops.request import resolve

    run, _ = resolve(machine.request(mindspeed_dir="/none", device_memory=1, nproc_per_node=1, master_port=16666))
    stages = [stage for stage in LORA_SFT if stage.name == "prepare_dataset"]
    assert rules.apply(run, ModelSpec.from_hf(machine.model), stages=stages) == []
    assert rules.apply(run, ModelSpec.from_hf(machine.model), stages=LORA_SFT) != []
