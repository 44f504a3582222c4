"""What a run tells of its steps: the log line, events for programs, TensorBoard."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from qwen3_ops.events import Events
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.devices import peak_memory
from qwen3_ops.native.training.distributed import World
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.log import StepReport, floating_point_operations
from qwen3_ops.native.training.position import Position
from qwen3_ops.native.training.scalars import Scalars


@dataclass(frozen=True, kw_only=True)
class Step:
    """How an iteration went.

    Attributes:
        grad_norm: None where the weights were left as they are.
        nan: because the loss or the gradient was not a number (not only too large for the loss scale).
    """

    loss: float
    grad_norm: float | None
    tokens: int
    nan: bool = False

    @property
    def skipped(self) -> bool:
        return self.grad_norm is None


@dataclass(kw_only=True)
class _Interval:
    """Since the last log line."""

    losses: list[float] = field(default_factory=list)
    iterations: int = 0
    nan: int = 0
    started: float = field(default_factory=time.monotonic)


class Reporter:
    """Every iteration to the events and to TensorBoard, every ``--log-interval`` to the log."""

    def __init__(self, *, flags: FLAGS, spec: ModelSpec, world: World, events: Events, scalars: Scalars) -> None:
        self._flags, self._world, self._events, self._scalars = flags, world, events, scalars
        self._operations = floating_point_operations(spec, batch_size=flags.batch_size, seq_length=flags.seq_length)
        self._interval = _Interval()
        self._pace: float | None = None

    def step(self, step: Step, position: Position, *, learning_rate: float, loss_scale: float, seconds: float) -> None:
        """``learning_rate`` is the next step's, as Megatron tells it; ``seconds`` those of the step alone."""
        flags, interval = self._flags, self._interval
        self._pace = seconds if self._pace is None else 0.9 * self._pace + 0.1 * seconds
        interval.iterations += 1
        interval.nan += step.nan
        interval.losses += [] if step.skipped else [step.loss]
        per_iteration = (time.monotonic() - interval.started) / interval.iterations
        report = StepReport(
            iteration=position.iteration,
            train_iters=flags.iterations,
            consumed_samples=position.consumed_samples,
            batch_size=flags.batch_size,
            seconds=per_iteration,
            learning_rate=learning_rate,
            lm_loss=None if step.skipped else step.loss,
            grad_norm=step.grad_norm,
            loss_scale=loss_scale,
            skipped=interval.iterations - len(interval.losses),
            nan=interval.nan,
            teraflops=self._teraflops(per_iteration),
        )
        self._scalars.step(report)
        self._emit(report, step, seconds)
        if position.iteration % flags.log_interval == 0:
            mean = sum(interval.losses) / len(interval.losses) if interval.losses else None
            print(replace(report, lm_loss=mean).line(), flush=True)
            self._interval = _Interval()

    def _emit(self, report: StepReport, step: Step, seconds: float) -> None:
        assert self._pace is not None
        values = {
            "lm_loss": report.lm_loss,
            "grad_norm": report.grad_norm,
            "learning_rate": report.learning_rate,
            "loss_scale": report.loss_scale if self._flags.fp16 else None,
            "seconds": seconds,
            "tokens_per_second": round(step.tokens / seconds, 1),
            "memory_bytes": peak_memory(self._world.device),
            "eta_seconds": round((report.train_iters - report.iteration) * self._pace, 1),
        }
        self._events.metric(step=report.iteration, **{name: value for name, value in values.items() if value is not None})

    def _teraflops(self, seconds: float) -> float | None:
        """Per device. Sequences of varying length are shorter than the formula counts: no figure is better than a wrong one."""
        if not self._flags.log_throughput or self._flags.variable_seq_lengths:
            return None
        return self._operations / seconds / self._world.size / 1e12
