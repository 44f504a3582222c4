"""Batch sizes and sequence lengths."""

from __future__ import annotations

from collections.abc import Iterator

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.layout import data_parallel_size, world_size
from qwen3_ops.model import ModelSpec
from qwen3_ops.rules.registry import rule

_BATCH = (
    "global_batch_size",
    "micro_batch_size",
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "context_parallel_size",
    "nproc_per_node",
    "nnodes",
)


@rule(*_BATCH, about="training")
def batches_divide(run: RunConfig) -> Iterator[Finding]:
    dp = data_parallel_size(run)
    parallel = run.tensor_model_parallel_size * run.pipeline_model_parallel_size * run.context_parallel_size
    if dp == 0 or world_size(run) % parallel:
        return  # told by layout_fits_devices; there is no data parallel size to reckon with
    if run.global_batch_size % (run.micro_batch_size * dp):
        yield Finding(
            rule="global_batch_size must be divisible by micro_batch_size * data parallel size",
            fields=("global_batch_size", "micro_batch_size"),
            values=f"global_batch_size = {run.global_batch_size}, micro_batch_size = {run.micro_batch_size}, data parallel size = {dp}",
            consequence="training stops at its start, on every device",
            remedy=f"choose a multiple of {run.micro_batch_size * dp}",
        )


@rule(*_BATCH, "engine", about="training")
def pipeline_is_kept_busy(run: RunConfig) -> Iterator[Finding]:
    dp, pp = data_parallel_size(run), run.pipeline_model_parallel_size
    if run.engine == "native" or dp == 0 or pp == 1:
        return
    micro_batches = run.global_batch_size // (run.micro_batch_size * dp)
    if 0 < micro_batches < pp:
        yield Finding(
            rule="a step should have at least as many micro batches as pipeline stages",
            fields=("global_batch_size", "micro_batch_size", "pipeline_model_parallel_size"),
            values=f"{micro_batches} micro batches (global_batch_size {run.global_batch_size} / micro_batch_size {run.micro_batch_size} "
            f"/ data parallel size {dp}), {pp} stages",
            consequence=f"devices wait for {(pp - 1) / (micro_batches + pp - 1):.0%} of a step",
            remedy="lower micro_batch_size or pipeline_model_parallel_size, or raise global_batch_size",
            severity="warn",
        )


@rule("seq_length", about="devices")
def sequence_fits_model(run: RunConfig, model: ModelSpec) -> Iterator[Finding]:
    if run.seq_length > model.max_position_embeddings:
        yield Finding(
            rule="seq_length must not exceed max_position_embeddings",
            fields=("seq_length",),
            values=f"seq_length = {run.seq_length}, max_position_embeddings = {model.max_position_embeddings}",
            consequence="Megatron stops with an assertion that has no message",
            remedy=f"choose at most {model.max_position_embeddings}",
        )
