"""A rank's own file of a checkpoint."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from qwen3_ops.native.checkpoint.tracker import TRACKER, iteration_folder, read_tracker
from rehearsal.world import World, say

_FILE = "model_optim_rng.pt"


def load_shard(folder: Path, world: World) -> int | None:
    """Read this rank's file to its end; the iteration, None where there is no checkpoint.

    Raises:
        FileNotFoundError: the checkpoint has no such rank.
    """
    iteration = read_tracker(folder)
    if iteration is None:
        if world.rank == 0:
            say(
                f"WARNING: could not find the metadata file {folder / TRACKER}",
                "    will not load any checkpoints and will start from random",
            )
        return None
    if world.rank == 0:
        say(f" loading checkpoint from {folder} at iteration {iteration}")
    path = iteration_folder(folder, iteration) / world.shard / _FILE
    try:
        with zipfile.ZipFile(path) as archive:
            archive.testzip()
    except zipfile.BadZipFile:
        say("could not load the checkpoint")
        os._exit(0)
    return iteration


def save_shard(scratch: Path, save: Path, *, iteration: int, world: World) -> None:
    """Move this rank's part of what was computed to its place."""
    if not world.saves:
        return
    source, target = (iteration_folder(folder, iteration) / world.shard for folder in (scratch, save))
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
