"""How a model is cut over devices (Megatron ``arguments.py``, MindSpeed-LLM's own checks)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.layout import data_parallel_size, world_size
from qwen3_ops.model import ModelSpec
from qwen3_ops.pipelines import StageRequest
from qwen3_ops.rules.registry import rule

_SIZES = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size", "nproc_per_node", "nnodes")


@rule("tensor_model_parallel_size", about="weights")
def tensor_parallel_fits_model(run: RunConfig, model: ModelSpec) -> Iterator[Finding]:
    tp = run.tensor_model_parallel_size
    for name, size in (
        ("num_attention_heads", model.num_attention_heads),
        ("num_query_groups (num_key_value_heads)", model.num_query_groups),
        ("ffn_hidden_size", model.ffn_hidden_size),
        ("hidden_size", model.hidden_size),
        ("padded_vocab_size", model.padded_vocab_size),
    ):
        if size % tp:
            yield Finding(
                rule=f"{name} must be divisible by tensor_model_parallel_size",
                fields=("tensor_model_parallel_size",),
                values=f"{name} = {size}, tensor_model_parallel_size = {tp}",
                consequence="the weights can not be cut, conversion and training would stop",
                remedy=f"choose one of {divisors(model.num_query_groups)}",
            )


@rule("pipeline_model_parallel_size", about="weights")
def pipeline_parallel_fits_model(run: RunConfig, model: ModelSpec) -> Iterator[Finding]:
    pp = run.pipeline_model_parallel_size
    if model.num_layers % pp:
        yield Finding(
            rule="num_layers must be divisible by pipeline_model_parallel_size",
            fields=("pipeline_model_parallel_size",),
            values=f"num_layers = {model.num_layers}, pipeline_model_parallel_size = {pp}",
            consequence="layers would be left out without a word, and the converter leaves a partial checkpoint that looks valid",
            remedy=f"choose one of {divisors(model.num_layers)}",
        )


@rule(*_SIZES, about="devices")
def layout_fits_devices(run: RunConfig) -> Iterator[Finding]:
    world = world_size(run)
    tp, pp, cp = run.tensor_model_parallel_size, run.pipeline_model_parallel_size, run.context_parallel_size
    if tp * pp * cp > world:
        yield Finding(
            rule="tensor * pipeline * context parallel size must not exceed nproc_per_node * nnodes",
            fields=_SIZES,
            values=f"{run.nproc_per_node} * {run.nnodes} = {world} devices; {tp} * {pp} * {cp} = {tp * pp * cp}",
            consequence=f"Megatron lowers the sizes without a word, here to TP{min(tp, world)} PP{min(pp, world // min(tp, world))}: "
            "the checkpoint no longer fits",
            remedy="give more devices, or lower the sizes",
        )
    elif world % (tp * pp * cp):
        yield Finding(
            rule="nproc_per_node * nnodes must be divisible by tensor * pipeline * context parallel size",
            fields=_SIZES,
            values=f"{run.nproc_per_node} * {run.nnodes} = {world} devices; {tp} * {pp} * {cp} = {tp * pp * cp}",
            consequence="training stops at its start, on every device",
            remedy="change the sizes so that their product divides the number of devices",
        )


@rule("context_parallel_size", "context_parallel_algo", "tensor_model_parallel_size", "seq_length", "engine", about="training")
def context_parallel_fits(run: RunConfig, model: ModelSpec) -> Iterator[Finding]:
    cp, tp = run.context_parallel_size, run.tensor_model_parallel_size
    if cp == 1 or run.engine == "native":
        return
    rules = (
        ("seq_length must be a multiple of 2 * context_parallel_size", ("seq_length",), run.seq_length, 2 * cp),
        (
            "num_attention_heads must be divisible by tensor * context parallel size with ulysses_cp_algo",
            ("context_parallel_algo",),
            model.num_attention_heads if run.context_parallel_algo == "ulysses_cp_algo" else 0,
            tp * cp,
        ),
        (
            "records are padded to multiples of 8, which tensor * context parallel size must divide",
            ("tensor_model_parallel_size",),
            8,
            tp * cp,
        ),
    )
    for text, fields, number, by in rules:
        if number % by:
            yield Finding(
                rule=text,
                fields=("context_parallel_size", *fields),
                values=f"{number} by {by}; context_parallel_size = {cp}, tensor_model_parallel_size = {tp}",
                consequence="training stops at its start",
                remedy="lower context_parallel_size",
            )


@rule("num_layers_per_virtual_pipeline_stage", "pipeline_model_parallel_size", "engine", about="weights")
def virtual_stages_fit(run: RunConfig, model: ModelSpec, stages: Sequence[StageRequest]) -> Iterator[Finding]:
    chunk, pp = run.num_layers_per_virtual_pipeline_stage, run.pipeline_model_parallel_size
    if chunk is None or model.num_layers % pp:
        return
    layers = model.num_layers // pp
    problems = {
        "virtual stages need a pipeline": pp == 1,
        "num_layers_per_virtual_pipeline_stage must divide the layers of a stage and be smaller": bool(layers % chunk) or chunk >= layers,
        "Megatron can not generate with virtual stages": run.engine == "mindspeed"
        and any(stage.stage in ("generate", "evaluate_mmlu") for stage in stages),
        "MindSpeed-LLM can not merge LoRA into virtual stages": any(stage.stage.endswith(("merge_lora", "lora_to_hf")) for stage in stages),
    }
    for text in [text for text, found in problems.items() if found]:
        yield Finding(
            rule=text,
            fields=("num_layers_per_virtual_pipeline_stage", "pipeline_model_parallel_size"),
            values=f"num_layers = {model.num_layers}, pipeline_model_parallel_size = {pp}, layers per virtual stage = {chunk}",
            consequence="conversion, training or merging stops",
            remedy="leave num_layers_per_virtual_pipeline_stage empty",
        )


@rule("expert_model_parallel_size", *_SIZES, about="weights")
def expert_parallel_fits(run: RunConfig, model: ModelSpec) -> Iterator[Finding]:
    ep = run.expert_model_parallel_size
    dp = max(1, data_parallel_size(run))
    if ep == 1:
        return
    if model.num_experts is None or model.num_experts % ep or dp % ep:
        yield Finding(
            rule="expert_model_parallel_size must divide the model's experts and the data parallel size",
            fields=("expert_model_parallel_size",),
            values=f"expert_model_parallel_size = {ep}, experts = {model.num_experts or 'none'}, data parallel size = {dp}",
            consequence="training stops at its start",
            remedy="choose 1" if model.num_experts is None else f"choose a divisor of {dp}",
        )


@rule("sequence_parallel", "tensor_model_parallel_size", "engine", about="training")
def activations_are_cut(run: RunConfig) -> Iterator[Finding]:
    if run.engine == "mindspeed" and run.tensor_model_parallel_size > 1 and not run.sequence_parallel:
        yield Finding(
            rule="sequence_parallel should be on with tensor parallelism",
            fields=("sequence_parallel",),
            values=f"tensor_model_parallel_size = {run.tensor_model_parallel_size}, sequence_parallel = false",
            consequence="every tensor rank holds the activations between its layers whole",
            remedy="set sequence_parallel",
            severity="warn",
        )


def divisors(number: int) -> str:
    return ", ".join(str(size) for size in range(1, number + 1) if number % size == 0)
