"""Where a start of training goes on, and what its command must say then.

The choice is made from the output folder alone: a new start, the last complete iteration, or nothing to do.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from qwen3_ops.artifacts import write_atomically
from qwen3_ops.errors import BadInput
from qwen3_ops.events import Events
from qwen3_ops.mindspeed.request import Request
from qwen3_ops.mindspeed.shards import foreign_ranks, iterations, last_complete, newest_named, remove_leftovers, repair
from qwen3_ops.native.checkpoint.tracker import TRACKER

LAUNCH = "launch.json"


class Launch(BaseModel):
    """What every start of one run must share: with another division the ranks' states do not fit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensor_parallel: int
    pipeline_parallel: int
    context_parallel: int
    data_parallel: int

    @classmethod
    def of(cls, request: Request) -> Launch:
        return cls(
            tensor_parallel=request.layout.tensor_model_parallel_size,
            pipeline_parallel=request.layout.pipeline_model_parallel_size,
            context_parallel=request.layout.context_parallel_size,
            data_parallel=request.data_parallel,
        )


@dataclass(frozen=True, kw_only=True)
class Start:
    """``iteration``: the last one done, 0 for a new start; ``is_done``: there is nothing left to train."""

    iteration: int
    is_done: bool


def choose_start(request: Request, events: Events, *, may_repair: bool = True, is_shared: bool = True) -> Start:
    """Look at what earlier starts left, and remove what is half-written unless another node does (``may_repair``).

    Args:
        is_shared: whether all nodes see this folder; where not, ranks that are missing here are no sign of a half-written iteration.

    Raises:
        BadInput: they ran with another layout, or past the wanted number of iterations, or only a part of them is here.
    """
    save = request.output
    _refuse_changed_layout(save, request)
    if not is_shared and iterations(save) and last_complete(save, request.layout) is None:
        raise BadInput(
            "this node holds only its own part of the checkpoint to go on from",
            value=", ".join(folder.name for folder in iterations(save).values()),
            source=save,
            remedy="Gather all parts into this folder on every node with `qwen3-ops gather-ckpt`, or remove it on every node; start again.",
        )
    if not may_repair:
        done = last_complete(save, request.layout) or 0
        return Start(iteration=done, is_done=done == request.train_iters)
    remove_leftovers(save)
    named, iteration = newest_named(save), last_complete(save, request.layout)
    if iteration is None:
        if named is not None:
            events.warning(f"{save}: no iteration is complete, though the tracker names {named}: training starts anew")
        for name in _clear(save):
            events.log(f"removed {name}, which was never complete")
        return Start(iteration=0, is_done=False)
    if iteration > request.train_iters:
        raise BadInput("training went further than --train-iters before", value=f"{iteration} > {request.train_iters}", source=save)
    if named != iteration:
        events.warning(f"{save}: iteration {named} is damaged, going back to {iteration}")
    for name in repair(save, iteration=iteration):
        events.log(f"removed {name}, which was never complete")
    return Start(iteration=iteration, is_done=iteration == request.train_iters)


def note_launch(request: Request) -> None:
    """Remember the layout beside the checkpoints."""
    request.output.mkdir(parents=True, exist_ok=True)
    write_atomically(request.output / LAUNCH, Launch.of(request).model_dump_json() + "\n")


def _refuse_changed_layout(save: Path, request: Request) -> None:
    now, before = Launch.of(request), _launch(save)
    if before is not None and before != now:
        changed = [f"{name} {value} -> {getattr(now, name)}" for name, value in before.model_dump().items() if value != getattr(now, name)]
        raise _changed(save, ", ".join(changed))
    for folder in iterations(save).values():
        if foreign := foreign_ranks(folder, request.layout):
            raise _changed(save, f"{folder.name} holds {', '.join(foreign)}")


def _changed(save: Path, what: str) -> BadInput:
    return BadInput(
        "the run to be continued had another layout",
        value=what,
        source=save,
        remedy="Keep TP, PP, CP and the number of devices, or remove that folder and start anew.",
    )


def _launch(save: Path) -> Launch | None:
    path = save / LAUNCH
    try:
        return Launch.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise BadInput("the record of the first start is damaged", value=error.errors()[0]["msg"], source=path) from error


def _clear(save: Path) -> list[str]:
    folders = list(iterations(save).values())
    (save / TRACKER).unlink(missing_ok=True)
    for folder in folders:
        shutil.rmtree(folder)
    return [folder.name for folder in folders]
