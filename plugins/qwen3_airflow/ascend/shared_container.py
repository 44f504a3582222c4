"""One container for all stages of a run: its setup and its teardown.

In a DAG file, around the stages::

    plan = PlanOperator()
    with run_container(plan):
        base = ConvertHfToMcore()
        ...

Where a run has no container of its own, both end well at once and say why: a setup that was
skipped would have its stages skipped as well. That is so with the runtime ``local``, and
where the host's profile says ``container: per_stage`` or names a container that the user has.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TriggerRule

from qwen3_airflow.ascend.hook import DEFAULT_CONN_ID
from qwen3_airflow.jobs import labels_of
from qwen3_airflow.operators import SAVE_GRACE, inputs_of, plan_path, wants_npus
from qwen3_airflow.outcome import refusals_are_final
from qwen3_airflow.runtimes import get_runtime
from qwen3_airflow.runtimes.base import Job, NpusBusy
from qwen3_airflow.triggers import NpuTrigger
from qwen3_ops.plan import load_plan

if TYPE_CHECKING:
    from airflow.sdk import Context

    from qwen3_airflow.runtimes.shared import SharedContainerRuntime
    from qwen3_ops.plan import Plan

_PERIOD = 1.0  # seconds between two looks at stages that save


@contextmanager
def run_container(plan: BaseOperator) -> Iterator[None]:
    """The tasks of the block run between ``plan``, with the setup behind it, and the teardown."""
    setup = StartContainer()
    plan >> setup
    with StopContainer().as_teardown(setups=setup):
        yield


class _SharedContainer(BaseOperator):
    def __init__(self, *, plan_task_id: str = "plan", ascend_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan_task_id, self.ascend_conn_id = plan_task_id, ascend_conn_id

    def _runtime(self, plan: Plan) -> SharedContainerRuntime | None:
        """None where the run has no container of its own."""
        if plan.config.runtime != "docker":
            self.log.info("Nothing to do: the run's runtime is %s, it has no container", plan.config.runtime)
            return None
        runtime: Any = get_runtime("docker", ascend_conn_id=self.ascend_conn_id)
        profile = runtime.profile
        if profile.container != "shared":
            self.log.info("Nothing to do: by the profile of %s each stage has a container of its own", self.ascend_conn_id)
            return None
        if profile.container_name is not None:
            self.log.info("Nothing to do: by the profile of %s the stages run in %s", self.ascend_conn_id, profile.container_name)
            return None
        return runtime


class StartContainer(_SharedContainer):
    """Creates the run's container, with its NPUs, or finds it running. Waits on the triggerer for free NPUs.

    Returns:
        The container's name; None where the run has none of its own.
    """

    def __init__(self, *, task_id: str = "start_container", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, **kwargs)
        self.is_setup = True

    def execute(self, context: Context, event: Any = None) -> str | None:
        with refusals_are_final():
            return self._start(context)

    def _start(self, context: Context) -> str | None:
        from qwen3_airflow.runtimes.run_container import start

        plan = load_plan(plan_path(context, self.plan_task_id))
        runtime = self._runtime(plan)
        if runtime is None:
            return None
        run, on_devices = plan.config, any(map(wants_npus, plan.stages))
        job = Job(
            folder=Path(plan.run_dir) / self.task_id,
            argv=(),
            labels=labels_of(context),
            reads=inputs_of(run),
            writes=(Path(run.output_root),),
            npus=run.nproc_per_node if on_devices else 0,
            multi_node=run.nnodes > 1,
        )
        try:
            return start(runtime.engine, runtime.profile, job)
        except NpusBusy as busy:
            self.log.info("Waiting: %s", busy)
            self.defer(
                trigger=NpuTrigger(ascend_conn_id=self.ascend_conn_id, npus=busy.wanted),
                method_name="execute",
                timeout=self.execution_timeout,
            )


class StopContainer(_SharedContainer):
    """Removes the run's container, however the stages ended.

    Stages that still run in it are those of a run that a person ended: they save first, and
    the task waits for them.

    Args:
        stop_grace: how long they may take, where no one has told them to stop yet.
    """

    def __init__(self, *, task_id: str = "stop_container", stop_grace: timedelta = SAVE_GRACE, **kwargs: Any) -> None:
        super().__init__(task_id=task_id, trigger_rule=TriggerRule.ALL_DONE_SETUP_SUCCESS, **kwargs)
        self.is_teardown = True
        self.stop_grace = stop_grace

    def execute(self, context: Context) -> None:
        from qwen3_airflow.runtimes.run_container import shared_name

        plan = load_plan(plan_path(context, self.plan_task_id))
        runtime = self._runtime(plan)
        if runtime is None:
            return
        run_dir = Path(plan.run_dir)
        self._let_save(runtime, run_dir)
        runtime.engine.remove(shared_name(runtime.profile, run_dir), force=True)

    def _let_save(self, runtime: SharedContainerRuntime, run_dir: Path) -> None:
        grace = self.stop_grace.total_seconds()
        deadline = time.monotonic() + grace + 60
        running = runtime.running_below(run_dir)
        for handle in running:
            self.log.warning("Waiting for %s (%s) to save", handle, handle.job_folder.name)
            runtime.stop(handle, grace=grace)
        while time.monotonic() < deadline and any(runtime.poll(handle) is None for handle in running):
            time.sleep(_PERIOD)
