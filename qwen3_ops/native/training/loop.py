"""The training loop: steps, and what happens between them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

import torch
from torch import Tensor

from qwen3_ops.errors import Interrupted, QualityGate
from qwen3_ops.events import Events
from qwen3_ops.native.data.turns import IGNORE_INDEX
from qwen3_ops.native.model import Qwen3
from qwen3_ops.native.training.batches import MicroBatch, Samples, Splits
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.log import Scalars, StepReport, floating_point_operations, validation_lines
from qwen3_ops.native.training.loss import token_losses_mean
from qwen3_ops.native.training.optimizer import MixedPrecisionAdamW
from qwen3_ops.native.training.schedule import Schedule


@dataclass(kw_only=True)
class Position:
    """How far a run is: all that the next step depends on besides weights and optimizer.

    Attributes:
        consumed_samples: number of the next training sample.
        schedule_samples: where the learning rate's schedule stands; not the same after a start
            from a converted checkpoint without ``--finetune``.
    """

    iteration: int = 0
    consumed_samples: int = 0
    schedule_samples: int = 0


@dataclass(kw_only=True)
class Totals:
    """What a run did so far, all its processes together: it is saved with every checkpoint.

    Attributes:
        tokens: trained on, without padding.
        seconds: of the steps, without validation and saving.
    """

    iterations: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    last_loss: float | None = None

    def add(self, *, loss: float, tokens: int, seconds: float) -> None:
        self.iterations += 1
        self.tokens += tokens
        self.seconds += seconds
        self.first_loss = loss if self.first_loss is None else self.first_loss
        self.last_loss = loss


class StopRequest:
    """Set by SIGTERM or SIGINT; the loop ends after the step it is in."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.reason = signal.Signals(number).name

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        if threading.current_thread() is not threading.main_thread():  # only there handlers can be set
            yield self
            return
        previous = {number: signal.signal(number, self._set) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@dataclass(kw_only=True)
class Trainer:
    """One run in one process.

    Attributes:
        totals: what was done before, of a run that is continued.
        save: writes a checkpoint of ``position`` with ``totals``; None when nothing is kept.
    """

    flags: FLAGS
    model: Qwen3
    optimizer: MixedPrecisionAdamW
    schedule: Schedule
    splits: Splits
    position: Position
    totals: Totals
    events: Events
    scalars: Scalars
    save: Callable[[Position, Totals], None] | None
    device: torch.device

    def run(self) -> None:
        """Train to ``--train-iters``.

        Raises:
            Interrupted: by a signal or by ``--exit-duration-in-mins`` / ``--exit-interval``, after saving.
            QualityGate: a loss or gradient norm is not finite; nothing of that step is kept.
        """
        flags, position = self.flags, self.position
        started = time.monotonic()
        interval = _Interval()
        with (
            StopRequest().listening() as stop,
            self.events.progress("training", total=flags.train_iters, unit="iterations", done=position.iteration) as bar,
        ):
            while position.iteration < flags.train_iters:
                loss, norm = self._step()
                interval.add(loss)
                self._report(interval, loss=loss, norm=norm)
                if position.iteration % flags.log_interval == 0:
                    interval = _Interval()
                bar.advance(loss=loss)
                if position.iteration % flags.eval_interval == 0 and not stop.reason:
                    self._validate(position.iteration // flags.eval_interval - 1)
                reason = stop.reason or self._exit_reason(time.monotonic() - started)
                self._save_if_due(asked=reason is not None)
                if reason and position.iteration < flags.train_iters:
                    raise self._interrupted(reason)
        self._validate(position.iteration // flags.eval_interval, part="validation")
        self._test()

    def _step(self) -> tuple[float, float]:
        """One optimizer step; returns loss and gradient norm."""
        flags, position, started = self.flags, self.position, time.monotonic()
        self.model.train()
        losses: list[Tensor] = []
        tokens = 0
        for number in range(flags.micro_batches):
            batch = self._micro_batch(self.splits.train, position.consumed_samples + number * flags.micro_batch_size)
            if not (batch.labels != IGNORE_INDEX).any():
                self.events.warning(f"nothing to learn in a micro batch: records {', '.join(map(str, batch.records))}")
            loss = self._loss(batch)
            (loss / flags.micro_batches).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            tokens += batch.num_tokens
        self._require_finite("loss", torch.stack(losses))
        norm = self.optimizer.gradient_norm()
        self._require_finite("gradient norm", norm.expand(flags.micro_batches))
        self.optimizer.step(self.schedule.lr(position.schedule_samples), norm=norm)
        position.iteration += 1
        position.consumed_samples += flags.batch_size
        position.schedule_samples += flags.batch_size
        mean = float(torch.stack(losses).mean())
        self.totals.add(loss=mean, tokens=tokens, seconds=time.monotonic() - started)
        return mean, float(norm)

    def _micro_batch(self, samples: Samples, first: int) -> MicroBatch:
        return samples.micro_batch(first, self.flags.micro_batch_size).to(self.device)

    def _loss(self, batch: MicroBatch) -> Tensor:
        return token_losses_mean(self.model.hidden_states(batch.tokens), self.model.output_weight, batch.labels)

    def _require_finite(self, what: str, values: Tensor) -> None:
        """``values``: one for each micro batch of the step."""
        bad = (~torch.isfinite(values)).nonzero().flatten().tolist()
        if not bad:
            return
        size = self.flags.micro_batch_size
        records = [
            record
            for number in bad
            for record in self._micro_batch(self.splits.train, self.position.consumed_samples + number * size).records
        ]
        raise QualityGate(
            f"the {what} of iteration {self.position.iteration + 1} is not a number",
            value=f"seen with the records {', '.join(map(str, records))}",
            source=self.flags.data_path[0],
            remedy="Lower --lr or look at these records; the last saved checkpoint is untouched.",
        )

    def _report(self, interval: _Interval, *, loss: float, norm: float) -> None:
        """Every iteration to the events and to TensorBoard, every ``--log-interval`` to the log."""
        flags, position = self.flags, self.position
        seconds = interval.seconds_per_iteration()
        operations = floating_point_operations(self.model.spec, batch_size=flags.batch_size, seq_length=flags.seq_length)
        report = StepReport(
            iteration=position.iteration,
            train_iters=flags.train_iters,
            consumed_samples=position.consumed_samples,
            batch_size=flags.batch_size,
            seconds=seconds,
            learning_rate=self.schedule.lr(position.schedule_samples),
            lm_loss=loss,
            grad_norm=norm,
            # Sequences of varying length are shorter than the formula counts: no figure is better than a wrong one.
            teraflops=operations / seconds / 1e12 if flags.log_throughput and not flags.variable_seq_lengths else None,
        )
        self.scalars.step(report)
        self.events.metric(
            step=position.iteration, lm_loss=loss, learning_rate=report.learning_rate, grad_norm=norm, seconds=interval.last_seconds()
        )
        if position.iteration % flags.log_interval == 0:
            print(replace(report, lm_loss=interval.mean_loss()).line(), flush=True)

    def _validate(self, evaluations: int, *, part: str | None = None) -> None:
        """The loss on validation samples that ``evaluations`` earlier ones have not used."""
        if self.splits.validation is None:
            return
        flags, position = self.flags, self.position
        loss = self._mean_loss(self.splits.validation, first=evaluations * flags.eval_iters * flags.batch_size)
        print(validation_lines(position.iteration, loss, part=part), flush=True)
        self.scalars.validation(loss, iteration=position.iteration, consumed_samples=position.consumed_samples)
        self.events.metric(step=position.iteration, validation_loss=loss)

    def _test(self) -> None:
        if self.splits.test is not None:
            loss = self._mean_loss(self.splits.test, first=0)
            print(validation_lines(self.position.iteration, loss, part="test"), flush=True)
            self.events.metric(step=self.position.iteration, test_loss=loss)

    @torch.no_grad()
    def _mean_loss(self, samples: Samples, *, first: int) -> float:
        """Over ``--eval-iters`` batches from sample ``first`` on, every micro batch counting alike."""
        flags = self.flags
        self.model.eval()
        starts = range(first, first + flags.eval_iters * flags.batch_size, flags.micro_batch_size)
        return float(torch.stack([self._loss(self._micro_batch(samples, start)) for start in starts]).mean())

    def _save_if_due(self, *, asked: bool) -> None:
        flags, iteration = self.flags, self.position.iteration
        due = flags.save_interval is not None and iteration % flags.save_interval == 0
        if self.save is not None and (due or asked or iteration == flags.train_iters):
            self.save(self.position, self.totals)

    def _exit_reason(self, seconds: float) -> str | None:
        minutes, interval = self.flags.exit_duration_in_mins, self.flags.exit_interval
        if minutes is not None and seconds >= minutes * 60:
            return f"--exit-duration-in-mins {minutes}"
        if interval is not None and self.position.iteration % interval == 0:
            return f"--exit-interval {interval}"
        return None

    def _interrupted(self, reason: str) -> Interrupted:
        return Interrupted(
            f"training was stopped by {reason} after iteration {self.position.iteration} of {self.flags.train_iters}",
            value=f"saved in {self.flags.save}" if self.save is not None else "nothing is saved, there is no --save",
            remedy="Start it again without --finetune, --no-load-optim and --no-load-rng: it goes on from there.",
        )


class _Interval:
    """Losses and times since the last log line."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._times = [time.monotonic()]

    def add(self, loss: float) -> None:
        self._losses.append(loss)
        self._times.append(time.monotonic())

    def mean_loss(self) -> float:
        return sum(self._losses) / len(self._losses)

    def last_seconds(self) -> float:
        return self._times[-1] - self._times[-2]

    def seconds_per_iteration(self) -> float:
        return (self._times[-1] - self._times[0]) / len(self._losses)
