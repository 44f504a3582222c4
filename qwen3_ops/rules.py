"""The plan's rules: each looks at a run and yields what is wrong with it.

A rule names the fields it reads; it is left out when one of them has no valid value.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.model import ModelSpec

_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}


@dataclass(frozen=True, kw_only=True)
class Rule:
    fields: tuple[str, ...]
    check: Callable[..., Iterator[Finding]]
    needs_model: bool


RULES: list[Rule] = []


def rule(*fields: str, needs_model: bool = False) -> Callable[[Callable[..., Iterator[Finding]]], Callable[..., Iterator[Finding]]]:
    def register(check: Callable[..., Iterator[Finding]]) -> Callable[..., Iterator[Finding]]:
        RULES.append(Rule(fields=fields, check=check, needs_model=needs_model))
        return check

    return register


@rule("tensor_model_parallel_size", needs_model=True)
def tensor_parallel_fits_model(run: RunConfig, model: ModelSpec) -> Iterator[Finding]:
    tp = run.tensor_model_parallel_size
    for name, size in (
        ("num_attention_heads", model.num_attention_heads),
        ("num_query_groups (num_key_value_heads)", model.num_query_groups),
        ("ffn_hidden_size", model.ffn_hidden_size),
        ("hidden_size", model.hidden_size),
    ):
        if size % tp:
            yield Finding(
                rule=f"{name} must be divisible by tensor_model_parallel_size",
                fields=("tensor_model_parallel_size",),
                values=f"{name} = {size}, tensor_model_parallel_size = {tp}",
                consequence="the weights can not be cut, conversion and training would stop",
                remedy=f"choose one of {_divisors(model.num_query_groups)}",
            )


@rule("pipeline_model_parallel_size", needs_model=True)
def pipeline_parallel_fits_model(run: RunConfig, model: ModelSpec) -> Iterator[Finding]:
    pp = run.pipeline_model_parallel_size
    if model.num_layers % pp:
        yield Finding(
            rule="num_layers must be divisible by pipeline_model_parallel_size",
            fields=("pipeline_model_parallel_size",),
            values=f"num_layers = {model.num_layers}, pipeline_model_parallel_size = {pp}",
            consequence="layers would be left out without a word, and the converter leaves a partial checkpoint that looks valid",
            remedy=f"choose one of {_divisors(model.num_layers)}",
        )


@rule("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size", "nproc_per_node", "nnodes")
def layout_fits_devices(run: RunConfig) -> Iterator[Finding]:
    world = run.nproc_per_node * run.nnodes
    parallel = run.tensor_model_parallel_size * run.pipeline_model_parallel_size * run.context_parallel_size
    if world % parallel:
        yield Finding(
            rule="nproc_per_node * nnodes must be divisible by tensor * pipeline * context parallel size",
            fields=("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size", "nproc_per_node", "nnodes"),
            values=f"{run.nproc_per_node} * {run.nnodes} = {world} devices; {run.tensor_model_parallel_size} * "
            f"{run.pipeline_model_parallel_size} * {run.context_parallel_size} = {parallel}",
            consequence="Megatron lowers TP and PP without a word, or stops; the checkpoint no longer fits",
            remedy="change the sizes so that their product divides the number of devices",
        )


@rule("context_parallel_size", "engine")
def engine_has_context_parallel(run: RunConfig) -> Iterator[Finding]:
    if run.context_parallel_size != 1 and run.engine == "native":
        yield Finding(
            rule="the native engine computes whole sequences",
            fields=("context_parallel_size", "engine"),
            values=f"context_parallel_size = {run.context_parallel_size}, engine = {run.engine}",
            consequence="training would refuse the flag",
            remedy="set context_parallel_size to 1",
        )


@rule(
    "global_batch_size",
    "micro_batch_size",
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "context_parallel_size",
    "nproc_per_node",
    "nnodes",
)
def batches_divide(run: RunConfig) -> Iterator[Finding]:
    world = run.nproc_per_node * run.nnodes
    parallel = run.tensor_model_parallel_size * run.pipeline_model_parallel_size * run.context_parallel_size
    if world % parallel:
        return  # told by layout_fits_devices; there is no data parallel size to reckon with
    dp = world // parallel
    if run.global_batch_size % (run.micro_batch_size * dp):
        yield Finding(
            rule="global_batch_size must be divisible by micro_batch_size * data parallel size",
            fields=("global_batch_size", "micro_batch_size"),
            values=f"global_batch_size = {run.global_batch_size}, micro_batch_size = {run.micro_batch_size}, data parallel size = {dp}",
            consequence="training stops at its start, on every device",
            remedy=f"choose a multiple of {run.micro_batch_size * dp}",
        )


@rule("seq_length", needs_model=True)
def sequence_fits_model(run: RunConfig, model: ModelSpec) -> Iterator[Finding]:
    if run.seq_length > model.max_position_embeddings:
        yield Finding(
            rule="seq_length must not exceed max_position_embeddings",
            fields=("seq_length",),
            values=f"seq_length = {run.seq_length}, max_position_embeddings = {model.max_position_embeddings}",
            consequence="Megatron stops with an assertion that has no message",
            remedy=f"choose at most {model.max_position_embeddings}",
        )


@rule("lr", "min_lr")
def learning_rates_ordered(run: RunConfig) -> Iterator[Finding]:
    if run.min_lr > run.lr:
        yield Finding(
            rule="min_lr must not exceed lr",
            fields=("min_lr", "lr"),
            values=f"min_lr = {run.min_lr}, lr = {run.lr}",
            consequence="training stops at its start",
            remedy="lower min_lr",
        )


@rule("save_interval", "train_iters")
def something_to_resume(run: RunConfig) -> Iterator[Finding]:
    if run.save_interval is not None and run.save_interval >= run.train_iters:
        yield Finding(
            rule="save_interval should be smaller than train_iters",
            fields=("save_interval",),
            values=f"save_interval = {run.save_interval}, train_iters = {run.train_iters}",
            consequence="a crash before the end loses everything",
            remedy="save several times in a run",
            severity="warn",
        )


@rule("model_dir")
def model_is_complete(run: RunConfig) -> Iterator[Finding]:
    folder = Path(run.model_dir)
    if not _is_absolute_folder(folder):
        yield _missing("model_dir", folder, "an absolute path of an existing folder")
        return
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            yield _missing("model_dir", folder / name, f"a folder with {name}")
    if not any(folder.glob("*.safetensors")):
        yield _missing("model_dir", folder / "*.safetensors", "a folder with the weights as safetensors")


@rule("input")
def data_is_there(run: RunConfig) -> Iterator[Finding]:
    source = Path(run.input)
    if not source.is_absolute() or not source.exists():
        yield _missing("input", source, "an absolute path of an existing file or folder")


@rule("data_shards", "cpu_engine")
def parts_are_ours(run: RunConfig) -> Iterator[Finding]:
    if run.data_shards > 1 and run.cpu_engine != "native":
        yield Finding(
            rule="data_shards above 1 needs the native engine",
            fields=("data_shards", "cpu_engine"),
            values=f"data_shards = {run.data_shards}, cpu_engine = {run.cpu_engine}",
            consequence="preprocess_data.py can not prepare a part",
            remedy="set data_shards to 1, or cpu_engine to native",
        )


@rule("task_data_path")
def questions_are_there(run: RunConfig) -> Iterator[Finding]:
    folder = Path(run.task_data_path)
    if not _is_absolute_folder(folder):
        yield _missing("task_data_path", folder, "an absolute path of an existing folder")
    elif not any(folder.glob("*_test.csv")):
        yield _missing("task_data_path", folder / "*_test.csv", "a folder with <subject>_test.csv files")


@rule("output_root", "model_dir")
def output_is_elsewhere(run: RunConfig) -> Iterator[Finding]:
    root, model = Path(run.output_root), Path(run.model_dir)
    if not root.is_absolute():
        yield _missing("output_root", root, "an absolute path")
        return
    if root == model or model in root.parents:
        yield Finding(
            rule="output_root must lie outside model_dir",
            fields=("output_root", "model_dir"),
            values=f"output_root = {root}, model_dir = {model}",
            consequence="results would be written beside the base weights",
            remedy="choose another folder",
        )
    standing = _nearest_existing(root)
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        yield Finding(
            rule="output_root must be writable",
            fields=("output_root",),
            values=f"{standing} can not be written by user id {os.geteuid()}",
            consequence="the first stage would fail",
            remedy="choose another folder or change its permissions",
        )


@rule("prompt_type", "handler_name", "model_dir")
def template_fits_tokenizer(run: RunConfig) -> Iterator[Finding]:
    from qwen3_ops.native.data.templates import TEMPLATES
    from qwen3_ops.native.data.tokenizer import missing_tokens

    if run.handler_name == "GeneralPretrainHandler" or not (Path(run.model_dir) / "tokenizer.json").is_file():
        return
    if run.prompt_type not in TEMPLATES:
        yield Finding(
            rule="prompt_type must be a known template",
            fields=("prompt_type",),
            values=f"prompt_type = {run.prompt_type}",
            consequence="data preparation would stop",
            remedy=f"choose one of {', '.join(sorted(TEMPLATES))}",
        )
        return
    missing = missing_tokens(Path(run.model_dir), run.prompt_type)
    if missing:
        yield Finding(
            rule="the tokenizer must have the template's special tokens",
            fields=("prompt_type", "model_dir"),
            values=f"template {run.prompt_type} needs {' '.join(missing)}, which {run.model_dir}/tokenizer.json lacks",
            consequence="the tokens would be spelled out in pieces and the model would never learn to stop",
            remedy="choose the template of this model family, or the right tokenizer",
        )


@rule("output_root", needs_model=True)
def disk_is_large_enough(run: RunConfig, model: ModelSpec) -> Iterator[Finding]:
    standing = _nearest_existing(Path(run.output_root))
    copies = 3  # converted, merged, exported
    needed = copies * model.num_parameters * _BYTES[model.params_dtype]
    free = shutil.disk_usage(standing).free
    if needed > free:
        yield Finding(
            rule="the disk below output_root must hold the converted, the merged and the exported weights",
            fields=("output_root",),
            values=f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free on {standing}",
            consequence="a stage would fail when the disk is full, after hours",
            remedy="free space or choose another folder",
        )


def _missing(field: str, path: Path, wanted: str) -> Finding:
    return Finding(
        rule=f"{field} must be {wanted}",
        fields=(field,),
        values=f"{path} {'is not absolute' if not path.is_absolute() else 'does not exist'}",
        consequence="a stage would fail, or train on random weights",
        remedy="check the path, as the machine that runs the stages sees it",
    )


def _is_absolute_folder(path: Path) -> bool:
    return path.is_absolute() and path.is_dir()


def _nearest_existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _divisors(number: int) -> str:
    return ", ".join(str(size) for size in range(1, number + 1) if number % size == 0)
