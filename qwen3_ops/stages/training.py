"""Training (runbook 4.3, 5.2, 6.2) and what a second start of it must change."""

from __future__ import annotations

from collections.abc import Sequence

from qwen3_ops.config import RunConfig
from qwen3_ops.model import ModelSpec
from qwen3_ops.stages.dataset import data_path
from qwen3_ops.stages.model_flags import layout_flags, model_flags
from qwen3_ops.stages.paths import Paths


def train_lora(run: RunConfig, model: ModelSpec, paths: Paths) -> list[str]:
    return [
        *layout_flags(run),
        *model_flags(run, model, paths),
        *_optimization(run),
        *_data(run, paths),
        *_output(run, paths),
        *("--finetune", "--stage", "sft", "--is-instruction-dataset"),
        *("--prompt-type", run.prompt_type),
        "--variable-seq-lengths",
        *("--lora-r", str(run.lora_r)),
        *("--lora-alpha", str(run.lora_alpha)),
        *("--lora-target-modules", *run.lora_target_modules),
        "--lora-fusion",
        "--lora-ckpt-filter",  # the base weights are not stored again with every save
        *("--distributed-backend", "nccl"),
    ]


def resume(argv: Sequence[str], *, saved: str) -> list[str]:
    """``argv`` of a start that goes on from the last iteration saved in ``saved``.

    Without the flags that restart the schedule; LoRA weights alone are loaded over the base.
    """
    restarting = ("--finetune", "--no-load-optim", "--no-load-rng")
    kept = [token for token in argv if token not in restarting]
    if "--lora-r" in kept:
        return [*kept, "--lora-load", saved]
    kept[kept.index("--load") + 1] = saved
    return kept


def _optimization(run: RunConfig) -> list[str]:
    return [
        *("--train-iters", str(run.train_iters)),
        *("--micro-batch-size", str(run.micro_batch_size)),
        *("--global-batch-size", str(run.global_batch_size)),
        *("--lr", repr(run.lr)),
        *("--min-lr", repr(run.min_lr)),
        *("--lr-decay-style", run.lr_decay_style),
        *("--lr-warmup-fraction", repr(run.lr_warmup_fraction)),
        *("--weight-decay", repr(run.weight_decay)),
        *("--clip-grad", repr(run.clip_grad)),
        *("--adam-beta1", repr(run.adam_beta1)),
        *("--adam-beta2", repr(run.adam_beta2)),
        *("--seed", str(run.seed)),
    ]


def _data(run: RunConfig, paths: Paths) -> list[str]:
    return [
        *("--data-path", data_path(run, paths.inputs["dataset"])),
        *("--split", run.split),
    ]


def _output(run: RunConfig, paths: Paths) -> list[str]:
    return [
        *("--load", paths.inputs["checkpoint"]),
        *("--save", paths.output),
        *("--tensorboard-dir", f"{paths.output}/tensorboard"),
        *("--save-interval", str(min(run.save_interval, run.train_iters))),
        *("--log-interval", str(run.log_interval)),
        *("--eval-interval", str(run.train_iters)),
        *("--eval-iters", "0"),
        "--no-load-optim",
        "--no-load-rng",
        "--exit-on-missing-checkpoint",
    ]
