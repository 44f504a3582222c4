"""Two stages that print until they are let go, one deferred, one followed by its worker: in a container each, and in their run's."""

import sys
from datetime import timedelta

from airflow.sdk import DAG, Param

from qwen3_airflow.ascend.operators import AscendContainerOperator
from qwen3_airflow.ascend.shared_container import run_container
from qwen3_airflow.dag import qwen3_dag
from qwen3_airflow.operators import PlanOperator

STAGE = """
import os, pathlib, signal, sys, time
def save(number, frame):
    time.sleep(0.5)
    print("saved", flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
with open("starts", "a") as file:
    file.write("started\\n")
for line in range(20):
    print("line", line)
while not pathlib.Path(sys.argv[1], "go").exists():
    time.sleep(0.05)
print("the last line")
"""


def both(folder: str, go: str) -> None:
    for mode in ("deferrable", "synchronous"):
        AscendContainerOperator(
            task_id=mode,
            command=[sys.executable, "-u", "-c", STAGE, go],
            folder=folder,
            deferrable=mode == "deferrable",
            stop_grace=timedelta(seconds=30),
            poll_interval=0.2,
        )


with DAG(
    "light",
    schedule=None,
    params={"folder": Param("", type="string")},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
    max_active_runs=8,
):
    both("{{ params.folder }}", "{{ params.folder }}")

with qwen3_dag("light_shared", doc=__doc__):
    plan = PlanOperator()
    with run_container(plan):  # below the plan's run, so that they are in its container
        both("{{ params.output_root }}/runs", "{{ params.output_root }}")
