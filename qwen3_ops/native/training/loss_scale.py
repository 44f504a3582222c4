"""The factor on the loss of fp16 runs, which keeps small gradients from becoming zero."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from qwen3_ops.errors import QualityGate
from qwen3_ops.native.training.flags import FLAGS

_BACKOFF, _GROWTH = 0.5, 2.0


class ScaleState(BaseModel):
    """What a resumed run takes over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float
    growth_tracker: int
    hysteresis_tracker: int


@dataclass(kw_only=True)
class LossScale:
    """1 in fp32 and bf16, ``--loss-scale`` in fp16, else Megatron's dynamic one.

    The dynamic scale is halved after ``hysteresis`` steps whose gradients overflowed and doubled
    after ``window`` steps in a row that did not.
    """

    scale: float = 1.0
    dynamic: bool = False
    minimum: float = 1.0
    window: int = 1000
    hysteresis: int = 2

    def __post_init__(self) -> None:
        self._good_steps = 0
        self._patience = self.hysteresis

    @classmethod
    def of(cls, flags: FLAGS) -> LossScale:
        if not flags.fp16:
            return cls()
        if flags.loss_scale is not None:
            return cls(scale=flags.loss_scale)
        return cls(
            scale=flags.initial_loss_scale,
            dynamic=True,
            minimum=flags.min_loss_scale,
            window=flags.loss_scale_window,
            hysteresis=flags.hysteresis,
        )

    def overflowed(self) -> None:
        """A step was left out because of its gradients.

        Raises:
            QualityGate: the scale can not be lowered any more.
        """
        if self.scale <= self.minimum:
            raise QualityGate(
                "gradients overflow fp16 at the lowest loss scale", value=self.scale, source="--min-loss-scale", remedy="Train in bf16."
            )
        self._good_steps = 0
        self._patience -= 1
        if self._patience <= 0:
            self.scale = max(self.scale * _BACKOFF, self.minimum)

    def stepped(self) -> None:
        """A step was taken."""
        self._good_steps += 1
        if self.dynamic and self._good_steps == self.window:
            self._good_steps, self._patience = 0, self.hysteresis
            self.scale *= _GROWTH

    def state(self) -> ScaleState | None:
        """None where the scale never changes."""
        if not self.dynamic:
            return None
        return ScaleState(scale=self.scale, growth_tracker=self._good_steps, hysteresis_tracker=self._patience)

    def restore(self, state: ScaleState | None) -> None:
        if state is not None and self.dynamic:
            self.scale, self._good_steps, self._patience = state.scale, state.growth_tracker, state.hysteresis_tracker
