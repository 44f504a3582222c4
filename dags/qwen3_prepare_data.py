"""### Data preparation alone, ahead of a run

| task | what it does | runbook |
|---|---|---|
| `plan` | resolves the request; refuses what can not work | |
| `start_container`, `stop_container` | one container for all stages, where the host's profile wants that; else nothing to do | 2 |
| `list_parts`, `prepare_part` | the data in `data_shards` parts, mapped over the workers; none where it is 1 | |
| `prepare_dataset` | records to token ids, with a ledger; of its parts where there are any | 4.1.2, 6.1 |

A run with the same data, template and tokenizer finds the data set and does not prepare it again.
"""

from __future__ import annotations

from qwen3_airflow.ascend.shared_container import run_container
from qwen3_airflow.dag import qwen3_dag
from qwen3_airflow.operators import PlanOperator
from qwen3_airflow.sharded import prepare_in_parts

with qwen3_dag("qwen3_prepare_data", doc=__doc__, kind="pretrain", tags=["data"]) as dag:
    plan = PlanOperator()
    with run_container(plan):
        prepare_in_parts()
