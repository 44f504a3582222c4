"""One container for all stages of a run: its setup and its teardown.

In a DAG file, around the stages::

    plan >> StartContainer() >> [base, data]
    [exported, answers, after] >> StopContainer()

Where the host's profile says ``container: per_stage``, or names a container that the user
has, both do nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TriggerRule
from airflow.sdk.exceptions import AirflowFailException

from qwen3_airflow.ascend.hook import DEFAULT_CONN_ID
from qwen3_airflow.jobs import labels_of
from qwen3_airflow.operators import inputs_of, plan_path
from qwen3_airflow.runtimes import get_runtime
from qwen3_airflow.runtimes.base import Job, NpusBusy
from qwen3_airflow.triggers import NpuTrigger
from qwen3_ops.errors import BadInput
from qwen3_ops.plan import load_plan
from qwen3_ops.verbs import VERBS

if TYPE_CHECKING:
    from airflow.sdk import Context

    from qwen3_airflow.runtimes.shared import SharedContainerRuntime
    from qwen3_ops.plan import Plan

SHARED = "qwen3-ops.shared"
"""Label of a container that lives as long as its DAG run."""


class _SharedContainer(BaseOperator):
    def __init__(self, *, plan_task_id: str = "plan", ascend_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan_task_id, self.ascend_conn_id = plan_task_id, ascend_conn_id

    def _runtime(self, plan: Plan) -> SharedContainerRuntime | None:
        """None where the run has no container of its own."""
        if plan.config.runtime != "docker":
            return None
        runtime: Any = get_runtime("docker", ascend_conn_id=self.ascend_conn_id)
        if runtime.profile.container != "shared" or runtime.profile.container_name is not None:
            self.log.info("Nothing to do: the host's profile makes no container for a run")
            return None
        return runtime


class StartContainer(_SharedContainer):
    """Creates the run's container, with its NPUs, or finds it running. Waits on the triggerer for free NPUs."""

    def __init__(self, *, task_id: str = "start_container", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, **kwargs)
        self.is_setup = True

    def execute(self, context: Context, event: Any = None) -> str | None:
        plan = load_plan(plan_path(context, self.plan_task_id))
        runtime = self._runtime(plan)
        if runtime is None:
            return None
        run, on_devices = plan.config, any(VERBS[stage.verb].on_devices for stage in plan.stages)
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
            return start(runtime, job)
        except NpusBusy as busy:
            self.log.info("Waiting: %s", busy)
            self.defer(trigger=NpuTrigger(ascend_conn_id=self.ascend_conn_id, npus=job.npus), method_name="execute")
        except BadInput as refusal:
            raise AirflowFailException(str(refusal)) from None


class StopContainer(_SharedContainer):
    """Removes the run's container, however the stages ended."""

    def __init__(self, *, task_id: str = "stop_container", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, trigger_rule=TriggerRule.ALL_DONE_SETUP_SUCCESS, **kwargs)
        self.is_teardown = True

    def execute(self, context: Context) -> None:
        from qwen3_airflow.runtimes.shared import shared_name

        plan = load_plan(plan_path(context, self.plan_task_id))
        runtime = self._runtime(plan)
        if runtime is not None:
            runtime.engine.remove(shared_name(runtime.profile, Path(plan.run_dir)), force=True)


def start(runtime: SharedContainerRuntime, job: Job) -> str:
    """Create and start the container of the run whose folder holds ``job.folder``; its name.

    Raises:
        NpusBusy: try again later.
    """
    from docker.errors import APIError

    from qwen3_airflow.ascend.leases import leased
    from qwen3_airflow.runtimes import container
    from qwen3_airflow.runtimes.docker import image_environment
    from qwen3_airflow.runtimes.engine import CONFLICT
    from qwen3_airflow.runtimes.shared import shared_name

    engine, profile = runtime.engine, runtime.profile
    name = shared_name(profile, job.folder.parent)
    if engine.inspect(name) is None:
        image = image_environment(engine, profile)
        with leased(engine, profile, job.npus) as lease:
            options = container.host_options(job, profile, lease)
            bindings = {inside: ("127.0.0.1", outside) for inside, outside in profile.ports.items()}
            if options["network_mode"] != "host" and bindings:
                options = {**options, "network_mode": "bridge", "port_bindings": bindings}
            config = engine.call(
                "create_container_config",
                image=profile.image,
                entrypoint=[profile.python],
                command=["-c", "import signal; signal.pause()"],
                environment=container.environment(job, profile, lease, image=image),
                labels={**container.labels(job, lease, attempt="", log_start=0), SHARED: "1"},
                user=profile.user,
                ports=list(profile.ports) or None,
                host_config=engine.call("create_host_config", **options),
            )
            try:
                engine.call("create_container_from_config", config, name)
            except APIError as error:
                if error.status_code != CONFLICT:
                    raise
    engine.call("start", name)
    return name
