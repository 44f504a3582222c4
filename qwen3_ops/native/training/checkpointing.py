"""Saving a run so that it can go on: weights as MindSpeed-LLM stores them, and our own state beside them.

``SAVE/iter_0000100/`` holds ``mp_rank_*`` (weights, in mcore's format) and

- ``trainer_state.json``: iteration, samples consumed, where the schedule stands, what must not change, what was done so far;
- ``optimizer.safetensors``: ``exp_avg.NAME``, ``exp_avg_sq.NAME``, ``step.NAME``, ``master.NAME`` (see optimizer.py);
- ``rng.safetensors``: state of torch's generators, uint8.

The folder appears by one rename when all of it is written, then the tracker names it: a run that
is killed at any moment leaves the last complete iteration.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from qwen3_ops.artifacts import write_atomically
from qwen3_ops.errors import BadInput, Infrastructure
from qwen3_ops.events import Events
from qwen3_ops.native.checkpoint.mcore import write_checkpoint
from qwen3_ops.native.model import Qwen3
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.loop import Position, Totals
from qwen3_ops.native.training.optimizer import MixedPrecisionAdamW
from qwen3_ops.native.training.schedule import Schedule

TRAINER_STATE = "trainer_state.json"
OPTIMIZER = "optimizer.safetensors"
RNG = "rng.safetensors"


class TrainerState(BaseModel):
    """What a resumed run takes over and what it must share with the run before."""

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
    return {"seed": flags.seed, "split": flags.split, "global_batch_size": flags.batch_size, "seq_length": flags.seq_length}


def save_checkpoint(
    position: Position, totals: Totals, *, flags: FLAGS, model: Qwen3, optimizer: MixedPrecisionAdamW, schedule: Schedule, events: Events
) -> None:
    """Write ``--save``'s next iteration, then delete those that ``--keep-last`` does not keep."""
    assert flags.save is not None
    state = TrainerState(
        iteration=position.iteration,
        consumed_train_samples=position.consumed_samples,
        schedule_samples=position.schedule_samples,
        schedule=schedule.state(),
        sample_order=sample_order(flags),
        totals=totals,
    )

    def write_state(folder: Path) -> None:
        write_atomically(folder / TRAINER_STATE, state.model_dump_json(indent=2) + "\n")
        if not flags.no_save_optim:
            _save_tensors(optimizer.state(), folder / OPTIMIZER)
        if not flags.no_save_rng:
            _save_tensors(rng_state(), folder / RNG)

    print(f"saving checkpoint at iteration {position.iteration:7d} to {flags.save} in torch format", flush=True)
    write_checkpoint(
        flags.save,
        iteration=position.iteration,
        state=model.state_dict(),
        model=model.spec,
        layout=flags.layout,
        dtype=flags.params_dtype_name,
        extra_args=_args(flags, position),
        lora_only=flags.lora_ckpt_filter,
        beside=write_state,
    )
    print(f"  successfully saved checkpoint from iteration {position.iteration:7d} to {flags.save}", flush=True)
    events.emit("checkpoint", iteration=position.iteration, folder=str(flags.save))
    if flags.keep_last is not None:
        delete_older(flags.save, newest=position.iteration, keep_last=flags.keep_last)


def delete_older(save: Path, *, newest: int, keep_last: int) -> None:
    """Delete iterations before ``newest``, which the tracker names, so that ``keep_last`` stay; only those that this trainer wrote."""
    written = {int(state.parent.name.removeprefix("iter_")): state.parent for state in save.glob(f"iter_*/{TRAINER_STATE}")}
    older = sorted(number for number in written if number < newest)
    for number in older[: max(0, len(older) + 1 - keep_last)]:
        doomed = written[number].with_name(f".{written[number].name}.old")  # a deletion that is killed leaves no half iteration
        written[number].rename(doomed)
        shutil.rmtree(doomed)


def _args(flags: FLAGS, position: Position) -> dict[str, object]:
    """Fields of the checkpoint's ``args`` that say how it was trained."""
    args: dict[str, object] = {
        "consumed_train_samples": position.consumed_samples,
        "seq_length": flags.seq_length,
        "train_iters": flags.train_iters,
        "micro_batch_size": flags.micro_batch_size,
        "global_batch_size": flags.batch_size,
        "lr": flags.lr,
        "min_lr": flags.min_lr,
        "lr_decay_style": flags.lr_decay_style,
        "seed": flags.seed,
    }
    if flags.lora:
        args |= {"lora_alpha": flags.lora_alpha, "lora_target_modules": list(flags.lora_target_modules)}
    return args


def rng_state() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_rng(iteration_folder: Path) -> None:
    """Set the generators as they were; nothing where no state was saved."""
    path = iteration_folder / RNG
    if not path.is_file():
        return
    states = load_tensors(path)
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def load_tensors(path: Path) -> Mapping[str, Tensor]:
    """Raises BadInput where the file is damaged."""
    try:
        tensors: Mapping[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadInput("the file can not be read", value=error, source=path, remedy="Use an older iteration.") from error
    return tensors


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # what the operating system said is only in its text
        raise Infrastructure("the trainer's state can not be written", value=error, source=path, remedy="Is the disk full?") from error
    with path.open("rb") as file:
        os.fsync(file.fileno())
