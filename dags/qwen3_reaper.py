"""### Containers that no task waits for

Every quarter of an hour the containers of this Airflow on the Ascend host are compared with
their tasks. One whose task is over or gone is told to save, is given the time it was promised,
and is removed. Nothing is left to do in a healthy deployment.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from qwen3_airflow.ascend.reaper import ReapContainers

with DAG(
    "qwen3_reaper",
    doc_md=__doc__,
    schedule=timedelta(minutes=15),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,  # a deployment without containers has no host to look at
    tags=["qwen3", "maintenance"],
) as dag:
    ReapContainers(task_id="reap")
