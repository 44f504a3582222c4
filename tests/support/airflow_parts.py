"""Worker and triggerer as processes of their own, without a scheduler: each may be killed at a chosen point.

A part is forked from the test, so it starts at once; what it says and how it ends goes to files.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from qwen3_airflow.runtimes.docker import DockerRuntime
from qwen3_airflow.triggers import JobTrigger
from waiting import wait_for


class FileLog:
    """Takes the place of a task's log."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _say(self, line: str, *values: Any, **fields: Any) -> None:
        os.write(self._file, ((line % values if values else line) + "\n").encode())  # unbuffered: it may be killed

    info = warning = error = _say

    def debug(self, line: str, *values: Any, **fields: Any) -> None:
        """Not kept."""


class FileStore:
    """Takes the place of Airflow's task_state_store, which survives the worker."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str) -> Any:
        return json.loads(self.path.read_text()).get(key) if self.path.exists() else None

    def set(self, key: str, value: Any) -> None:
        self.path.write_text(json.dumps({key: value}))


@dataclass
class Part:
    """A running worker or triggerer."""

    pid: int
    outcome: Path
    status: int | None = None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def wait(self, *, seconds: float = 120) -> dict[str, Any]:
        """What it came to; ``{"state": "killed"}`` when it was."""
        wait_for("the end of a part", self.ended, seconds=seconds)
        return json.loads(self.outcome.read_text()) if self.status == 0 else {"state": "killed"}


@dataclass
class Task:
    """One task of one DAG run: the test is its scheduler."""

    folder: Path
    make_operator: Callable[[], Any]
    tries: int = 0
    parts: list[Part] = field(default_factory=list)

    def worker(self, *, die: str | None = None, resume: dict[str, Any] | None = None) -> Part:
        """Start a worker: a new try, or the return from the triggerer.

        Args:
            die: a point of ``POINTS`` at which it is killed with SIGKILL.
            resume: the triggerer's outcome.
        """
        if resume is None:
            self.tries += 1
        return self._fork(lambda: self._work(resume), die=die, log="worker.log")

    def triggerer(self, deferred: dict[str, Any], *, die: str | None = None) -> Part:
        return self._fork(lambda: self._watch(deferred), die=die, log="trigger.log")

    def told(self, name: str = "worker.log") -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def _work(self, resume: dict[str, Any] | None) -> dict[str, Any]:
        operator = self.make_operator()
        ti = SimpleNamespace(
            dag_id="d", run_id=self.folder.name, task_id=operator.task_id, map_index=-1, try_number=self.tries, stats_tags={}
        )
        context = {"ti": ti, "task_state_store": FileStore(self.folder / "state_store.json")}
        try:
            if resume is None:
                result = type(operator).execute.__wrapped__(operator, context)
            else:
                given = {"error": resume["error"]} if "error" in resume else {"event": resume["event"]}
                result = operator.resume_execution(resume["method"], given, context)
        except TaskDeferred as deferred:
            _, kwargs = deferred.trigger.serialize()
            return {"state": "deferred", "trigger": kwargs, "method": deferred.method_name}
        except AirflowFailException as error:
            return {"state": "failed", "error": str(error)}
        except Exception as error:
            return {"state": "up_for_retry", "error": f"{type(error).__name__}: {error}"}
        return {"state": "success", "result": result}

    def _watch(self, deferred: dict[str, Any]) -> dict[str, Any]:
        async def first_event() -> Any:
            async for event in JobTrigger(**deferred["trigger"]).run():
                return event.payload

        return {"method": deferred["method"], "event": asyncio.run(first_event())}

    def _fork(self, work: Callable[[], dict[str, Any]], *, die: str | None, log: str) -> Part:
        self.folder.mkdir(parents=True, exist_ok=True)
        outcome = self.folder / f"outcome-{len(self.parts)}.json"
        pid = os.fork()
        if pid == 0:
            try:
                from qwen3_airflow.jobs import JobOperator

                JobOperator.log = JobTrigger.log = FileLog(self.folder / log)
                if die is not None:
                    POINTS[die]()
                told = work()
                outcome.write_text(json.dumps({**told, "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
                os._exit(0)
            except BaseException:
                (self.folder / "crash.txt").write_text(traceback.format_exc())
                os._exit(1)
        part = Part(pid=pid, outcome=outcome)
        self.parts.append(part)
        return part


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: type, name: str) -> Callable[[], None]:
    def arm() -> None:
        setattr(owner, name, lambda *args, **kwargs: _die())

    return arm


def _after(owner: type, name: str) -> Callable[[], None]:
    def arm() -> None:
        original = getattr(owner, name)

        def once(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            _die()

        setattr(owner, name, once)

    return arm


POINTS: dict[str, Callable[[], None]] = {
    "before create": _before(DockerRuntime, "_create"),
    "between create and start": _before(DockerRuntime, "_start"),
    "after start": _after(DockerRuntime, "_start"),
    "before remove": _before(DockerRuntime, "remove"),
    "after remove": _after(DockerRuntime, "remove"),
}
