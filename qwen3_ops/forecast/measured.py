"""Seconds of a step: as the run says, or as an earlier training of the same kind took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from qwen3_ops.artifacts import Manifest, read_manifest
from qwen3_ops.config import RunConfig
from qwen3_ops.errors import BadInput
from qwen3_ops.pipelines import StageRequest
from qwen3_ops.stages import STAGES

_SAME = (
    "engine",
    "model_dir",
    "input",
    "nproc_per_node",
    "nnodes",
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "context_parallel_size",
    "expert_model_parallel_size",
    "num_layers_per_virtual_pipeline_stage",
    "sequence_parallel",
    "use_distributed_optimizer",
    "recompute_granularity",
    "recompute_num_layers",
    "micro_batch_size",
    "global_batch_size",
    "seq_length",
    "lora_r",
    "lora_target_modules",
)
"""Fields that a step's time depends on."""


class StepTime(BaseModel):
    """``seconds`` of a step, and where they come from: ``step_seconds``, or the folder of a finished training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    source: str


def step_time(run: RunConfig, stages: Sequence[StageRequest]) -> StepTime | None:
    """None: neither said nor measured below the run's ``output_root``."""
    if run.step_seconds is not None:
        return StepTime(seconds=run.step_seconds, source="step_seconds")
    wanted = _conditions(run.model_dump(mode="json"))
    trainings = [stage.stage for stage in stages if stage.stage in STAGES and STAGES[stage.stage].verb == "train"]
    found = [
        (manifest.finished_at, StepTime(seconds=manifest.metrics["seconds"] / manifest.metrics["iterations"], source=str(folder)))
        for stage in trainings
        for folder in sorted(Path(run.output_root, "artifacts", stage).glob("*"))
        if (manifest := _manifest(folder)) is not None and _conditions(manifest.config) == wanted
    ]
    return max(found, key=lambda item: item[0])[1] if found else None


def _manifest(folder: Path) -> Manifest | None:
    """Of a training that measured something; a damaged one is told where it is used."""
    try:
        manifest = read_manifest(folder)
    except BadInput:
        return None
    measured = manifest is not None and manifest.metrics.get("seconds") and manifest.metrics.get("iterations")
    return manifest if measured else None


def _conditions(config: dict[str, object]) -> list[object]:
    return [config.get(field) for field in _SAME]
