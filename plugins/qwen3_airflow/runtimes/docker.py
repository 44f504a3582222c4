"""Runtime ``docker``: a container on a host with a Docker Engine, which need not be the worker's.

========================================  ==================================================
what happens                              what follows
========================================  ==================================================
the worker or the triggerer dies          the container lives on; whoever comes next finds it
                                          by its name and follows ``stage.log``
two workers submit the same job           the engine knows the name: the second joins
the worker dies between create and start  ``find`` starts what was created
the container ends while no one looks     it stays until its end was read
it is removed by someone else             ``attempt.json`` on the mount tells how it ended
dockerd dies (live-restore)               calls are repeated until it is back
the worker that stops it dies             a process of its own keeps the grace; the reaper
                                          DAG looks after what that one leaves
========================================  ==================================================
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from docker.errors import APIError

from qwen3_airflow.ascend.leases import Lease, choose, holders, leased
from qwen3_airflow.ascend.profile import HostProfile
from qwen3_airflow.runtimes import container
from qwen3_airflow.runtimes.base import EXIT, LOG, Ended, Handle, Job, read_json, read_log
from qwen3_airflow.runtimes.engine import CONFLICT, Engine
from qwen3_airflow.runtimes.image import image_environment, image_findings
from qwen3_ops.artifacts import write_atomically
from qwen3_ops.attempt import ATTEMPT
from qwen3_ops.findings import Finding

STOP = "stop.json"
"""Which container was told to stop, and until when it may save."""

STOPPER_LOG = "stopper.log"

PLUGINS = str(Path(__file__).resolve().parents[2])
_ENDED = ("exited", "dead")
_REMOVAL_SECONDS = 60.0  # for the engine to remove a container, whose name is taken until then
_PERIOD = 0.5
_SIGNALS = {128 + 9: -9, 128 + 15: -15}


class DockerRuntime:
    """Implements ``Runtime`` with one container for each job."""

    deferrable = True

    def __init__(self, engine: Engine, profile: HostProfile) -> None:
        self.engine = engine
        self.profile = profile
        self.python = profile.python

    def submit(self, job: Job) -> Handle:
        job.folder.mkdir(parents=True, exist_ok=True)
        image = image_environment(self.engine, self.profile)
        attempt = uuid.uuid4().hex
        deadline = time.monotonic() + _REMOVAL_SECONDS
        while True:
            try:
                with leased(self.engine, self.profile, job.npus) as lease:
                    self._create(job, lease, attempt=attempt, image=image)
            except APIError as error:
                if error.status_code != CONFLICT:
                    raise
            if (handle := self.find(job)) is not None:  # starts it
                return handle
            if time.monotonic() > deadline:
                name = container.container_name(job)
                raise RuntimeError(f"the name {name} is taken by a container whose removal does not end: `docker rm -f {name}`")
            time.sleep(_PERIOD)

    def find(self, job: Job) -> Handle | None:
        found = self.engine.inspect(container.container_name(job))
        if found is None:
            return None
        marks = found["Config"]["Labels"] or {}
        if marks.get(container.JOB) != str(job.folder):
            raise RuntimeError(f"a container that is not ours has the name {container.container_name(job)}: {found['Id'][:12]}")
        if found["State"]["Status"] == "created":
            self._start(found["Id"])
        told = read_json(job.folder / STOP)
        return Handle(
            job_folder=job.folder,
            id=found["Id"],
            name=f"container {container.container_name(job)} ({found['Id'][:12]})",
            log_start=int(marks[container.LOG_START]),
            attempt=marks[container.ATTEMPT],
            stopping=told is not None and told["container"] == found["Id"],
        )

    def poll(self, handle: Handle) -> Ended | None:
        found = self.engine.inspect(handle.id)
        record = read_json(handle.job_folder / ATTEMPT)
        mine = record if record is not None and record["id"] == handle.attempt else None
        if found is None:
            return Ended(exit_code=None) if mine is None else ended_by_record(handle, mine["exit_code"])
        state = found["State"]
        if state["Status"] not in _ENDED:
            return None
        if mine is None and not state["OOMKilled"]:
            said = self.engine.call("logs", handle.id, tail=20).decode(errors="replace").strip()
            return Ended(exit_code=state["ExitCode"], error=f"the container did not come to run the stage: {state['Error'] or said}")
        code = mine["exit_code"] if mine is not None else None
        if code is None and state["ExitCode"] != 0:  # killed: the record was never closed
            code = state["ExitCode"]
        ended = ended_by_record(handle, code)
        if state["OOMKilled"] and ended.exit_code != 0 and ended.error is None:  # set by the death of any process inside
            return Ended(exit_code=-9, error="the container was killed: its host ran out of memory")
        return ended

    def logs(self, handle: Handle, offset: int) -> bytes:
        return read_log(handle.job_folder, offset)

    def stop(self, handle: Handle, *, grace: float) -> None:
        told = read_json(handle.job_folder / STOP)
        if told is not None and told["container"] == handle.id:
            return
        write_atomically(handle.job_folder / STOP, json.dumps({"container": handle.id, "deadline": time.time() + grace}))
        # Even the first signal is the other process's: this one may be killed while an engine in trouble lets it wait.
        order = {"address": asdict(self.engine.address), "container": handle.id, "grace": grace}
        start_stopper("docker_stopper", order, log=handle.job_folder / STOPPER_LOG)

    def remove(self, handle: Handle) -> None:
        self.engine.remove(handle.id, force=True)

    def examine(self) -> list[Finding]:
        return image_findings(self.engine, self.profile)

    def require_npus(self, count: int) -> None:
        """Raises NpusBusy: fewer are free now."""
        choose(self.profile, count, holders(self.engine))

    def _create(self, job: Job, lease: Lease, *, attempt: str, image: Mapping[str, str]) -> None:
        log = job.folder / LOG
        log_start = log.stat().st_size if log.exists() else 0
        options = container.host_options(job, self.profile, lease)
        config = self.engine.call(
            "create_container_config",
            image=self.profile.image,
            entrypoint=[self.profile.python],
            command=container.attempt_command(job, self.profile, attempt),
            environment=container.environment(job, self.profile, lease, image=image),
            labels=container.labels(job, lease, attempt=attempt, log_start=log_start),
            user=self.profile.user,
            working_dir=str(job.folder),
            host_config=self.engine.call("create_host_config", **options),
        )
        config["StopTimeout"] = int(job.stop_grace)  # also for who types `docker stop`
        self.engine.call("create_container_from_config", config, container.container_name(job))

    def _start(self, container_id: str) -> None:
        """Raises docker.errors.APIError: it can not be started; then it is removed."""
        try:
            self.engine.start(container_id)
        except APIError:
            self.engine.remove(container_id, force=True)
            raise


def start_stopper(module: str, order: Mapping[str, Any], *, log: Path) -> None:
    """A process that outlives this one and keeps the grace; what it has to say goes to ``log``."""
    inherited = {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW")}
    with log.open("ab") as file:
        stopper = subprocess.Popen(
            [sys.executable, "-m", f"qwen3_airflow.runtimes.{module}"],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env={**inherited, "PYTHONPATH": os.pathsep.join([PLUGINS, os.environ.get("PYTHONPATH", "")])},
            start_new_session=True,
        )
    assert stopper.stdin is not None
    with stopper.stdin as pipe:
        pipe.write(json.dumps(order).encode() + b"\n")


def ended_by_record(handle: Handle, code: int | None) -> Ended:
    """The end with the stage's own words, where it left some."""
    told = read_json(handle.job_folder / EXIT)
    error = told["error"] if told is not None and told["exit_code"] == code else None
    return Ended(exit_code=code if code is None else _SIGNALS.get(code, code), error=error)
