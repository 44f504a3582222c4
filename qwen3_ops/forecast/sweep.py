"""Which layouts fit a machine, best first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from pydantic import BaseModel, ConfigDict

from qwen3_ops import rules
from qwen3_ops.config import RunConfig
from qwen3_ops.forecast.kinds import kind_of
from qwen3_ops.forecast.memory import GIB, device_memory
from qwen3_ops.forecast.schedule import bubble, micro_batches
from qwen3_ops.layout import data_parallel_size
from qwen3_ops.model import ModelSpec
from qwen3_ops.pipelines import StageRequest

_RECOMPUTED = 4 / 3
"""Full recomputation adds a forward pass to a forward pass and a backward pass of twice its work."""


class Candidate(BaseModel):
    """One layout that fits.

    Attributes:
        changes: fields of the run, to be set.
        bubble: share of a step in which devices wait.
        memory: bytes on the fullest device, at full sequence length.
        work: time of a step relative to one without bubble and recomputation; communication is not in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    changes: dict[str, int | str | None]
    data_parallel_size: int
    micro_batches: int
    bubble: float
    memory: int
    work: float


def sweep(run: RunConfig, model: ModelSpec, stages: Sequence[StageRequest]) -> list[Candidate]:
    """Layouts of ``run``'s devices that no rule refuses and whose estimate fits ``run.device_memory``.

    Ranked by ``work``; among equals the least tensor parallelism comes first, which communicates most
    (twice a layer and direction), then the least pipeline, then the larger micro batch, whose kernels are larger.
    """
    lora = kind_of(stages) == "lora"
    found = [_candidate(variant, model, lora=lora) for variant in _variants(run, model) if _allowed(variant, model, stages)]
    fitting = [candidate for candidate in found if candidate.memory <= run.device_memory * GIB]
    return sorted(fitting, key=_rank)


def _variants(run: RunConfig, model: ModelSpec) -> Iterator[RunConfig]:
    """Tensor parallelism stays within a node, whose devices are connected fastest."""
    sizes = [size for size in (1, 2, 4, 8, 16) if size <= run.nproc_per_node]
    pipelines = [size for size in range(1, model.num_layers + 1) if model.num_layers % size == 0]
    experts = [1] if model.num_experts is None else [1, 2, 4, 8, 16]
    for tp, pp, ep, mbs, again in product(sizes, pipelines, experts, (1, 2, 4, 8, 16), (None, "full")):
        yield run.model_copy(
            update={
                "tensor_model_parallel_size": tp,
                "pipeline_model_parallel_size": pp,
                "expert_model_parallel_size": ep,
                "micro_batch_size": mbs,
                "recompute_granularity": again,
                "num_layers_per_virtual_pipeline_stage": None,
                "engine": "mindspeed",
            }
        )


def _allowed(run: RunConfig, model: ModelSpec, stages: Sequence[StageRequest]) -> bool:
    if data_parallel_size(run) == 0:
        return False
    found = rules.apply(run, model, stages=stages, themes=("layout", "batches"))
    return not any(finding.severity == "refuse" for finding in found)


def _candidate(run: RunConfig, model: ModelSpec, *, lora: bool) -> Candidate:
    share = bubble(run, model)
    return Candidate(
        changes={
            name: getattr(run, name)
            for name in (
                "tensor_model_parallel_size",
                "pipeline_model_parallel_size",
                *(("expert_model_parallel_size",) if model.num_experts else ()),
                "micro_batch_size",
                "recompute_granularity",
            )
        },
        data_parallel_size=data_parallel_size(run),
        micro_batches=micro_batches(run),
        bubble=share,
        memory=device_memory(run, model, lora=lora).total,
        work=(_RECOMPUTED if run.recompute_granularity == "full" else 1) / (1 - share),
    )


def _rank(candidate: Candidate) -> tuple[float, ...]:
    changes = candidate.changes
    return (
        round(candidate.work, 3),
        float(changes["tensor_model_parallel_size"] or 1),
        float(changes["pipeline_model_parallel_size"] or 1),
        -float(changes["micro_batch_size"] or 1),
    )
