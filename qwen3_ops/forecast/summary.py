"""The forecast in words."""

from __future__ import annotations

from qwen3_ops.config import RunConfig
from qwen3_ops.events import format_seconds
from qwen3_ops.forecast import Forecast
from qwen3_ops.forecast.memory import GIB


def summary(forecast: Forecast, config: RunConfig) -> list[tuple[str, str, str]]:
    """Rows of what, how much, and of what it consists."""
    rows = []
    device = forecast.device_memory
    if device is not None:
        parts = {"weights": device.weights, "gradients": device.gradients, "optimizer": device.optimizer}
        parts |= {"activations": device.activations, "logits": device.logits, "runtime": device.runtime}
        detail = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items() if size)
        rows.append(("device memory", f"{device.total / GIB:.1f} GiB", f"of {config.device_memory:g}; stage {device.stage}: {detail}"))
    if forecast.training_memory is not None:
        rows.append(("host memory, training", f"{forecast.training_memory / 1e9:.1f} GB", "native engine; activations come on top"))
    other = "native" if config.cpu_engine == "mindspeed" else "mindspeed"
    rows.append(
        (
            "host memory, conversion",
            f"{forecast.conversion_memory / 1e9:.1f} GB",
            f"{config.cpu_engine} engine; {other} would take {forecast.other_conversion_memory / 1e9:.1f} GB",
        )
    )
    rows.append(("disk", f"{sum(forecast.artifacts.values()) / 1e9:.1f} GB", "all artifacts, a training's kept checkpoints among them"))
    schedule = forecast.schedule
    if schedule is not None and config.engine == "mindspeed":
        rows.append(
            ("pipeline bubble", f"{schedule.bubble:.1%}", f"{schedule.micro_batches} micro batches, DP{schedule.data_parallel_size}")
        )
    if schedule is not None:
        rows.append(("tokens", f"{schedule.tokens_per_step * schedule.steps / 1e6:.0f} M", f"at most; {schedule.steps} steps"))
        if schedule.step is None or schedule.seconds is None or schedule.device_hours is None:
            rows.append(("time", "unknown", "no such training was measured below output_root; set step_seconds"))
        else:
            detail = f"{schedule.device_hours:.1f} device hours; a step takes {schedule.step.seconds:.3g} s ({schedule.step.source})"
            rows.append(("time", format_seconds(schedule.seconds), detail))
    return rows
