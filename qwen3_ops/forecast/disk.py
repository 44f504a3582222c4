"""Bytes that a run's artifacts take."""

from __future__ import annotations

from pathlib import Path

from qwen3_ops.config import RunConfig
from qwen3_ops.forecast.parameters import adapter_parameters
from qwen3_ops.model import ModelSpec
from qwen3_ops.stages.blanks import is_pretraining

_OPTIMIZER = 12
"""Bytes a trained weight: two moments and a copy of it, in fp32."""

_REPORT = 20_000_000
"""A generation or evaluation: answers and logs."""


def artifact_bytes(run: RunConfig, model: ModelSpec, stage: str) -> int:
    """Of one stage at its fullest: a training's last checkpoints and the one that is being written."""
    width = 4 if model.params_dtype == "fp32" else 2
    weights = width * model.num_parameters
    if stage in ("train_full", "pretrain"):
        return checkpoints_kept(run) * (weights + _OPTIMIZER * model.num_parameters)
    if stage == "train_lora":
        adapter = adapter_parameters(run, model)
        base = weights if run.fidelity == "runbook" else 0  # without --lora-ckpt-filter every save holds the base again
        return checkpoints_kept(run) * (base + (width + _OPTIMIZER) * adapter)
    if stage == "prepare_dataset":
        return dataset_bytes(run)
    return _REPORT if stage in ("generate", "evaluate_mmlu") else weights


def checkpoints_kept(run: RunConfig) -> int:
    """Checkpoints on the disk at once, the one that is being written included."""
    saves = -(-run.train_iters // (run.save_interval or run.train_iters))
    return saves if run.keep_last is None else min(saves, run.keep_last + 1)


def dataset_bytes(run: RunConfig) -> int:
    """Four bytes a token, three times for conversations (tokens, mask, labels); about four characters make a token.

    Parquet stores text at about half its size.
    """
    source = Path(run.input)
    files = [source] if source.is_file() else [path for path in source.glob("*") if path.is_file()]
    characters = sum(path.stat().st_size * (2 if path.suffix == ".parquet" else 1) for path in files)
    return characters * (1 if is_pretraining(run) else 3)
