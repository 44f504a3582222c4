"""Which checkpoints stay: the last ones, and the best by its validation loss."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from qwen3_ops.native.training.trainer_state import TRAINER_STATE, TrainerState


class Best(NamedTuple):
    iteration: int
    validation_loss: float


def best_of(save: Path, *, newest: int) -> Best | None:
    """The iteration up to ``newest`` with the lowest validation loss, the later one of equals; None where none was measured."""
    found = []
    for number, folder in _written(save).items():
        state = TrainerState.read(folder)
        if number <= newest and state is not None and state.totals.validation_loss is not None:
            found.append(Best(number, state.totals.validation_loss))
    return min(found, key=lambda best: (best.validation_loss, -best.iteration), default=None)


def delete_older(save: Path, *, newest: int, keep_last: int, keep_best: bool = False) -> None:
    """Delete iterations before ``newest``, which the tracker names, so that ``keep_last`` stay; only those that this trainer wrote.

    Args:
        keep_best: the one with the lowest validation loss stays besides them.
    """
    written = _written(save)
    best = best_of(save, newest=newest) if keep_best else None
    older = sorted(number for number in written if number < newest)
    for number in older[: max(0, len(older) + 1 - keep_last)]:
        if best is not None and number == best.iteration:
            continue
        doomed = written[number].with_name(f".{written[number].name}.old")  # a deletion that is killed leaves no half iteration
        written[number].rename(doomed)
        shutil.rmtree(doomed)


def _written(save: Path) -> Mapping[int, Path]:
    return {int(state.parent.name.removeprefix("iter_")): state.parent for state in save.glob(f"iter_*/{TRAINER_STATE}")}
