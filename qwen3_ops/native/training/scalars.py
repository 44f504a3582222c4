"""TensorBoard scalars under the names that Megatron and MindSpeed-LLM write."""

from __future__ import annotations

import math
from typing import Any

import torch

from qwen3_ops.native.devices import peak_memory
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.log import StepReport


class Scalars:
    """Does nothing without ``--tensorboard-dir``, nor in another process than the first.

    Args:
        purge_step: what an earlier start of the run wrote from this iteration on is forgotten.
    """

    def __init__(self, flags: FLAGS, *, device: torch.device, first: bool, purge_step: int) -> None:
        self._flags, self._device = flags, device
        self._writer: Any = None
        if flags.tensorboard_dir is not None and first:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(log_dir=str(flags.tensorboard_dir), purge_step=purge_step)

    def step(self, report: StepReport) -> None:
        """Every ``--tensorboard-log-interval``."""
        flags = self._flags
        if self._writer is None or report.iteration % flags.tensorboard_log_interval:
            return
        values = {"learning-rate": report.learning_rate, "lm loss": report.lm_loss, "loss-scale": report.loss_scale}
        values["grad-norm"] = report.grad_norm
        if flags.log_batch_size_to_tensorboard:
            values["batch-size"] = report.batch_size
        if flags.log_timers_to_tensorboard:
            values["iteration-time"] = report.seconds
            values["throughput"] = report.teraflops
        self._write(values, report.iteration, report.consumed_samples)
        if flags.log_memory_to_tensorboard:
            self._writer.add_scalar("mem-max-allocated-bytes", peak_memory(self._device), report.iteration)

    def validation(self, loss: float, *, iteration: int, consumed_samples: int) -> None:
        values: dict[str, float | None] = {"lm loss validation": loss}
        if self._flags.log_validation_ppl_to_tensorboard:
            values["lm loss validation ppl"] = math.exp(min(20, loss))
        self._write(values, iteration, consumed_samples)

    def _write(self, values: dict[str, float | None], iteration: int, consumed_samples: int) -> None:
        if self._writer is None:
            return
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, iteration)
                self._writer.add_scalar(f"{name} vs samples", value, consumed_samples)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
