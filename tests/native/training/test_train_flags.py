"""Every training command of the runbook is understood; what can not be honoured is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.native.training.flags import FLAGS

COMMANDS = Path(__file__).parents[2] / "data" / "commands"
TRAINING = [path.stem for path in sorted(COMMANDS.glob("*.json")) if re.search("_(full_sft|lora_sft|pretrain)", path.stem)]
TRAINING = [name for name in TRAINING if name != "16_data_pretrain_enwiki"]


def argv_of(name: str) -> list[str]:
    command = json.loads((COMMANDS / f"{name}.json").read_text())
    argv = [*command["argv"], *command.get("optional_flags", [])]
    script = next(number for number, token in enumerate(argv) if token.endswith(".py"))
    return argv[script + 1 :]


@pytest.mark.parametrize("name", TRAINING)
def test_the_runbook(name: str) -> None:
    flags, _ = FLAGS.parse(argv_of(name))
    assert flags.layout == ParallelLayout(tensor_model_parallel_size=2, pipeline_model_parallel_size=4)
    assert flags.model_spec().num_parameters == 14_768_307_200
    assert flags.lora == ("lora" in name)
    assert (flags.stage == "sft") == ("sft" in name)
    assert flags.micro_batches * flags.micro_batch_size == flags.batch_size


def test_all_training_commands_are_here() -> None:
    assert len(TRAINING) >= 15


def test_the_lora_script_forgets_the_norm_epsilon() -> None:
    assert FLAGS.parse(argv_of("10_lora_sft_alpaca"))[0].norm_epsilon == 1e-5
    assert FLAGS.parse(argv_of("06_full_sft_alpaca"))[0].norm_epsilon == 1e-6


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--fp16"], "--bf16 and --fp16 exclude each other"),
        (["--neat-pack"], "needs --reset-position-ids"),
        (["--reset-attention-mask"], "needs --reset-position-ids"),
        (["--eod-mask-loss"], "for pre-training"),
        (["--loss-scale", "8"], "for --fp16"),
        (["--train-samples", "64"], "one of --train-iters and --train-samples"),
        (["--lr-decay-samples", "64"], r"--lr-\*-samples are for --train-samples"),
        (["--recompute-granularity", "full"], "needs --recompute-method"),
        (["--keep-best"], "--keep-best needs --keep-last"),
        (["--no-check-for-nan-in-loss-and-grad"], "--nan-policy skip"),
        (["--context-parallel-size", "2"], "--context-parallel-size 1"),
        (["--lora-r", "8"], "--lora-r and --lora-target-modules belong together"),
        (["--lora-target-modules", "linear_q"], "lora-target-modules"),
        (["--lr-warmup-iters", "5"], "excludes --lr-warmup-iters"),
        (["--moe-router-topk", "2"], "unknown flag"),
    ],
)
def test_refused(extra: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        FLAGS.parse([*argv_of("06_full_sft_alpaca"), *extra])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--global-batch-size": "17", "--micro-batch-size": "2"}, "not divisible by --micro-batch-size 2"),
        ({"--hidden-dropout": "0.1"}, "--hidden-dropout 0"),
        ({"--min-lr": "1"}, "exceeds --lr"),
        ({"--seq-length": "65536"}, "exceeds --max-position-embeddings"),
        ({"--num-query-groups": "7"}, "--num-attention-heads 40 is not divisible by 7"),
        ({"--pipeline-model-parallel-size": "3"}, "--num-layers 40 is not divisible by 3"),
        ({"--prompt-type": "qwen9"}, "no such template"),
        ({"--normalization": "LayerNorm"}, "--normalization RMSNorm"),
    ],
)
def test_contradictions(change: dict[str, str], message: str, edit: Any) -> None:
    argv = argv_of("06_full_sft_alpaca")
    for flag, value in change.items():
        argv[argv.index(flag) + 1] = value
    with pytest.raises(BadInput, match=message):
        FLAGS.parse(argv)


def test_megatrons_defaults_are_not_qwen3() -> None:
    """A shape flag that is forgotten is an error, not another model."""
    for flag in ("--qk-layernorm", "--swiglu", "--disable-bias-linear"):
        argv = [token for token in argv_of("06_full_sft_alpaca") if token != flag]
        with pytest.raises(BadInput, match=flag):
            FLAGS.parse(argv)
