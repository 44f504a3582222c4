"""Runtime ``docker`` with one long-lived container, as the runbook has it: stages run in it by exec.

A detached exec has no name and dockerd forgets it when it restarts, so files tell its state:

========================================  ==================================================
``exec.json``                             an attempt was begun: written before the exec starts
``attempt.json``                          it runs, or how it ended; a lock beside it lets no
                                          second attempt of a job start
its id in `docker top`                    it is alive; true after dockerd was restarted too
========================================  ==================================================
"""

from __future__ import annotations

import json
import os
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from docker.errors import APIError

from qwen3_airflow.ascend.leases import choose, holders
from qwen3_airflow.ascend.profile import HostProfile
from qwen3_airflow.runtimes import container
from qwen3_airflow.runtimes.base import Ended, Handle, Job, read_json, read_log
from qwen3_airflow.runtimes.docker import STOPPER_LOG, ended_by_record, start_stopper
from qwen3_airflow.runtimes.engine import CONFLICT, NOT_FOUND, Engine
from qwen3_airflow.runtimes.image import image_findings
from qwen3_airflow.runtimes.run_container import shared_name, start_again
from qwen3_ops.artifacts import write_atomically
from qwen3_ops.attempt import ATTEMPT
from qwen3_ops.errors import BadInput
from qwen3_ops.findings import Finding

_START_SECONDS = 30.0  # for an exec to write its first record
_PERIOD = 0.2


class SharedContainerRuntime:
    """Implements ``Runtime`` with execs in one container."""

    deferrable = True

    def __init__(self, engine: Engine, profile: HostProfile) -> None:
        self.engine, self.profile, self.python = engine, profile, profile.python

    def examine(self) -> list[Finding]:
        """Nothing where the user's own container stands: its image is the user's."""
        return image_findings(self.engine, self.profile) if self.profile.container_name is None else []

    def require_npus(self, count: int) -> None:
        """For who makes the container: its stages queue for its NPUs inside. Raises NpusBusy."""
        choose(self.profile, count, holders(self.engine))

    def submit(self, job: Job) -> Handle:
        job.folder.mkdir(parents=True, exist_ok=True)
        name = self._require_container(job)
        attempt = uuid.uuid4().hex
        created = self.engine.call(
            "exec_create",
            name,
            [self.profile.python, *container.attempt_command(job, self.profile, attempt)],
            environment={"PYTHONUNBUFFERED": "1", **self._package()},
            workdir=str(job.folder),
            user=self.profile.user or "",
        )
        if self._claim(job, {"container": name, "attempt": attempt, "stopping": False}):
            self._start(created["Id"])
        handle = self.find(job)
        if handle is None:
            raise RuntimeError(f"the stage did not start in {name}: see `docker exec {name} {self.profile.python} -m qwen3_ops --version`")
        return handle

    def find(self, job: Job) -> Handle | None:
        deadline = time.monotonic() + _START_SECONDS
        while (begun := read_json(job.folder / container.EXEC)) is not None:
            record = read_json(job.folder / ATTEMPT)
            if record is not None and (record["id"] == begun["attempt"] or lives(self.engine, begun["container"], record["id"])):
                return Handle(
                    job_folder=job.folder,
                    id=f"{begun['container']}/{record['id']}",
                    name=f"the stage in container {begun['container']}",
                    log_start=record["log_start"],
                    attempt=record["id"],
                    stopping=begun["stopping"],
                )
            begins = _is_young(job.folder / container.EXEC) or lives(self.engine, begun["container"], begun["attempt"])
            if time.monotonic() > deadline or not begins:
                return None  # it never started
            time.sleep(_PERIOD)
        return None

    def poll(self, handle: Handle) -> Ended | None:
        name = handle.id.partition("/")[0]
        alive = lives(self.engine, name, handle.attempt)
        record = read_json(handle.job_folder / ATTEMPT)
        mine = record if record is not None and record["id"] == handle.attempt else None
        if mine is not None and mine["exit_code"] is not None:
            return ended_by_record(handle, mine["exit_code"])
        return None if alive else Ended(exit_code=None)

    def logs(self, handle: Handle, offset: int) -> bytes:
        return read_log(handle.job_folder, offset)

    def stop(self, handle: Handle, *, grace: float) -> None:
        begun = read_json(handle.job_folder / container.EXEC)
        if begun is None or begun["stopping"]:
            return
        write_atomically(handle.job_folder / container.EXEC, json.dumps({**begun, "stopping": True}))
        order = {
            "address": asdict(self.engine.address),
            "container": begun["container"],
            "grace": grace,
            "python": self.profile.python,
            "folder": str(handle.job_folder),
            "attempt": handle.attempt,
            "user": self.profile.user or "",  # the stage's own: another may not send it signals
        }
        start_stopper("exec_stopper", order, log=handle.job_folder / STOPPER_LOG)

    def remove(self, handle: Handle) -> None:
        (handle.job_folder / container.EXEC).unlink(missing_ok=True)

    def running_below(self, run_dir: Path) -> list[Handle]:
        """Every job of the run whose process lives."""
        found = (self.find(Job(folder=path.parent, argv=())) for path in sorted(run_dir.glob(f"*/{container.EXEC}")))
        return [handle for handle in found if handle is not None and self.poll(handle) is None]

    def _start(self, exec_id: str) -> None:
        try:
            self.engine.call("exec_start", exec_id, detach=True)
        except APIError as error:  # repeated after a lost answer: it runs already, or a new dockerd does not know it
            if error.status_code not in (CONFLICT, NOT_FOUND):
                raise

    def _claim(self, job: Job, claim: dict[str, Any]) -> bool:
        """Whether this attempt is the one to start; a claim whose attempt never started gives way."""
        path = job.folder / container.EXEC
        if path.exists() and self.find(job) is None:
            path.unlink(missing_ok=True)
        whole = path.with_name(f".{path.name}.{claim['attempt']}")
        whole.write_text(json.dumps(claim), encoding="utf-8")
        try:
            os.link(whole, path)  # whole or not at all, and only once
        except FileExistsError:
            return False
        finally:
            whole.unlink()
        return True

    def _package(self) -> dict[str, str]:
        return {} if self.profile.package_dir is None else {"PYTHONPATH": self.profile.package_dir}

    def _require_container(self, job: Job) -> str:
        """The run's container, made again where it was lost; its name."""
        run_dir = job.folder.parent
        name = shared_name(self.profile, run_dir)
        found = self.engine.inspect(name)
        own = self.profile.container_name is None
        if own and not _runs(found) and start_again(self.engine, self.profile, run_dir):
            found = self.engine.inspect(name)
        if found is None or not _runs(found):
            raise BadInput(
                "there is no running shared container",
                value=name,
                remedy="Clear the task start_container, or put StartContainer before the stages." if own else "Start it: docker start.",
            )
        for bind in container.binds(job, self.profile):
            if not any(_shows(mount, bind) for mount in found["Mounts"]):
                raise BadInput(
                    f"the shared container {name} does not see a folder of the run", value=bind.target, remedy="Mount it at the same place."
                )
        return name


def _is_young(claim: Path) -> bool:
    """Whether its exec may still be on its way; a claim that was dropped meanwhile has none."""
    try:
        return time.time() - claim.stat().st_mtime < _START_SECONDS
    except FileNotFoundError:
        return False


def _shows(mount: dict[str, Any], bind: container.Bind) -> bool:
    """Whether a container with the mount has at ``bind.target`` what the host has there, be it behind a link."""
    rest = bind.target.removeprefix(mount["Destination"])
    below = rest == "" or (rest != bind.target and rest.startswith("/"))
    return below and os.path.realpath(mount.get("Source", "") + rest) == bind.source


def _runs(found: dict[str, Any] | None) -> bool:
    return found is not None and bool(found["State"]["Running"])


def lives(engine: Engine, name: str, attempt: str) -> bool:
    """Whether a process with the attempt's id in its arguments runs in the container."""
    try:
        listed: dict[str, Any] = engine.call("top", name, ps_args="-ww -eo pid,args")  # whole lines
    except APIError:
        found = engine.inspect(name)
        if found is not None and found["State"]["Running"]:
            raise
        return False
    return any(attempt in row[-1] for row in listed["Processes"] or [])
