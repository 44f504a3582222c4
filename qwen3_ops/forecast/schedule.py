"""Time: micro batches, the pipeline's bubble, the run's end, device hours."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from qwen3_ops.config import RunConfig
from qwen3_ops.forecast.measured import StepTime
from qwen3_ops.layout import data_parallel_size, world_size
from qwen3_ops.model import ModelSpec


class Schedule(BaseModel):
    """How the training's time goes.

    Attributes:
        bubble: share of a step in which a device waits for the pipeline.
        step: a step's time; None where it is not known.
        seconds: of the whole training.
        device_hours: seconds times devices; the native engine is one process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_parallel_size: int
    micro_batches: int
    bubble: float
    tokens_per_step: int
    steps: int
    step: StepTime | None
    seconds: float | None
    device_hours: float | None


def schedule(run: RunConfig, model: ModelSpec, *, step: StepTime | None) -> Schedule:
    seconds = None if step is None else step.seconds * run.train_iters
    return Schedule(
        data_parallel_size=data_parallel_size(run),
        micro_batches=micro_batches(run),
        bubble=bubble(run, model),
        tokens_per_step=run.global_batch_size * run.seq_length,
        steps=run.train_iters,
        step=step,
        seconds=seconds,
        device_hours=None if seconds is None else seconds * (1 if run.engine == "native" else world_size(run)) / 3600,
    )


def micro_batches(run: RunConfig) -> int:
    """Of one step on one model copy."""
    return run.global_batch_size // (run.micro_batch_size * max(1, data_parallel_size(run)))


def bubble(run: RunConfig, model: ModelSpec) -> float:
    """(p - 1) / (v m + p - 1) of a step, for p stages of v chunks and m micro batches.

    Narayanan et al. 2021, section 2.2: the bubble is (p - 1)/(v m) of the time without it.
    """
    pp, chunk = run.pipeline_model_parallel_size, run.num_layers_per_virtual_pipeline_stage
    if run.engine == "native":
        return 0.0  # the layout is that of its checkpoints only
    chunks = model.num_layers / pp / chunk if chunk else 1.0
    return (pp - 1) / (chunks * max(1, micro_batches(run)) + pp - 1)
