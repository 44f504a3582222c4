"""One operator for the plan, one for each stage of the runbook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from qwen3_airflow.jobs import JobOperator, labels_of, name_of_run
from qwen3_airflow.outcome import refusals_are_final
from qwen3_airflow.runtimes import get_runtime
from qwen3_airflow.runtimes.base import Job, Runtime
from qwen3_ops.artifacts import read_manifest
from qwen3_ops.forecast.summary import summary
from qwen3_ops.pipelines import StageRequest
from qwen3_ops.plan import load_plan, make_plan, save_plan
from qwen3_ops.preflight import needs_npus
from qwen3_ops.verbs import VERBS

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context

    from qwen3_ops.config import RunConfig
    from qwen3_ops.plan import Plan, StagePlan

SAVE_GRACE = timedelta(minutes=35)
"""For a training that is stopped: the engine's own half hour to save in, and some minutes to end."""


class PlanOperator(BaseOperator):
    """Resolves the request and refuses a bad one, before anything is started or written.

    Returns:
        ``{"plan": path of plan.json}``, which every stage of the DAG reads.
    """

    def __init__(self, *, task_id: str = "plan", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, **kwargs)

    def execute(self, context: Context) -> dict[str, str]:
        # Airflow checks the values of params, but lets unknown keys of conf through: the plan sees both.
        request = {**context["params"], **(context["dag_run"].conf or {})}
        run = context["dag_run"]
        with refusals_are_final():
            plan = make_plan(request, stages=stage_requests(self.dag), run_id=name_of_run(run.dag_id, run.run_id))
        if plan.config.data_shards > 1 and "prepare_part" not in self.dag.task_dict:
            raise AirflowFailException(
                f"{self.dag.dag_id} prepares its data in one run: set data_shards to 1 (it is {plan.config.data_shards})"
            )
        for finding in plan.findings:
            self.log.warning("%s", finding)
        for stage in plan.stages:
            self.log.info("%s: %s, %s %s", stage.name, stage.title, "reuse" if stage.reused else "make", stage.output)
        for row in summary(plan.forecast, plan.config) if plan.forecast else ():
            self.log.info("%s: %s (%s)", *row)
        return {"plan": str(save_plan(plan))}


def stage_requests(dag: DAG) -> tuple[StageRequest, ...]:
    """The DAG's stages as the planner wants them: the DAG file is the only place that says what runs."""
    stages = [task for task in dag.tasks if isinstance(task, StageOperator)]  # as written: an input is made before it is used
    return tuple(
        StageRequest(
            name=task.task_id,
            stage=task.stage,
            inputs={name: reference.operator.task_id for name, reference in task.inputs.items()},
        )
        for task in stages
    )


class StageOperator(JobOperator):
    """One stage of the plan as a job of the plan's runtime.

    Args:
        inputs: name of an input -> ``.output`` of the stage that makes it.

    Returns:
        Reference to the artifact: ``path``, ``key``, ``kind``, ``metrics``.
    """

    stage: ClassVar[str]
    template_fields: Sequence[str] = ("inputs",)

    def __init__(self, *, inputs: Mapping[str, Any] | None = None, plan_task_id: str = "plan", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inputs = dict(inputs or {})
        self.plan_task_id = plan_task_id

    def launch(self, context: Context) -> tuple[Runtime, Job]:
        path = plan_path(context, self.plan_task_id)
        plan = load_plan(path)
        run = plan.config
        planned = self.planned(plan)
        runtime = get_runtime(run.runtime, ascend_conn_id=self.ascend_conn_id)
        on_devices = wants_npus(planned)
        job = Job(
            folder=plan.stage_dir(planned.name),
            argv=(runtime.python, "-m", "qwen3_ops", "run-stage", str(path), *self.run_stage_arguments(plan)),
            labels=labels_of(context),
            reads=inputs_of(run),
            writes=(Path(run.output_root),),
            npus=run.nproc_per_node if on_devices else 0,
            multi_node=on_devices and run.nnodes > 1,
            stop_grace=self.stop_grace.total_seconds(),
        )
        return runtime, job

    def result(self, context: Context) -> dict[str, Any]:
        plan = load_plan(plan_path(context, self.plan_task_id))
        return _reference(Path(self.planned(plan).output))

    def planned(self, plan: Plan) -> StagePlan:
        """What the task makes."""
        return plan.stage(self.task_id)

    def run_stage_arguments(self, plan: Plan) -> tuple[str, ...]:
        """Of ``run-stage``, behind the plan."""
        return (self.task_id,)


def wants_npus(stage: StagePlan) -> bool:
    """Whether a stage has work for devices; one whose artifact stands only says so, and need not wait for any."""
    return VERBS[stage.verb].on_devices and read_manifest(Path(stage.output)) is None


def inputs_of(run: RunConfig) -> tuple[Path, ...]:
    """Every folder and file outside of ``output_root`` that a run reads; MindSpeed-LLM's where it is not in the image."""
    given = [run.model_dir, run.input, run.task_data_path, *([run.load] if run.load else [])]
    if "mindspeed" in (run.engine, run.cpu_engine) and Path(run.mindspeed_dir).is_dir():
        given.append(run.mindspeed_dir)
    return tuple(map(Path, given))


def plan_path(context: Context, task_id: str = "plan") -> Path:
    """Where the task ``task_id`` of this run has put plan.json."""
    reference = context["ti"].xcom_pull(task_ids=task_id)
    if reference is None:
        raise AirflowFailException(f"no plan: clear the task {task_id!r} first")
    return Path(reference["plan"])


def _reference(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest is None:
        raise AirflowException(f"the stage ended well but left no artifact: {folder}")
    return {"path": str(folder), "key": manifest.key, "kind": manifest.kind, "metrics": manifest.metrics}


class ConvertHfToMcore(StageOperator):
    """Hugging Face folder to Megatron-mcore checkpoint, cut by TP and PP."""

    stage = "convert_hf_to_mcore"

    def __init__(self, *, task_id: str = "convert_hf_to_mcore", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, **kwargs)


class PrepareDataset(StageOperator):
    """Records to Megatron's .bin/.idx."""

    stage = "prepare_dataset"

    def __init__(self, *, task_id: str = "prepare_dataset", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, **kwargs)


class TrainingOperator(StageOperator):
    """Trains from an mcore checkpoint; when it is stopped it gets the time that a checkpoint of 200 GB takes."""

    def __init__(self, *, checkpoint: Any, dataset: Any, stop_grace: timedelta = SAVE_GRACE, **kwargs: Any) -> None:
        super().__init__(inputs={"checkpoint": checkpoint, "dataset": dataset}, stop_grace=stop_grace, **kwargs)


class TrainLora(TrainingOperator):
    """LoRA fine-tuning of an mcore checkpoint."""

    stage = "train_lora"

    def __init__(self, *, task_id: str = "train_lora", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, **kwargs)


class TrainFull(TrainingOperator):
    """Fine-tuning of all weights of an mcore checkpoint."""

    stage = "train_full"

    def __init__(self, *, task_id: str = "train_full", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, **kwargs)


class Pretrain(TrainingOperator):
    """Pre-training of an mcore checkpoint on plain text."""

    stage = "pretrain"

    def __init__(self, *, task_id: str = "pretrain", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, **kwargs)


class MergeLora(StageOperator):
    """Base checkpoint and adapter to one mcore checkpoint."""

    stage = "merge_lora"

    def __init__(self, *, checkpoint: Any, adapter: Any, task_id: str = "merge_lora", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, inputs={"checkpoint": checkpoint, "adapter": adapter}, **kwargs)


class ExportHf(StageOperator):
    """Mcore checkpoint to a Hugging Face folder."""

    stage = "export_to_hf"

    def __init__(self, *, checkpoint: Any, task_id: str = "export_hf", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, inputs={"checkpoint": checkpoint}, **kwargs)


class ExportLoraToHf(StageOperator):
    """Base checkpoint and adapter to a Hugging Face folder."""

    stage = "export_lora_to_hf"

    def __init__(self, *, checkpoint: Any, adapter: Any, task_id: str = "export_hf", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, inputs={"checkpoint": checkpoint, "adapter": adapter}, **kwargs)


class Generate(StageOperator):
    """The generation check: answers of an mcore checkpoint."""

    stage = "generate"

    def __init__(self, *, checkpoint: Any, task_id: str = "generate", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, inputs={"checkpoint": checkpoint}, **kwargs)


class EvaluateMmlu(StageOperator):
    """MMLU accuracy of an mcore checkpoint."""

    stage = "evaluate_mmlu"

    def __init__(self, *, checkpoint: Any, task_id: str = "evaluate_mmlu", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, inputs={"checkpoint": checkpoint}, **kwargs)


class Preflight(JobOperator):
    """Looks at the machine where the stages will run: image, devices, versions, disk, ports; a bad one fails here.

    It stands before the stages that take NPUs, ``Preflight() >> [before, adapter]``: those that
    need none do not wait for the lease with which it looks. A run without NPUs has its disk looked at.
    """

    def __init__(self, *, task_id: str = "preflight", plan_task_id: str = "plan", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, **kwargs)
        self.plan_task_id = plan_task_id

    def launch(self, context: Context) -> tuple[Runtime, Job]:
        path = plan_path(context, self.plan_task_id)
        plan = load_plan(path)
        run = plan.config
        runtime = get_runtime(run.runtime, ascend_conn_id=self.ascend_conn_id)
        job = Job(
            folder=plan.stage_dir(self.task_id),
            argv=(runtime.python, "-m", "qwen3_ops", "preflight", str(path)),
            labels=labels_of(context),
            writes=(Path(run.output_root),),
            npus=run.nproc_per_node if needs_npus(plan) else 0,
            multi_node=run.nnodes > 1,
        )
        return runtime, job

    def _start(self, context: Context) -> Any:
        runtime, _ = self._launched(context)
        for finding in runtime.examine():
            self.log.warning("%s", finding)
        return super()._start(context)

    def result(self, context: Context) -> None:
        """Its findings are in the log."""
