"""What a training did so far, all its starts together: written beside the checkpoints with every one, and when a start ends."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from qwen3_ops.artifacts import write_atomically
from qwen3_ops.errors import BadInput
from qwen3_ops.mindspeed.observation import Observation

TOTALS = "totals.json"


class Totals(BaseModel):
    """``seconds``: of the iterations, without saving; those that were repeated after a crash count again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_loss: float | None = None
    last_loss: float | None = None
    seconds: float = 0.0
    trainable_parameters: int | None = None

    @classmethod
    def read(cls, save: Path) -> Totals | None:
        path = save / TOTALS
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise BadInput("the totals of the training are damaged", value=error.errors()[0]["msg"], source=path) from error

    def write(self, save: Path) -> None:
        write_atomically(save / TOTALS, self.model_dump_json() + "\n")

    def after(self, seen: Observation) -> Totals:
        """These totals and what was seen since the start that began with them."""
        first, last = seen.first, seen.last
        return Totals(
            first_loss=self.first_loss if self.first_loss is not None or first is None else first.lm_loss,
            last_loss=self.last_loss if last is None else last.lm_loss,
            seconds=self.seconds + seen.seconds,
            trainable_parameters=self.trainable_parameters if seen.trainable is None else seen.trainable.trainable,
        )
