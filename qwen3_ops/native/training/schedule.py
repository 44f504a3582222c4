"""The learning rate as a function of the samples consumed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from qwen3_ops.native.training.flags import FLAGS, DecayStyle, WsdDecayStyle


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Warm-up and decay, counted in samples as Megatron's OptimizerParamScheduler does.

    Attributes:
        warmup_steps: samples of the linear warm-up; not rounded.
        decay_steps: samples after which the rate stays at ``min_lr``.
        wsd_decay_steps: samples of the last, falling part of WSD.
    """

    style: DecayStyle
    max_lr: float
    min_lr: float
    init_lr: float
    warmup_steps: float
    decay_steps: int
    wsd_style: WsdDecayStyle
    wsd_decay_steps: int

    def lr(self, samples: int) -> float:
        """The rate of the step that starts when ``samples`` were consumed."""
        if self.warmup_steps > 0 and samples <= self.warmup_steps:
            return self.init_lr + (self.max_lr - self.init_lr) * samples / self.warmup_steps
        if self.style == "constant":
            return self.max_lr
        if samples > self.decay_steps:
            return self.min_lr
        if self.style == "inverse-square-root":
            return max(self.min_lr, self.max_lr * math.sqrt(max(self.warmup_steps, 1)) / math.sqrt(max(samples, 1)))
        return self.min_lr + self._decay(samples) * (self.max_lr - self.min_lr)

    def _decay(self, samples: int) -> float:
        """1 at the peak, 0 at the end."""
        if self.style == "WSD":
            start = self.decay_steps - self.wsd_decay_steps
            return 1.0 if samples <= start else _falling(self.wsd_style, (samples - start) / self.wsd_decay_steps)
        return _falling(self.style, (samples - self.warmup_steps) / (self.decay_steps - self.warmup_steps))

    def state(self) -> dict[str, Any]:
        return asdict(self)


def _falling(style: str, part: float) -> float:
    """From 1 to 0 while ``part`` goes from 0 to 1."""
    if style == "linear":
        return 1.0 - part
    if style == "cosine":
        return 0.5 * (math.cos(math.pi * part) + 1.0)
    return 2.0 * math.pow(0.5, part) - 1.0


def schedule_of(flags: FLAGS) -> Schedule:
    size = flags.batch_size
    decay_steps = flags.lr_decay_samples or flags.train_samples or (flags.lr_decay_iters or flags.iterations) * size
    fraction = flags.lr_warmup_fraction
    warmup_steps = fraction * decay_steps if fraction is not None else float(flags.lr_warmup_samples or flags.lr_warmup_iters * size)
    return Schedule(
        style=flags.lr_decay_style,
        max_lr=flags.lr,
        min_lr=flags.min_lr,
        init_lr=flags.lr_warmup_init,
        warmup_steps=warmup_steps,
        decay_steps=decay_steps,
        wsd_style=flags.lr_wsd_decay_style,
        wsd_decay_steps=flags.lr_wsd_decay_samples or (flags.lr_wsd_decay_iters or 0) * size,
    )
