"""Device memory of a training on NPUs: what lies there all the time, and what a step adds."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from qwen3_ops.config import RunConfig
from qwen3_ops.forecast.parameters import Share, shares
from qwen3_ops.forecast.schedule import micro_batches
from qwen3_ops.layout import data_parallel_size
from qwen3_ops.model import ModelSpec

GIB = 1024**3

RUNTIME = int(3.5 * GIB)
"""CANN's context and HCCL's buffers: an idle device shows 2.9 to 3.4 GB in npu-smi."""

_LOGITS = 8
"""Bytes a logit: bf16 from the output layer, fp32 for the loss, bf16 for its gradient."""


class DeviceMemory(BaseModel):
    """Bytes on one device of the pipeline stage that needs most.

    Attributes:
        stage: its number.
        runtime: of CANN and HCCL, whatever is trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    runtime: int = RUNTIME

    @property
    def standing(self) -> int:
        """What lies there before the first step."""
        return self.weights + self.gradients + self.optimizer + self.runtime

    @property
    def total(self) -> int:
        return self.standing + self.activations + self.logits


def device_memory(run: RunConfig, model: ModelSpec, *, lora: bool) -> DeviceMemory:
    """Of the fullest stage, for sequences of full length: data of variable length needs less."""
    stages = [_stage(run, model, share, number=number, lora=lora) for number, share in enumerate(shares(run, model, lora=lora))]
    return max(stages, key=lambda stage: stage.total)


def longest_sequence(run: RunConfig, model: ModelSpec, *, lora: bool, available: float) -> int:
    """Tokens of the longest records, a multiple of 8 as they are padded, of which a micro batch fits; 0: none."""
    low, high = 0, run.seq_length // 8
    while low < high:
        middle = (low + high + 1) // 2
        need = device_memory(run.model_copy(update={"seq_length": 8 * middle}), model, lora=lora).total
        low, high = (middle, high) if need <= available else (low, middle - 1)
    return 8 * low


def _stage(run: RunConfig, model: ModelSpec, share: Share, *, number: int, lora: bool) -> DeviceMemory:
    dense, experts = (share.adapter, 0) if lora else (share.dense, share.experts)
    trained = dense + experts
    width = 4 if model.params_dtype == "fp32" else 2
    return DeviceMemory(
        stage=number,
        weights=width * (share.weights + share.adapter),
        gradients=4 * trained,
        optimizer=_optimizer(run, model, dense=dense, experts=experts),
        activations=_activations(run, model, stage=number),
        logits=_logits(run, model) if number == run.pipeline_model_parallel_size - 1 else 0,
    )


def _optimizer(run: RunConfig, model: ModelSpec, *, dense: int, experts: int) -> int:
    """Adam's two moments in fp32, and an fp32 copy of 16-bit weights.

    18 bytes a weight in all with weights and gradients, 6 + 12/d with the distributed optimizer
    over d data parallel ranks (Megatron-LM, docs: dist_optimizer). Context parallel ranks hold the
    same weights and count as data parallel; an expert has only DP / EP copies.
    """
    per_weight = 8 if model.params_dtype == "fp32" else 12
    if not run.use_distributed_optimizer:
        return per_weight * (dense + experts)
    copies = max(1, data_parallel_size(run)) * run.context_parallel_size
    return per_weight * dense // copies + per_weight * experts // max(1, copies // run.expert_model_parallel_size)


def _activations(run: RunConfig, model: ModelSpec, *, stage: int) -> int:
    """Of all micro batches that wait for their backward pass.

    1F1B keeps min(p - i, m) of them in stage i (Narayanan et al. 2021, section 2.2); v virtual
    stages keep 1 + (p - 1)/(p v) times as much (Korthikanti et al. 2022, section 4.2.3).
    """
    pp = run.pipeline_model_parallel_size
    layers = -(-model.num_layers // pp)
    waiting = min(pp - stage, max(1, micro_batches(run)))
    chunk = run.num_layers_per_virtual_pipeline_stage
    factor = 1 + (pp - 1) / (pp * (layers / chunk)) if chunk and pp > 1 else 1.0
    layer, inputs = layer_activations(run, model), _between_layers(run, model)
    if run.recompute_granularity != "full":
        return int(waiting * factor * layers * layer)
    if run.recompute_method == "block":
        again = min(run.recompute_num_layers, layers)
        return int(waiting * factor * (again * inputs + (layers - again) * layer)) + layer
    units = -(-layers // run.recompute_num_layers)
    return int(waiting * factor * units * inputs) + min(run.recompute_num_layers, layers) * layer


def layer_activations(run: RunConfig, model: ModelSpec) -> int:
    """Bytes that one layer keeps of one micro batch for its backward pass.

    After Korthikanti et al. 2022 (section 4.1), recounted for grouped queries, QK norm, SwiGLU and
    flash attention, in 16 bit: 2 s b [4H/σ + (4q + 4g)d/t + 3F/t], with σ = t under sequence
    parallelism and 1 without. The four H: inputs and outputs of both norms; q and g heads: their
    projections, norms, rotations and the attention's output; 3F: both halves of fc1 and what enters fc2.
    An expert layer computes top-k times as many rows and keeps its copies of them.
    """
    tp = run.tensor_model_parallel_size
    heads = model.num_attention_heads * model.kv_channels
    groups = model.num_query_groups * model.kv_channels
    sequence = tp if run.sequence_parallel else 1
    if model.num_experts is None:
        mlp = 3 * model.ffn_hidden_size / tp
    else:
        mlp = (model.moe_router_topk or 1) * (model.hidden_size / sequence + 3 * (model.moe_intermediate_size or 0) / tp)
    row = 4 * model.hidden_size / sequence + 4 * (heads + groups) / tp + mlp
    return int(_width(model) * _tokens(run) * row)


def _between_layers(run: RunConfig, model: ModelSpec) -> int:
    sequence = run.tensor_model_parallel_size if run.sequence_parallel else 1
    return _width(model) * _tokens(run) * model.hidden_size // sequence


def _logits(run: RunConfig, model: ModelSpec) -> int:
    return _LOGITS * _tokens(run) * model.padded_vocab_size // run.tensor_model_parallel_size


def _tokens(run: RunConfig) -> int:
    """Of one micro batch on one device."""
    return run.micro_batch_size * run.seq_length // run.context_parallel_size


def _width(model: ModelSpec) -> int:
    return 4 if model.params_dtype == "fp32" else 2
