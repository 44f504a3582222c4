"""The reaper, which leaves young containers alone nowhere here, and a run whose tasks are in different states."""

from pathlib import Path

from airflow.sdk import DAG, Param, task

from qwen3_airflow.ascend.reaper import ReapContainers

with DAG("reaper", schedule=None):
    ReapContainers(task_id="reap", keep=0)


@task
def wait(number: int, params: dict) -> None:
    import time

    while number and not Path(params["folder"], "go").exists():
        time.sleep(0.1)


with DAG("states", schedule=None, params={"folder": Param("", type="string")}):
    wait.expand(number=[0, 1])
