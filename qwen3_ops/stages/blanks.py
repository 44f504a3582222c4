"""What stands in the blanks of the scripts: a run's fields, the model's shape, places, and switches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from qwen3_ops.config import RunConfig
from qwen3_ops.model import ModelSpec
from qwen3_ops.numbers import show
from qwen3_ops.stages.paths import Paths
from qwen3_ops.stages.script import Site

SPEC = ("--spec", "mindspeed_llm.tasks.models.spec.qwen3_spec", "layer_spec")

_PLACES = {"recipe", "model_dir", "input", "task_data_path", "output_root", "load"}
"""Fields that a script must take from Paths, where a request's identity has fingerprints."""


def blanks(site: Site) -> dict[str, list[str]]:
    """Every blank; empty lists for what this run or model does not have."""
    run, model, paths = site.run, site.model, site.paths
    return {
        **_fields(model),
        **{name: value for name, value in _fields(run).items() if name not in _PLACES},
        **_switches(run, model),
        **_places(run, paths),
        "spec": list(SPEC),
        "save_interval": [str(run.save_interval or run.train_iters)],
        "model_type_hf": [model.model_type.replace("_", "-")],
        "params_dtype": [model.params_dtype],
        "precision": [] if model.params_dtype == "fp32" else [f"--{model.params_dtype}"],
    }


def _fields(values: BaseModel) -> dict[str, list[str]]:
    return {name: _texts(name, getattr(values, name)) for name in type(values).model_fields}


def _texts(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name.replace('_', '-')}"] if value else []
    if isinstance(value, tuple):
        return [str(item) for item in value]
    if isinstance(value, float):
        return [show(value)]
    return [] if value is None else [str(value)]


def _switches(run: RunConfig, model: ModelSpec) -> dict[str, list[str]]:
    """Flags that are there or not, with their values: only where they differ from Megatron's default."""
    moe = model.num_experts is not None
    experts = run.expert_model_parallel_size
    chunk = run.num_layers_per_virtual_pipeline_stage
    context = run.context_parallel_size
    return {
        "untie": _given("--untie-embeddings-and-output-weights", model.untie_embeddings_and_output_weights),
        "not_linear": _given("--lr-decay-style", run.lr_decay_style != "linear", run.lr_decay_style),
        "context_parallel": _given("--context-parallel-size", context > 1, context)
        + _given("--context-parallel-algo", context > 1, run.context_parallel_algo),
        "virtual_stages": _given("--num-layers-per-virtual-pipeline-stage", chunk is not None, chunk),
        "recompute": [
            *_given("--recompute-granularity", run.recompute_granularity, run.recompute_granularity),
            *_given("--recompute-method", run.recompute_granularity == "full", run.recompute_method),
            *_given("--recompute-num-layers", run.recompute_granularity == "full", run.recompute_num_layers),
        ],
        "experts": _experts(run, model) if moe else [],
        "target_experts": ["--target-expert-parallel-size", str(experts), "--moe-grouped-gemm"] if moe else [],
        "map_keys_flag": _given("--map-keys", run.map_keys, run.map_keys),
        "max_eval_samples_flag": _given("--max-eval-samples", run.max_eval_samples, run.max_eval_samples),
        "keep_last_flag": _given("--keep-last", run.keep_last, run.keep_last),
    }


def _experts(run: RunConfig, model: ModelSpec) -> list[str]:
    """A mixture of experts, as in MindSpeed-LLM's own 30B-A3B scripts."""
    return [
        *("--num-experts", str(model.num_experts)),
        *("--moe-router-topk", str(model.moe_router_topk)),
        *("--moe-intermediate-size", str(model.moe_intermediate_size)),
        "--norm-topk-prob",
        "--moe-grouped-gemm",
        "--moe-permutation-async-comm",
        *("--moe-token-dispatcher-type", "alltoall"),
        *("--moe-router-load-balancing-type", "aux_loss"),
        *("--moe-aux-loss-coeff", "0.001"),
        *("--expert-model-parallel-size", str(run.expert_model_parallel_size)),
    ]


def _given(flag: str, condition: object, *values: object) -> list[str]:
    return [flag, *map(str, values)] if condition else []


def _places(run: RunConfig, paths: Paths) -> dict[str, list[str]]:
    dataset = paths.inputs.get("dataset")
    places: Mapping[str, Sequence[str]] = {
        "hf": [paths.model],
        "tokenizer": [paths.tokenizer],
        "tokenizer_json": [_inside(paths.tokenizer, "tokenizer.json")],
        "source": [paths.source],
        "tasks": [paths.tasks],
        "output": [paths.output],
        "prefix": [prefix(run, paths, paths.output)],
        "data_path": [] if dataset is None else [prefix(run, paths, dataset) + ("_text_document" if is_pretraining(run) else "")],
        "load": [] if paths.load is None else [paths.load],
        "logdir": [paths.output],
        **{name: [path] for name, path in paths.inputs.items() if name != "dataset"},
    }
    return {name: list(value) for name, value in places.items()}


def is_pretraining(run: RunConfig) -> bool:
    return run.handler_name == "GeneralPretrainHandler"


_NAMES = {
    "AlpacaStyleInstructionHandler": "alpaca",
    "SharegptStyleInstructionHandler": "sharegpt",
    "GeneralPretrainHandler": "pretrain",
}


def prefix(run: RunConfig, paths: Paths, folder: str) -> str:
    """Path prefix of the .bin/.idx files in a data set's folder."""
    return _inside(folder, paths.dataset_name or _NAMES[run.handler_name])


def _inside(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"
