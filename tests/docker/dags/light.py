"""Two containers whose stage prints until it is let go: one deferred, one followed by its worker."""

import sys
from datetime import timedelta

from airflow.sdk import DAG, Param

from qwen3_airflow.ascend.operators import AscendContainerOperator

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

with DAG(
    "light",
    schedule=None,
    params={"folder": Param("", type="string")},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
    max_active_runs=8,
):
    for mode in ("deferrable", "synchronous"):
        AscendContainerOperator(
            task_id=mode,
            command=[sys.executable, "-u", "-c", STAGE, "{{ params.folder }}"],
            folder="{{ params.folder }}",
            deferrable=mode == "deferrable",
            stop_grace=timedelta(seconds=30),
            poll_interval=0.2,
        )
