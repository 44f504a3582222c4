"""A data set prepared in parts: Airflow maps them over its workers and joins them into the bytes of one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TriggerRule

from qwen3_airflow.operators import PrepareDataset, StageOperator, plan_path
from qwen3_ops.artifacts import read_manifest
from qwen3_ops.plan import load_plan
from qwen3_ops.sharding import part_of, shards

if TYPE_CHECKING:
    from airflow.sdk import Context

    from qwen3_ops.plan import Plan, StagePlan

DATASET = "prepare_dataset"


def prepare_in_parts() -> JoinParts:
    """The tasks that prepare the plan's data set in as many parts as its field ``data_shards`` says.

    The first of them, ``list_parts``, follows the setup of ``run_container``, in whose block they stand.

    Returns:
        The last of them; its ``.output`` is the data set's, as :class:`PrepareDataset`'s is.
    """
    listed = ListParts()
    made = PreparePart.partial(task_id="prepare_part", map_index_template="{{ task.part }}").expand(part=listed.output)
    joined = JoinParts()
    made >> joined
    return joined


class ListParts(BaseOperator):
    """Which parts are to be made.

    Returns:
        0/N to N-1/N; nothing where the data set stands already, or is to be made by one run.
    """

    def __init__(self, *, task_id: str = "list_parts", plan_task_id: str = "plan", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, **kwargs)
        self.plan_task_id = plan_task_id

    def execute(self, context: Context) -> list[str]:
        plan = load_plan(plan_path(context, self.plan_task_id))
        count = plan.config.data_shards
        if count == 1 or read_manifest(Path(plan.stage(DATASET).output)) is not None:
            return []
        return shards(count)


class PreparePart(StageOperator):
    """One part of the data set, an artifact by itself: what a part has made is not made again.

    Args:
        part: I/N.
    """

    stage = DATASET

    def __init__(self, *, part: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.part = part

    def planned(self, plan: Plan) -> StagePlan:
        return part_of(plan.stage(DATASET), self.part)

    def run_stage_arguments(self, plan: Plan) -> tuple[str, ...]:
        return (DATASET, "--part", self.part)


class JoinParts(PrepareDataset):
    """The data set of its parts; without parts the whole of it in one run."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(task_id=DATASET, trigger_rule=TriggerRule.NONE_FAILED, **kwargs)

    def run_stage_arguments(self, plan: Plan) -> tuple[str, ...]:
        return (DATASET, "--join", str(plan.config.data_shards))
