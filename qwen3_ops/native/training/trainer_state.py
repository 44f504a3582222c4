"""``trainer_state.json``: what a resumed run takes over, and what it must share with the run before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qwen3_ops.errors import BadInput
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.loss_scale import ScaleState
from qwen3_ops.native.training.position import Totals

TRAINER_STATE = "trainer_state.json"


class TrainerState(BaseModel):
    """Of one iteration; lies in its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    iteration: int
    consumed_train_samples: int
    schedule_samples: int
    schedule: dict[str, Any]
    sample_order: dict[str, Any]
    """Flags that decide which sample is number n."""
    totals: Totals = Field(default_factory=Totals)
    """Of the run from its first iteration on, so that a resumed run can tell the whole."""
    loss_scale: ScaleState | None = None

    @classmethod
    def read(cls, iteration_folder: Path) -> TrainerState | None:
        """The state beside a checkpoint's ranks; None where another tool made the checkpoint."""
        path = iteration_folder / TRAINER_STATE
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise BadInput("the trainer's state is damaged", value=error.errors()[0]["msg"], source=path) from error


def sample_order(flags: FLAGS) -> dict[str, Any]:
    return {
        "seed": flags.seed,
        "split": flags.split,
        "global_batch_size": flags.batch_size,
        "seq_length": flags.seq_length,
        "padded_samples": flags.padded_samples,
        "no_shuffle": flags.no_shuffle,
    }
