"""How whole tensors are made of shards and of Hugging Face's tensors: by runs of rows or of columns.

Everything that a conversion does to a weight is to take runs of its rows, or of its columns, and to
lay them side by side. `Runs` says which, so that cutting, joining and proving share one description.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.checkpoint.modules import cut_of, hf_names, shape_of
from qwen3_ops.native.checkpoint.tensor_spec import Bits


class Runs(NamedTuple):
    """The parts of a whole tensor that a stored one consists of, in its order.

    Attributes:
        axis: 0 for rows, 1 for columns.
        spans: (begin, end) of each run, ascending.
    """

    axis: int
    spans: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        return sum(end - begin for begin, end in self.spans)

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the stored tensor, cut from a whole one of shape ``whole``."""
        return (*whole[: self.axis], self.size, *whole[self.axis + 1 :])

    def take(self, whole: Bits) -> Bits:
        """The stored tensor; a view where it is one run."""
        parts = [whole[begin:end] if self.axis == 0 else whole[:, begin:end] for begin, end in self.spans]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=self.axis)


def shard_runs(name: str, shape: tuple[int, ...], parts: int) -> list[Runs]:
    """What each of ``parts`` tensor-parallel ranks holds of the whole tensor ``name``."""
    cut = cut_of(name)
    if cut == "whole" or (cut == "columns" and parts == 1):  # whole rows need no gathering
        return [Runs(0, ((0, shape[0]),))] * parts
    axis = 1 if cut == "columns" else 0
    halves = 2 if cut == "gated rows" else 1  # [gate; up] -> rank t holds [gate_t; up_t]
    size = shape[axis] // halves // parts
    starts = [half * size * parts for half in range(halves)]
    return [Runs(axis, tuple((start + tp * size, start + (tp + 1) * size) for start in starts)) for tp in range(parts)]


def hf_runs(name: str, model: ModelSpec) -> list[Runs]:
    """What each of Hugging Face's tensors (order of `hf_names`) is of the mcore tensor ``name``."""
    rows = shape_of(name, model)[0]
    if name.endswith("linear_qkv.weight"):  # per group: q*d rows of Wq, d rows of Wk, d rows of Wv
        d, groups = model.kv_channels, model.num_query_groups
        q = model.num_attention_heads // groups * d
        starts = [group * (q + 2 * d) for group in range(groups)]
        return [Runs(0, tuple((at + begin, at + end) for at in starts)) for begin, end in ((0, q), (q, q + d), (q + d, q + 2 * d))]
    if len(hf_names(name)) == 2:  # gate, up
        return [Runs(0, ((0, rows // 2),)), Runs(0, ((rows // 2, rows),))]
    return [Runs(0, ((0, rows),))]


def hf_shapes(name: str, model: ModelSpec) -> list[tuple[int, ...]]:
    """Shapes of `hf_names`, in their order."""
    return [runs.shape(shape_of(name, model)) for runs in hf_runs(name, model)]


def check_layout(model: ModelSpec, layout: ParallelLayout) -> None:
    """Raises BadInput when the model can not be cut this way."""
    tp, pp, ep = layout.tensor_model_parallel_size, layout.pipeline_model_parallel_size, layout.expert_model_parallel_size
    if min(tp, pp, ep) < 1:
        raise BadInput("parallel sizes must be at least 1", value=layout)
    columns = model.ffn_hidden_size if model.num_experts is None else model.moe_intermediate_size or 0
    for size, what, parts, flag in (
        (model.num_attention_heads, "attention heads", tp, "tensor"),
        (model.num_query_groups, "key/value groups", tp, "tensor"),
        (columns, "feed-forward columns", tp, "tensor"),
        (model.num_experts or ep, "experts", ep, "expert"),
    ):
        _check_division(size, what, parts, flag, layout)
    if model.num_experts is None and ep > 1:
        raise BadInput("a dense model has no experts to divide", value=layout, source="--target-expert-parallel-size")
    if model.num_attention_heads % model.num_query_groups:
        raise BadInput("heads must be a multiple of key/value groups", value=f"{model.num_attention_heads} and {model.num_query_groups}")
    _check_stages(model, layout)


def _check_division(size: int, what: str, parts: int, flag: str, layout: ParallelLayout) -> None:
    if size % parts:
        raise BadInput(
            f"{size} {what} can not be divided over {parts} {flag}-parallel ranks",
            value=layout,
            source=f"--target-{flag}-parallel-size",
            remedy=f"Choose a divisor of {size}.",
        )


def _check_stages(model: ModelSpec, layout: ParallelLayout) -> None:
    """Layers, no-ops and virtual stages; what Megatron refuses together is refused here."""
    pp, total = layout.pipeline_model_parallel_size, layout.total_layers(model.num_layers)
    per_chunk, counts, noops = layout.num_layers_per_virtual_pipeline_stage, layout.num_layer_list, layout.noop_layers
    if len(set(noops)) < len(noops) or any(not 0 <= position < total for position in noops):
        raise BadInput(f"no-op layers must be different positions below {total}", value=noops, source="--noop-layers")
    if counts is None:
        _check_division(total, "layers", pp, "pipeline", layout)
        if per_chunk is not None and (per_chunk < 1 or total // pp % per_chunk):
            value = f"{total // pp} layers a stage, {per_chunk} a chunk"
            raise BadInput("virtual stages must divide a stage", value=value, source="--num-layers-per-virtual-pipeline-stage")
        if per_chunk is not None and (pp < 2 or total // pp == per_chunk):
            value = f"{layout}, {total // pp} layers a stage"
            remedy = "Use a pipeline, and fewer layers a chunk than a stage has."
            raise BadInput(
                "virtual stages need several of them", value=value, source="--num-layers-per-virtual-pipeline-stage", remedy=remedy
            )
        return
    source = "--num-layer-list"
    if per_chunk is not None or noops:
        raise BadInput("--num-layer-list goes with neither virtual stages nor no-op layers", value=layout, source=source)
    if len(counts) != pp or sum(counts) != model.num_layers or min(counts) < 1:
        value = f"{','.join(map(str, counts))} for {model.num_layers} layers and {pp} stages"
        raise BadInput("the list must give every pipeline stage its layers", value=value, source=source)
