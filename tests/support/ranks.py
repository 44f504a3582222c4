"""Training runs in processes of their own: several together as torchrun starts them, or one that is killed at a chosen moment.

They are forked from a server that has imported torch once.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "qwen3_ops.native.training.verb", "torch.distributed.fsdp", "peft"])


Job = "tuple[list[str], Path, dict[str, str], Moment | None]"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One process after its end: exit code, what it printed, its metric events and its outcome."""

    code: int
    said: str
    metrics: list[dict[str, Any]]
    outcome: dict[str, Any] | None

    def curve(self, name: str) -> dict[int, float]:
        return {row["iteration"]: row[name] for row in self.metrics if name in row}


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When a process sends itself a signal: at the ``number``-th call of a function, before it or ``after`` it."""

    module: str
    function: str
    number: int
    after: bool = False
    signal: int = signal.SIGKILL

    def arm(self) -> None:
        *classes, name = self.function.split(".")
        owner: Any = sys.modules[self.module]
        for cls in classes:
            owner = getattr(owner, cls)
        real, calls = getattr(owner, name), itertools.count(1)

        def watched(*args: Any, **kwargs: Any) -> Any:
            due = next(calls) == self.number
            if due and not self.after:
                os.kill(os.getpid(), self.signal)
            result = real(*args, **kwargs)
            if due and self.after:
                os.kill(os.getpid(), self.signal)
            return result

        setattr(owner, name, watched)


def train_together(argv: list[str], *, size: int, folder: Path, moment: Moment | None = None) -> list[Ended]:
    """``qwen3-ops train ARGV`` in ``size`` processes over gloo; the last one has its ``moment``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    jobs: list[Job] = []
    for rank in range(size):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        jobs.append((argv, folder / f"rank{rank}", place, moment if rank == size - 1 else None))
    return _run(jobs)


def train_apart(argv: list[str], *, folder: Path, moment: Moment) -> Ended:
    """``qwen3-ops train ARGV`` in one process of its own."""
    return _run([(argv, folder, {}, moment)])[0]


def _run(jobs: list[Job]) -> list[Ended]:
    for _, folder, _, _ in jobs:
        folder.mkdir(parents=True, exist_ok=True)
    processes = [_CONTEXT.Process(target=_train, args=job) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        if process.is_alive():
            process.kill()
    return [_ended(process.exitcode or 0, folder) for process, (_, folder, _, _) in zip(processes, jobs, strict=True)]


def _ended(code: int, folder: Path) -> Ended:
    result = folder / "result.json"
    told = json.loads(result.read_text()) if result.exists() else {"metrics": [], "outcome": None}
    return Ended(code=code, said=(folder / "said.txt").read_text(), **told)


def _train(argv: list[str], folder: Path, environment: dict[str, str], moment: Moment | None) -> None:
    from qwen3_ops.errors import OpsError
    from qwen3_ops.events import Events
    from qwen3_ops.native.training.flags import FLAGS
    from qwen3_ops.native.training.verb import run
    from qwen3_ops.verbs import Context

    class Recorder(Events):
        def __init__(self) -> None:
            super().__init__()
            self.metrics: list[dict[str, Any]] = []

        def metric(self, *, step: int | None = None, **values: float) -> None:
            self.metrics.append({"iteration": step, **values})

    said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ.update(environment, OMP_NUM_THREADS="1")
    if moment is not None:
        moment.arm()
    events = Recorder()
    outcome = None
    try:
        made = run(FLAGS.parse(argv)[0], Context(events=events))
        outcome = {"kind": made.kind, "facts": dict(made.facts), "metrics": dict(made.metrics)}
    except OpsError as error:
        print(error)
        sys.exit(int(error.exit_code))
    finally:
        (folder / "result.json").write_text(json.dumps({"metrics": events.metrics, "outcome": outcome}))
