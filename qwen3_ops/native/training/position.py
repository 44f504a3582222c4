"""How far a run is, and what it did so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class Position:
    """All that the next step depends on besides weights and optimizer.

    Attributes:
        consumed_samples: number of the next training sample.
        schedule_samples: where the learning rate's schedule stands; not the same after a start
            from a converted checkpoint without ``--finetune``, nor after steps that were left out.
    """

    iteration: int = 0
    consumed_samples: int = 0
    schedule_samples: int = 0


@dataclass(kw_only=True)
class Totals:
    """What a run did so far, all its starts together: it is saved with every checkpoint.

    Attributes:
        tokens: trained on, without padding.
        seconds: of the steps, without validation and saving.
        skipped: iterations whose step was left out.
        validation_loss: of this very iteration; None where it was not measured.
    """

    iterations: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    validation_loss: float | None = None

    def add(self, *, loss: float, tokens: int, seconds: float, skipped: bool = False) -> None:
        self.iterations += 1
        self.tokens += tokens
        self.seconds += seconds
        self.skipped += skipped
        self.first_loss = loss if self.first_loss is None else self.first_loss
        self.last_loss = loss
        self.validation_loss = None
