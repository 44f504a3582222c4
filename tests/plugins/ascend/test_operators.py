"""Containers for any command."""

from __future__ import annotations

from types import SimpleNamespace

from qwen3_airflow.ascend.operators import AscendContainerOperator


def test_no_two_tasks_of_a_run_share_a_folder():
    """A folder is the identity of a job: the second would join the first's container."""

    def folder(task_id: str, map_index: int):
        task = AscendContainerOperator(task_id=task_id, command=["true"], folder="/apps/jobs")
        return task._job_folder({"ti": SimpleNamespace(dag_id="d", run_id="r", task_id=task_id, map_index=map_index)})

    assert len({folder("smi", -1), folder("smi", 1), folder("smi-1", -1), folder("smi.1", -1), folder("smi_1", -1)}) == 5
