"""The runbook's commands, held to what its edited scripts really start."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from qwen3_ops.errors import BadInput
from qwen3_ops.report import print_command
from qwen3_ops.runbook import RUNBOOK, render_command

COMMANDS = sorted((Path(__file__).parent / "data" / "commands").glob("*.json"))


def name_of(path):
    return re.sub(r"^\d+_", "", path.stem)


def rendered(name, **overrides):
    return render_command(name, overrides=overrides, model_dir=None, fidelity="runbook").command


@pytest.mark.parametrize("path", COMMANDS, ids=name_of)
def test_a_command_is_the_runbooks_own(path):
    truth = json.loads(path.read_text())
    assert rendered(name_of(path)).model_dump() == {key: truth[key] for key in ("env", "cwd", "argv")}


@pytest.mark.parametrize("path", [path for path in COMMANDS if "multinode" in path.name], ids=name_of)
def test_with_shared_storage_one_flag_goes(path):
    truth = json.loads(path.read_text())
    assert rendered(name_of(path), no_shared_storage=False).argv == truth["argv_shared_storage"]


def test_every_name_has_its_truth():
    assert {name_of(path) for path in COMMANDS} == set(RUNBOOK)


SIZES = ("0.6B", "1.7B", "4B", "8B", "14B", "32B")
SHAPE = {
    "0.6B": ("28", "1024", "3072", "16"),
    "1.7B": ("28", "2048", "6144", "16"),
    "4B": ("36", "2560", "9728", "32"),
    "8B": ("36", "4096", "12288", "32"),
    "14B": ("40", "5120", "17408", "40"),
    "32B": ("64", "5120", "25600", "64"),
}  # the table of the model's makers
TRAININGS = [name for name in RUNBOOK if "sft" in name or name == "pretrain" or "multinode" in name]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*TRAININGS, "generate_full", "mmlu_lora"])
def test_the_models_shape_comes_from_its_config(name, size):
    argv = rendered(name, model_dir=f"/models/Qwen3-{size}").argv
    flags = ("--num-layers", "--hidden-size", "--ffn-hidden-size", "--num-attention-heads")
    assert tuple(argv[argv.index(flag) + 1] for flag in flags) == SHAPE[size]
    assert ("--untie-embeddings-and-output-weights" in argv) == (size in ("8B", "14B", "32B"))
    assert argv[argv.index("--kv-channels") + 1] == "128"


def test_a_config_of_any_kind_is_read(tmp_path):
    config = {
        "model_type": "qwen3",
        "num_hidden_layers": 6,
        "hidden_size": 96,
        "intermediate_size": 160,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 24,
        "vocab_size": 1000,
        "rms_norm_eps": 2.5e-5,
        "max_position_embeddings": 777,
        "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
        "dtype": "float32",
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = render_command("full_sft_alpaca", overrides={}, model_dir=tmp_path, fidelity="runbook").command
    argv = command.argv
    for flag, value in {
        "--num-query-groups": "3",
        "--kv-channels": "24",
        "--norm-epsilon": "2.5e-5",
        "--rotary-base": "500000",
        "--max-position-embeddings": "777",
        "--padded-vocab-size": "1000",
    }.items():
        assert argv[argv.index(flag) + 1] == value
    assert not {"--bf16", "--fp16", "--untie-embeddings-and-output-weights"} & set(argv)
    assert argv[argv.index("--tokenizer-name-or-path") + 1] == "/apps/hw/weights/Qwen3-14B/"


def test_the_mixture_of_experts_is_rendered():
    for name in ("pretrain", "full_sft_alpaca", "lora_sft_alpaca", "generate_full"):
        argv = rendered(name, model_dir="/m/Qwen3-30B-A3B", expert_model_parallel_size=8).argv
        assert argv[argv.index("--num-experts") + 1] == "128"
        assert argv[argv.index("--expert-model-parallel-size") + 1] == "8"
        assert argv[argv.index("--num-query-groups") + 1] == "4"
    converted = rendered("hf2mcore", model_dir="/m/Qwen3-30B-A3B", expert_model_parallel_size=8).argv
    assert converted[converted.index("--model-type-hf") + 1] == "qwen3-moe"
    assert converted[converted.index("--target-expert-parallel-size") + 1] == "8"
    assert "--num-experts" not in rendered("pretrain").argv


OVERRIDES = {
    "train_iters": ("7", "--train-iters"),
    "micro_batch_size": ("3", "--micro-batch-size"),
    "global_batch_size": ("24", "--global-batch-size"),
    "seq_length": ("2048", "--seq-length"),
    "lr": ("3e-5", "--lr"),
    "min_lr": ("1e-9", "--min-lr"),
    "weight_decay": ("0.05", "--weight-decay"),
    "lr_decay_style": ("constant", "--lr-decay-style"),
    "lr_warmup_fraction": ("0.2", "--lr-warmup-fraction"),
    "clip_grad": ("0.5", "--clip-grad"),
    "adam_beta1": ("0.8", "--adam-beta1"),
    "adam_beta2": ("0.999", "--adam-beta2"),
    "seed": ("1", "--seed"),
    "split": ("98,1,1", "--split"),
    "save_interval": ("5", "--save-interval"),
    "log_interval": ("9", "--log-interval"),
    "tensor_model_parallel_size": ("4", "--tensor-model-parallel-size"),
    "pipeline_model_parallel_size": ("2", "--pipeline-model-parallel-size"),
    "context_parallel_size": ("2", "--context-parallel-size"),
    "num_layers_per_virtual_pipeline_stage": ("2", "--num-layers-per-virtual-pipeline-stage"),
    "recompute_granularity": ("full", "--recompute-granularity"),
    "nproc_per_node": ("16", "--nproc_per_node"),
    "nnodes": ("4", "--nnodes"),
    "master_port": ("29500", "--master_port"),
    "model_dir": ("/w/Qwen3-14B", "--tokenizer-name-or-path"),
}


@pytest.mark.parametrize("name", ["full_sft_sharegpt", "lora_sft_alpaca", "pretrain"])
@pytest.mark.parametrize("fidelity", ["runbook", "mended"])
@pytest.mark.parametrize("field", OVERRIDES)
def test_an_override_reaches_its_flag(name, fidelity, field):
    value, flag = OVERRIDES[field]
    shown = render_command(name, overrides={field: value}, model_dir=None, fidelity=fidelity)
    argv = shown.command.argv
    assert argv.count(flag) == 1
    assert argv[argv.index(flag) + 1] == value


def test_what_has_no_flag_reaches_the_environment():
    env = rendered(
        "lora_sft_alpaca", hccl_if_base_port=40000, hccl_connect_timeout=3600, socket_ifname="eth0", pytorch_npu_alloc_conf="x:True"
    ).env
    assert env == {
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        "PYTORCH_NPU_ALLOC_CONF": "x:True",
        "HCCL_CONNECT_TIMEOUT": "3600",
        "HCCL_IF_BASE_PORT": "40000",
        "HCCL_SOCKET_IFNAME": "eth0",
        "GLOO_SOCKET_IFNAME": "eth0",
    }


def test_hosts_give_the_master_and_the_ranks():
    for node in (0, 1):
        hosts = {"hosts": "10.1.0.7, 10.1.0.8"}
        command = render_command(f"multinode_pretrain_node{node}", overrides=hosts, model_dir=None, fidelity="mended").command
        assert command.env["HCCL_IF_IP"] == ("10.1.0.7", "10.1.0.8")[node]
        argv = command.argv
        assert argv[argv.index("--master_addr") + 1] == "10.1.0.7"
        assert argv[argv.index("--node_rank") + 1] == str(node)


@pytest.mark.parametrize(
    ("name", "fidelity", "changes"),
    [
        ("multinode_pretrain_node1", "mended", {"hosts": "10.1.0.7,10.1.0.8", "socket_ifname": "eth0"}),
        ("multinode_pretrain_node1", "mended", {"hosts": "npu-a,npu-b"}),
        ("multinode_pretrain_node1", "runbook", {"hosts": "10.1.0.7,10.1.0.8"}),
        ("pretrain", "mended", {"hosts": "10.1.0.7"}),
    ],
)
def test_an_interface_a_name_or_the_runbook_says_no_address(name, fidelity, changes):
    assert "HCCL_IF_IP" not in render_command(name, overrides=changes, model_dir=None, fidelity=fidelity).command.env


MENDS = {
    "full_sft_alpaca": {"--save-interval", "--use-distributed-optimizer", "--exit-on-missing-checkpoint", "--tensorboard-dir",
                        "--exit-signal-handler", "--log-throughput", "HCCL_CONNECT_TIMEOUT"},
    "lora_sft_alpaca": {"--save-interval", "--sequence-parallel", "--no-shared-storage", "--initial-loss-scale", "--tensorboard-dir",
                        "--exit-signal-handler", "--norm-epsilon", "--max-position-embeddings", "--tokenizer-not-use-fast",
                        "--lora-ckpt-filter", "PYTORCH_NPU_ALLOC_CONF"},
    "multinode_lora_sft_alpaca_node1": {"--save-interval", "--sequence-parallel", "--initial-loss-scale", "--tensorboard-dir",
                        "--exit-signal-handler", "--norm-epsilon", "--max-position-embeddings", "--tokenizer-not-use-fast",
                        "--lora-ckpt-filter", "PYTORCH_NPU_ALLOC_CONF"},
    "pretrain": {"--save-interval", "--exit-on-missing-checkpoint", "--tensorboard-dir", "--exit-signal-handler", "--finetune",
                 "HCCL_CONNECT_TIMEOUT"},
    "generate_lora": {"--use-rotary-position-embeddings", "--exit-on-missing-checkpoint", "--task", "--prompt-type", "HCCL_CONNECT_TIMEOUT"},
    "mmlu_full": {"--use-rotary-position-embeddings", "--exit-on-missing-checkpoint", "PYTORCH_NPU_ALLOC_CONF", "HCCL_CONNECT_TIMEOUT"},
    "lora_merge_mcore2mcore": {"--params-dtype"},
    "lora_mcore2hf": {"--params-dtype", "--save-dir"},
    "mcore2hf": {"--save-dir"},
    "data_openai": {"--prompt-type"},
    "hf2mcore": set(),
    "data_alpaca": set(),
}  # fmt: skip


@pytest.mark.parametrize("name", MENDS)
def test_the_runbooks_faults_are_mended_and_named(name):
    shown = render_command(name, overrides={}, model_dir=None, fidelity="mended")
    assert {mend.flag for mend in shown.mends} == MENDS[name]
    assert all(mend.why for mend in shown.mends)
    assert render_command(name, overrides={}, model_dir=None, fidelity="runbook").mends == ()


def test_nothing_is_written_beside_the_base_weights():
    for name in ("mcore2hf", "lora_mcore2hf"):
        argv = render_command(name, overrides={}, model_dir=None, fidelity="mended").command.argv
        assert not argv[argv.index("--save-dir") + 1].startswith("/apps/hw/weights")


def test_sequence_parallelism_goes_without_tensor_parallelism():
    changes = {"tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 8}
    shown = render_command("full_sft_alpaca", overrides=changes, model_dir=None, fidelity="mended")
    assert "--sequence-parallel" not in shown.command.argv
    assert "--sequence-parallel" in {mend.flag for mend in shown.mends}


def test_the_newer_line_has_another_converter_and_other_flags():
    newer = {"mindspeed_version": "26.0.0"}
    argv = rendered("hf2mcore", **newer).argv
    assert argv[1] == "convert_ckpt_v2.py"
    assert not {"--use-mcore-models", "--params-dtype", "--spec", "--tokenizer-model"} & set(argv)
    argv = rendered("lora_mcore2hf", **newer).argv
    assert argv[argv.index("--hf-cfg-dir") + 1] == "/apps/hw/weights/Qwen3-14B/"
    assert "--lora-load" in argv
    argv = rendered("full_sft_alpaca", **newer).argv
    assert argv[-2:] == ["--transformer-impl", "local"]
    assert "--no-pad-to-seq-lengths" in argv
    assert "--variable-seq-lengths" not in argv
    assert rendered("lora_merge_mcore2mcore", **newer).argv[1] == "convert_ckpt.py"
    assert rendered("data_alpaca", **newer) == rendered("data_alpaca")


def test_a_shell_would_start_the_shown_command(capsys):
    shown = render_command("data_openai", overrides={"input": "/data/with space.jsonl"}, model_dir=None, fidelity="runbook")
    print_command(shown.command, shown.mends)
    script = capsys.readouterr().out.replace("cd /apps", "true /apps").replace("python \\\n    ./preprocess_data.py", "printf '%s\\0'", 1)
    said = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True).stdout
    assert said.split("\0")[:-1] == shown.command.argv[2:]


@pytest.mark.parametrize("path", COMMANDS, ids=name_of)
def test_the_runbooks_layouts_work(path):
    assert render_command(name_of(path), overrides={}, model_dir=None, fidelity="runbook").findings == ()


def test_bad_requests_are_told():
    with pytest.raises(BadInput, match="unknown command"):
        rendered("no_such")
    with pytest.raises(BadInput, match="did you mean train_iters"):
        rendered("pretrain", train_iter=3)
    with pytest.raises(BadInput, match="no such node"):
        rendered("multinode_pretrain_node1", nnodes=1)
    with pytest.raises(BadInput, match=r"config\.json is not there"):
        rendered("pretrain", model_dir="/no/such/Model")
