"""Dataset preparation (runbook 4.1.2, 4.2.2, 6.1)."""

from __future__ import annotations

from qwen3_ops.config import RunConfig
from qwen3_ops.model import ModelSpec
from qwen3_ops.stages.paths import Paths

_NAMES = {
    "AlpacaStyleInstructionHandler": "alpaca",
    "SharegptStyleInstructionHandler": "sharegpt",
    "GeneralPretrainHandler": "pretrain",
}


def prepare_dataset(run: RunConfig, model: ModelSpec, paths: Paths) -> list[str]:
    return [
        *("--input", paths.source),
        *("--tokenizer-name-or-path", paths.tokenizer),
        *("--output-prefix", prefix(run, paths.output)),
        *("--handler-name", run.handler_name),
        *("--tokenizer-type", "PretrainedFromHF"),
        *("--workers", str(run.workers)),
        *("--log-interval", "1000"),
        *(("--json-keys", "text") if is_pretraining(run) else ("--prompt-type", run.prompt_type)),
        *(("--map-keys", run.map_keys) if run.map_keys else ()),
    ]


def is_pretraining(run: RunConfig) -> bool:
    return run.handler_name == "GeneralPretrainHandler"


def prefix(run: RunConfig, folder: str) -> str:
    """Path prefix of the .bin/.idx files in a data set's folder."""
    return f"{folder}/{_NAMES[run.handler_name]}"


def data_path(run: RunConfig, folder: str) -> str:
    """What training's ``--data-path`` wants: pre-training names the files, fine-tuning the prefix."""
    return prefix(run, folder) + ("_text_document" if is_pretraining(run) else "")
