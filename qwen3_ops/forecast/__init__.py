"""What a run will take: device memory, host memory, disk, time."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from qwen3_ops.config import RunConfig
from qwen3_ops.forecast.disk import artifact_bytes
from qwen3_ops.forecast.host import conversion_memory, native_training_memory
from qwen3_ops.forecast.kinds import kind_of
from qwen3_ops.forecast.measured import step_time
from qwen3_ops.forecast.memory import DeviceMemory, device_memory
from qwen3_ops.forecast.schedule import Schedule, schedule
from qwen3_ops.model import ModelSpec
from qwen3_ops.pipelines import StageRequest


class Forecast(BaseModel):
    """Of one run; bytes and seconds.

    Attributes:
        device_memory: of the training's fullest device; None for the native engine, which uses the host.
        conversion_memory: of the host, by the engine that converts.
        other_conversion_memory: what the other engine would take.
        training_memory: of the host, where the native engine trains.
        artifacts: task -> bytes on disk.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device_memory: DeviceMemory | None
    conversion_memory: int
    other_conversion_memory: int
    training_memory: int | None
    artifacts: dict[str, int]
    schedule: Schedule | None


def forecast(run: RunConfig, model: ModelSpec, stages: Sequence[StageRequest]) -> Forecast:
    kind = kind_of(stages)
    on_devices = run.engine == "mindspeed"
    return Forecast(
        device_memory=device_memory(run, model, lora=kind == "lora") if kind and on_devices else None,
        conversion_memory=conversion_memory(model, engine=run.cpu_engine),
        other_conversion_memory=conversion_memory(model, engine="mindspeed" if run.cpu_engine == "native" else "native"),
        training_memory=native_training_memory(run, model, kind=kind) if kind and not on_devices else None,
        artifacts={stage.name: artifact_bytes(run, model, stage.stage) for stage in stages},
        schedule=schedule(run, model, step=step_time(run, stages)) if kind else None,
    )


__all__ = ["DeviceMemory", "Forecast", "Schedule", "forecast", "kind_of"]
