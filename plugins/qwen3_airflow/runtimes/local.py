"""Runtime ``local``: a process on the worker's own machine.

========================================  ==================================================
what happens                              what follows
========================================  ==================================================
the worker dies                           the process lives on in its own session; the next
                                          try finds it by ``process.json`` and follows it
... between start and ``process.json``    found by the environment variable it was born with
the process ends while no one looks       ``exit.json`` tells how
it is killed                              neither file nor parent: an unknown end, retried
its pid is given to another process       told apart by start time and boot id
========================================  ==================================================
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from qwen3_airflow.runtimes.base import EXIT, LOG, Ended, Handle, Job, read_json, read_log
from qwen3_ops.artifacts import write_atomically
from qwen3_ops.findings import Finding
from qwen3_ops.procfs import Identity, identify, is_session_leader, with_variable

JOB_VARIABLE = "QWEN3_OPS_JOB"
"""Environment variable of every process of a job: the job's folder."""

PROCESS = "process.json"
_PLUGINS = Path(__file__).resolve().parents[2]


class LocalRuntime:
    """Implements ``Runtime`` with processes of this machine. Linux only: it reads ``/proc``."""

    deferrable = False
    python = sys.executable

    def __init__(self) -> None:
        self._identities: dict[str, Identity] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def examine(self) -> list[Finding]:
        """The machine is the worker's, whom the job itself tells of its faults."""
        return []

    def submit(self, job: Job) -> Handle:
        job.folder.mkdir(parents=True, exist_ok=True)
        for name in (EXIT, PROCESS):
            (job.folder / name).unlink(missing_ok=True)
        with (job.folder / LOG).open("ab") as log:
            log_start = log.tell()
            child = subprocess.Popen(
                job.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=job.folder,
                env=_environment(job),
                start_new_session=True,
            )
        identity = identify(child.pid)
        if identity is None:
            raise RuntimeError(f"process {child.pid} of {job.folder} vanished before it could be looked at")
        handle = self._remember(job.folder, identity, log_start=log_start)
        self._children[handle.id] = child
        return handle

    def find(self, job: Job) -> Handle | None:
        record = read_json(job.folder / PROCESS)
        if record is not None:
            identity = Identity(**record["identity"])
            if identity.is_alive():
                return self._handle(job.folder, identity, log_start=record["log_start"], stopping=record["stopping"])
        for identity in with_variable(JOB_VARIABLE, str(job.folder)):
            if is_session_leader(identity):  # not one of its helpers
                return self._remember(job.folder, identity, log_start=0)
        return None

    def poll(self, handle: Handle) -> Ended | None:
        child = self._children.get(handle.id)
        code = child.poll() if child is not None else None
        if code is None and self._identities[handle.id].is_alive():
            return None
        told = read_json(handle.job_folder / EXIT)
        if told is not None:
            return Ended(exit_code=told["exit_code"], error=told["error"])
        return Ended(exit_code=code)

    def logs(self, handle: Handle, offset: int) -> bytes:
        return read_log(handle.job_folder, offset)

    def stop(self, handle: Handle, *, grace: float) -> None:
        record = read_json(handle.job_folder / PROCESS)
        if record is None or record["stopping"]:
            return
        write_atomically(handle.job_folder / PROCESS, json.dumps({**record, "stopping": True}))
        subprocess.Popen(
            [
                *(sys.executable, "-m", "qwen3_airflow.runtimes.stopper"),
                *(JOB_VARIABLE, str(handle.job_folder), str(record["identity"]["pid"]), str(grace)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_PLUGINS), os.environ.get("PYTHONPATH", "")])},
            start_new_session=True,
        )

    def remove(self, handle: Handle) -> None:
        """Nothing is kept of an ended process but its files."""

    def _remember(self, folder: Path, identity: Identity, *, log_start: int) -> Handle:
        record = {"identity": asdict(identity), "log_start": log_start, "stopping": False}
        write_atomically(folder / PROCESS, json.dumps(record))
        return self._handle(folder, identity, log_start=log_start, stopping=False)

    def _handle(self, folder: Path, identity: Identity, *, log_start: int, stopping: bool) -> Handle:
        handle = Handle(job_folder=folder, id=f"process {identity.pid}", log_start=log_start, stopping=stopping)
        self._identities[handle.id] = identity
        return handle


def _environment(job: Job) -> dict[str, str]:
    """The worker's environment without Airflow's own part, which holds its secrets."""
    inherited = {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW_")}
    return {**inherited, "PYTHONUNBUFFERED": "1", JOB_VARIABLE: str(job.folder)}
