"""Several nodes, one fate.

Every host runs ``run-stage`` on its own node's command; which one that is it sees by its addresses, or is told by ``--node-rank``.
The hosts tell each other how it goes by files in the stage's folder, which all of them see. Times are compared as that file system
notes them, so the hosts' clocks do not matter. Where all hosts are this machine (a rehearsal), one ``run-stage`` starts all commands.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qwen3_ops.artifacts import write_atomically
from qwen3_ops.errors import BadInput, ExitCode, Infrastructure, Interrupted
from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnosis

_PERIOD = 0.5  # seconds


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Attributes:
    ranks: of the nodes whose commands this process starts.
    count: of all nodes.
    folder: where every host's process says how it is, in the folder of the nodes' logs.
    """

    ranks: tuple[int, ...]
    count: int
    folder: Path
    _sizes: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, *, folder: Path, count: int, node_rank: int | None) -> Nodes:
        """``node_rank``: None where every node is here."""
        return cls(ranks=tuple(range(count)) if node_rank is None else (node_rank,), count=count, folder=folder / "nodes")

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(rank for rank in range(self.count) if rank not in self.ranks)

    @property
    def is_master(self) -> bool:
        return 0 in self.ranks

    def begin(self) -> None:
        self._tell("running")

    def ended(self) -> None:
        """Of a host: its own command ended well."""
        self._tell("ended")

    def done(self) -> None:
        """Of the first host: the stage is whole."""
        self._tell("done")

    def failed(self, code: ExitCode, error: str) -> None:
        self._tell("failed", exit_code=int(code), error=error)

    def look(self) -> Diagnosis | None:
        """Another host's failure since this one began."""
        for rank in self.others:
            told = self._told(rank)
            if told is not None and told["state"] == "failed":
                return Diagnosis(
                    name="other-node",
                    cause=f"node {rank} failed, so this one was stopped: {told['error']}",
                    remedy=f"Look at the log of node {rank}.",
                    code=ExitCode(int(str(told["exit_code"]))),
                    fault=None,
                    source=f"node{rank}",
                )
        return None

    def heard(self, *, speaker: int) -> bool:
        """Whether another host's command has printed something since this was asked last: one that prints nothing itself need not hang.

        Args:
            speaker: the node that prints while all of them work; it alone is to be heard by a host that does not see the others' logs.
        """
        sizes = {}
        for rank in self.others:
            with contextlib.suppress(OSError):
                sizes[rank] = (self.folder.parent / f"node{rank}.log").stat().st_size
        grown = sizes != self._sizes
        self._sizes.update(sizes)
        return bool(self.others) and (grown or (speaker not in self.ranks and speaker not in sizes))

    def wait_for_others(self, *, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """Until every other host's command ended well; of the other hosts: until the first one says that the stage is whole.

        Raises:
            Interrupted, Infrastructure: one failed, or does not end.
        """
        deadline = time.monotonic() + seconds
        wanted = ("ended", "done") if self.is_master else ("done",)
        awaited = self.others if self.is_master else (0,)
        while waiting := [rank for rank in awaited if (self._told(rank) or {}).get("state") not in wanted]:
            failure = self.look()
            if failure is not None or time.monotonic() > deadline:
                why = "they do not end" if failure is None else failure.cause
                stopped = failure is not None and failure.exit_code == ExitCode.INTERRUPTED
                error = Interrupted if stopped else Infrastructure
                raise error("other nodes did not finish", value=f"nodes {', '.join(map(str, waiting))}: {why}")
            sleep(_PERIOD)

    def _tell(self, state: str, **more: object) -> None:
        if not self.others:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for rank in self.ranks:
            if state == "running":
                write_atomically(self._began(rank), "")
            write_atomically(self.folder / f"node{rank}.json", json.dumps({"state": state, **more}) + "\n")

    def _told(self, rank: int) -> dict[str, object] | None:
        """What another host said, unless it said so before this one began: then it was about an earlier start."""
        path = self.folder / f"node{rank}.json"
        try:
            if path.stat().st_mtime_ns < self._began(self.ranks[0]).stat().st_mtime_ns:
                return None
            told: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        except OSError:  # not there yet, or replaced on a shared disk this very moment: it is looked at again
            return None
        return told

    def _began(self, rank: int) -> Path:
        return self.folder / f"node{rank}.began"


def place_of_this_host(hosts: Sequence[str], *, count: int, node_rank: int | None) -> int | None:
    """This host's rank among ``hosts``; None where every node is here, or there is one only.

    Raises:
        BadInput: none of the hosts is this one, or ``node_rank``, which goes first, is no place in the list.
    """
    if node_rank is not None and not 0 <= node_rank < count:
        raise BadInput("no such node", value=node_rank, source="--node-rank", remedy=f"This stage has {count}, counted from 0.")
    if count == 1:
        return None
    if node_rank is not None:
        return node_rank
    here = [rank for rank, host in enumerate(hosts) if _is_here(host)]
    if len(here) == len(hosts):
        return None
    if len(here) == 1:
        return here[0]
    raise BadInput(
        "which of the hosts is this one can not be told from its addresses",
        value=", ".join(hosts),
        source="hosts",
        remedy="Start `run-stage PLAN STAGE --node-rank N` on each of them, N being its place in the list.",
    )


def _is_here(host: str) -> bool:
    """Whether a socket can be bound to it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True
