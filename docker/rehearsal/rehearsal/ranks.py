"""How the computing rank leads the others: numbered orders in a folder that all of them see."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rehearsal.world import World

GLOO = "QWEN3_REHEARSAL_GLOO"
"""Environment variable: ``0`` to meet by files only, which saves every rank the import of torch; one node only."""

_PERIOD = 0.02  # seconds


class Ranks:
    """One rank's view of the group. Whoever dies is noticed by torchrun, which ends the others."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.folder = _meet_in_gloo(world) if world.size > 1 and _wants_gloo(world) else _by_parent()
        self.folder.mkdir(exist_ok=True)
        self._orders = 0

    def order(self, do: str, **details: Any) -> None:
        """Of the computing rank: let every other rank do something, and wait until all have."""
        self._orders += 1
        path = self.folder / f"{self._orders:06d}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"do": do, **details}), encoding="utf-8")
        temporary.rename(path)
        if do not in ("end", "fail"):
            others = [self._done(rank) for rank in range(self.world.size) if rank != self.world.rank]
            while not all(path.exists() for path in others):
                time.sleep(_PERIOD)

    def follow(self, obey: Callable[[dict[str, Any]], None]) -> int:
        """Of every other rank: obey until the end; its exit status."""
        while True:
            self._orders += 1
            path = self.folder / f"{self._orders:06d}.json"
            while not path.exists():
                time.sleep(_PERIOD)
            order = json.loads(path.read_text(encoding="utf-8"))
            if order["do"] == "end":
                self._done(self.world.rank).touch()
                return int(order["status"])
            obey(order)
            self._done(self.world.rank).touch()

    def end(self, status: int) -> None:
        """Of the computing rank: let the others end, and remove the folder when they have."""
        self.order("end", status=status)
        deadline = time.monotonic() + 10
        others = [self._done(rank) for rank in range(self.world.size) if rank != self.world.rank]
        while not all(path.exists() for path in others) and time.monotonic() < deadline:
            time.sleep(_PERIOD)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _done(self, rank: int) -> Path:
        return self.folder / f"{self._orders:06d}.{rank}"


def _wants_gloo(world: World) -> bool:
    return world.nodes > 1 or os.environ.get(GLOO) != "0"


def _by_parent() -> Path:
    """All ranks of a node have one torchrun; its start time tells it from an older process of the same number."""
    parent, temporary = os.getppid(), Path(tempfile.gettempdir())
    started = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    for old in temporary.glob("qwen3-rehearsal-*-*"):  # of rehearsals that were killed
        if not Path("/proc", old.name.split("-")[2]).exists():
            shutil.rmtree(old, ignore_errors=True)
    return temporary / f"qwen3-rehearsal-{parent}-{started}"


def _meet_in_gloo(world: World) -> Path:
    """A real rendezvous and a barrier over gloo; the group is given back, because one rank computes for all."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    name = [tempfile.mkdtemp(prefix="qwen3-rehearsal-") if world.rank == 0 else ""]
    dist.broadcast_object_list(name, src=0)
    dist.barrier()
    dist.destroy_process_group()
    return Path(name[0])
