"""The training loop: steps, and what happens between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from qwen3_ops.errors import Interrupted
from qwen3_ops.events import Events
from qwen3_ops.native.model import Qwen3
from qwen3_ops.native.training.batches import MicroBatch, Samples, Splits
from qwen3_ops.native.training.distributed import World
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.log import validation_lines
from qwen3_ops.native.training.loss_scale import LossScale
from qwen3_ops.native.training.optimizer import MixedPrecisionAdamW
from qwen3_ops.native.training.policy import Policy
from qwen3_ops.native.training.position import Position, Totals
from qwen3_ops.native.training.reporting import Reporter, Step
from qwen3_ops.native.training.scalars import Scalars
from qwen3_ops.native.training.schedule import Schedule
from qwen3_ops.native.training.step import compute_gradients, micro_batch_loss
from qwen3_ops.native.training.stopping import StopRequest


@dataclass(kw_only=True)
class Trainer:
    """One run, in one process or in several that do the same on other micro batches.

    Attributes:
        totals: what was done before, of a run that is continued.
        save: writes a checkpoint of ``position`` with ``totals``; None when nothing is kept.
    """

    flags: FLAGS
    model: Qwen3
    optimizer: MixedPrecisionAdamW
    schedule: Schedule
    scale: LossScale
    splits: Splits
    position: Position
    totals: Totals
    world: World
    events: Events
    scalars: Scalars
    save: Callable[[Position, Totals], None] | None
    reporter: Reporter = field(init=False)
    policy: Policy = field(init=False)

    def __post_init__(self) -> None:
        self.reporter = Reporter(flags=self.flags, spec=self.model.spec, world=self.world, events=self.events, scalars=self.scalars)
        self.policy = Policy(flags=self.flags, events=self.events, records_of=self._records_of)

    def run(self) -> None:
        """Train to ``--train-iters`` or ``--train-samples``.

        Raises:
            Interrupted: by a signal or by ``--exit-duration-in-mins`` / ``--exit-interval``, after saving.
            QualityGate: a loss or gradient norm is not finite, or far from the last ones, and the policy is to stop;
                nothing of that step is kept.
        """
        flags, position = self.flags, self.position
        stop = StopRequest(flags, self.world)
        with (
            stop.listening(),
            self.events.progress("training", total=flags.iterations, unit="iterations", done=position.iteration) as bar,
        ):
            while position.iteration < flags.iterations:
                started = time.monotonic()
                step = self._step()
                self._count(step, seconds=time.monotonic() - started)
                bar.advance(loss=step.loss)
                reason = stop.reason(position.iteration)
                if position.iteration % flags.eval_interval == 0 and not stop.urgent:
                    self._validate(position.iteration // flags.eval_interval - 1)
                self._save_if_due(asked=reason is not None)
                if reason and position.iteration < flags.iterations:
                    raise self._interrupted(reason)
        self._validate(position.iteration // flags.eval_interval, part="validation")
        self._test()

    def _step(self) -> Step:
        """One iteration: gradients, a look at them, new weights unless they are left out."""
        gradients = compute_gradients(
            self.model,
            self._own_batches(self.splits.train, self.position.consumed_samples),
            count=self.flags.micro_batches // self.world.size,
            optimizer=self.optimizer,
            scale=self.scale,
            world=self.world,
        )
        usable = self.policy.check_losses(gradients.losses, iteration=self.position.iteration + 1)
        overflow = self.scale.dynamic and usable and not bool(torch.isfinite(gradients.norm))
        usable = usable and (overflow or self.policy.check_norm(gradients.norm, iteration=self.position.iteration + 1))
        if overflow:
            self.scale.overflowed()
        if overflow or not usable:
            self.optimizer.forget_gradients()
            return Step(loss=gradients.loss, grad_norm=None, tokens=gradients.tokens, nan=not usable)
        self.optimizer.step(self.schedule.lr(self.position.schedule_samples), norm=gradients.norm)
        self.scale.stepped()
        return Step(loss=gradients.loss, grad_norm=float(gradients.norm), tokens=gradients.tokens)

    def _count(self, step: Step, *, seconds: float) -> None:
        position, size = self.position, self.flags.batch_size
        position.iteration += 1
        position.consumed_samples += size
        position.schedule_samples += 0 if step.skipped else size
        self.totals.add(loss=step.loss, tokens=step.tokens, seconds=seconds, skipped=step.skipped)
        lr = self.schedule.lr(position.schedule_samples)
        self.reporter.step(step, position, learning_rate=lr, loss_scale=self.scale.scale, seconds=seconds)

    def _own_batches(self, samples: Samples, first: int) -> Iterator[MicroBatch]:
        """This process's micro batches of the global batch that starts with sample ``first``: of every ``size`` one."""
        size = self.flags.micro_batch_size
        for number in range(self.world.rank, self.flags.micro_batches, self.world.size):
            batch = samples.micro_batch(first + number * size, size)
            if not batch.num_labels:
                self.events.warning(f"nothing to learn in a micro batch: records {', '.join(map(str, batch.records))}")
            yield batch.to(self.world.device)

    def _records_of(self, micro_batches: list[int]) -> list[int]:
        """Record numbers of micro batches of the step at hand."""
        size = self.flags.micro_batch_size
        first = self.position.consumed_samples
        return [record for number in micro_batches for record in self.splits.train.micro_batch(first + number * size, size).records]

    def _validate(self, evaluations: int, *, part: str | None = None) -> None:
        """The loss on validation samples that ``evaluations`` earlier ones have not used."""
        if self.splits.validation is None:
            return
        flags, position = self.flags, self.position
        loss = self._mean_loss(self.splits.validation, first=evaluations * flags.eval_iters * flags.batch_size)
        self.totals.validation_loss = loss
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
        starts = range(first, first + flags.eval_iters * flags.batch_size, flags.batch_size)
        losses = [micro_batch_loss(self.model, batch) for start in starts for batch in self._own_batches(samples, start)]
        return float(self.world.gather(torch.stack(losses)).mean())

    def _save_if_due(self, *, asked: bool) -> None:
        flags, iteration = self.flags, self.position.iteration
        due = flags.save_interval is not None and iteration % flags.save_interval == 0
        if self.save is not None and (due or asked or iteration == flags.iterations):
            self.save(self.position, self.totals)

    def _interrupted(self, reason: str) -> Interrupted:
        return Interrupted(
            f"training was stopped by {reason} after iteration {self.position.iteration} of {self.flags.iterations}",
            value=f"saved in {self.flags.save}" if self.save is not None else "nothing is saved, there is no --save",
            remedy="Start it again without --finetune, --no-load-optim and --no-load-rng: it goes on from there.",
        )
