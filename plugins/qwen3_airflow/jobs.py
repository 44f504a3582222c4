"""How a task follows a job of a runtime: on the worker, or deferred to the triggerer.

Both ways end in :meth:`JobOperator._finish`, on a worker: the log's last lines, the outcome,
the result. A job is found by its folder, so it does not matter which try, worker or
triggerer started or followed it before.
"""

from __future__ import annotations

import hashlib
import re
import time
from abc import abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator, ResumableJobMixin, conf
from airflow.sdk.exceptions import AirflowException, TaskDeferralTimeout

from qwen3_airflow.lines import Lines, tell
from qwen3_airflow.outcome import may_pass, raise_unless_done, refusals_are_final
from qwen3_airflow.runtimes.base import Ended, Handle, Job, NpusBusy, Runtime
from qwen3_airflow.triggers import JobTrigger, NpuTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class JobOperator(ResumableJobMixin, BaseOperator):  # type: ignore[misc]
    """Starts a job, or finds it running, and follows it to its end.

    The job's process belongs to no worker: when the worker dies it goes on, and the next
    try follows it instead of starting another.

    Args:
        ascend_conn_id: the host's connection, where the runtime is ``docker``.
        stop_grace: how long a stopped job may take to save before it is killed.
        poll_interval: seconds between two looks at the log.
        deferrable: wait on the triggerer, holding no worker slot, where the runtime allows it;
            ``execution_timeout`` then bounds the wait.
    """

    external_id_key = "qwen3_job"

    def __init__(
        self,
        *,
        ascend_conn_id: str = "ascend_default",
        stop_grace: timedelta = timedelta(minutes=5),
        poll_interval: float = 0.25,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ascend_conn_id = ascend_conn_id
        self.stop_grace = stop_grace
        self.poll_interval = poll_interval
        self.deferrable = deferrable
        self._launch: tuple[Runtime, Job] | None = None
        self._running: tuple[Runtime, Handle] | None = None
        self._results: list[Any] = []

    @abstractmethod
    def launch(self, context: Context) -> tuple[Runtime, Job]:
        """The runtime and what it is to run; looked up once a try."""

    @abstractmethod
    def result(self, context: Context) -> Any:
        """What the task returns after its job ended well."""

    def execute(self, context: Context) -> Any:
        with refusals_are_final():
            return self._start(context)

    def _start(self, context: Context) -> Any:
        runtime, job = self._launched(context)
        if not (self.deferrable and runtime.deferrable):
            return self.execute_resumable(context)
        handle = self._begin(runtime, job)
        self._defer(handle, offset=handle.log_start)

    def npus_are_free(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Another task may have been quicker: then it waits again."""
        with refusals_are_final():
            return self._start(context)

    def resume(self, context: Context, event: Mapping[str, Any]) -> Any:
        """The job has ended, or its engine was away for too long; the engine itself is asked."""
        if error := event.get("error"):
            raise AirflowException(error)
        with refusals_are_final():
            runtime, _ = self._launched(context)
            return self._finish(runtime, Handle.from_json(event["handle"]), context, offset=event["offset"])

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            runtime, job = self._launched(context)
            if (handle := runtime.find(job)) is not None:
                self._stop(runtime, handle)
            raise

    def on_kill(self) -> None:
        """Ask the job to save and end. Its last lines are still followed while the worker lets us."""
        if self._running is not None:
            self._stop(*self._running)

    # ResumableJobMixin, for the worker that follows by itself

    def submit_job(self, context: Context) -> dict[str, Any]:
        return self._begin(*self._launched(context)).to_json()

    def get_job_status(self, external_id: Any, context: Context) -> str:
        runtime, job = self._launched(context)
        handle = runtime.find(job)
        if handle is None or handle.id != external_id["id"] or handle.stopping:
            return "gone"
        ended = runtime.poll(handle)
        if ended is not None and may_pass(ended):
            return "gone"
        if ended is not None:
            return "ended"
        self.log.info("Following %s, which an earlier try started", handle)
        return "running"

    def is_job_active(self, status: str) -> bool:
        return status == "running"

    def is_job_succeeded(self, status: str) -> bool:
        """Ended while no one looked: for good or ill, its end is the task's outcome."""
        return status == "ended"

    def poll_until_complete(self, external_id: Any, context: Context) -> Any:
        """Returns the result: on a reconnect the mixin asks no further."""
        runtime, _ = self._launched(context)
        self._results = [self._finish(runtime, Handle.from_json(external_id), context)]
        return self._results[0]

    def get_job_result(self, external_id: Any, context: Context) -> Any:
        return self._results[0] if self._results else self.poll_until_complete(external_id, context)

    # both ways

    def _launched(self, context: Context) -> tuple[Runtime, Job]:
        if self._launch is None:
            self._launch = self.launch(context)
        return self._launch

    def _begin(self, runtime: Runtime, job: Job) -> Handle:
        """The job's process. Without free NPUs the task waits on the triggerer: that may take hours, and a worker's slot is scarce."""
        try:
            return self._attach_or_submit(runtime, job)
        except NpusBusy as busy:
            self.log.info("Waiting: %s", busy)
            self.defer(
                trigger=NpuTrigger(ascend_conn_id=self.ascend_conn_id, npus=busy.wanted),
                method_name="npus_are_free",
                timeout=self.execution_timeout,
            )

    def _attach_or_submit(self, runtime: Runtime, job: Job) -> Handle:
        """The process that an earlier try left behind, or a new one where that has nothing more to give."""
        handle = runtime.find(job)
        if handle is None:
            return runtime.submit(job)
        ended = runtime.poll(handle)
        if handle.stopping:
            self.log.info("Waiting for %s, which an earlier try told to stop", handle)
        elif ended is not None and may_pass(ended):
            self.log.info("An earlier try's %s ended while no one looked", handle)
        else:
            self.log.info("Following %s, which an earlier try started", handle)
            return handle
        self._follow(runtime, handle, offset=handle.log_start)
        runtime.remove(handle)
        return runtime.submit(job)

    def _defer(self, handle: Handle, *, offset: int) -> NoReturn:
        self.log.info("Deferring: the triggerer follows %s", handle)
        self.defer(
            trigger=JobTrigger(
                ascend_conn_id=self.ascend_conn_id,
                handle=handle.to_json(),
                offset=offset,
                poll_interval=max(self.poll_interval, 1.0),
                stop_grace=self.stop_grace.total_seconds(),
            ),
            method_name="resume",
            timeout=self.execution_timeout,
        )

    def _finish(self, runtime: Runtime, handle: Handle, context: Context, *, offset: int | None = None) -> Any:
        ended = self._follow(runtime, handle, offset=handle.log_start if offset is None else offset)
        runtime.remove(handle)
        raise_unless_done(ended)
        return self.result(context)

    def _follow(self, runtime: Runtime, handle: Handle, *, offset: int) -> Ended:
        self._running = (runtime, handle)
        lines = Lines()
        while True:
            ended = runtime.poll(handle)  # before reading: the log is whole once the process has ended
            while piece := runtime.logs(handle, offset):
                offset += len(piece)
                tell(self.log, lines.feed(piece))
            if ended is not None:
                tell(self.log, lines.finish())
                self._running = None
                return ended
            time.sleep(self.poll_interval)

    def _stop(self, runtime: Runtime, handle: Handle) -> None:
        self.log.warning("Stopping %s, which has %s to save its work", handle, self.stop_grace)
        runtime.stop(handle, grace=self.stop_grace.total_seconds())


def labels_of(context: Context) -> dict[str, str]:
    """Who wants a job: for people who look at the host, and for the reaper."""
    ti = context["ti"]
    return {
        "airflow": installation(),
        "dag": ti.dag_id,
        "run": ti.run_id,
        "task": ti.task_id,
        "map_index": str(ti.map_index),
        "try": str(ti.try_number),
    }


def installation() -> str:
    """Tells apart the containers of two Airflows on one host."""
    return str(conf.get("api", "base_url", fallback="")).rstrip("/") or "airflow"


def name_of_run(dag_id: str, run_id: str) -> str:
    """A folder name for the DAG run; a digest keeps apart what replacing characters, or cutting 500 of them, would make equal."""
    whole = f"{dag_id}/{run_id}"
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', whole)[:200]}-{digest}"
