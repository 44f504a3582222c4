"""### Pre-training of Qwen3, going on from released weights

| task | what it does | runbook |
|---|---|---|
| `plan` | resolves the request; refuses what can not work | |
| `start_container`, `stop_container` | one container for all stages, where the host's profile wants that; else nothing to do | 2 |
| `preflight` | looks at the host before a stage takes NPUs for hours: devices, versions, disk, ports, image | 1, 2 |
| `convert_hf_to_mcore` | Hugging Face weights to a Megatron-mcore checkpoint, cut by TP and PP | 3.1 |
| `list_parts`, `prepare_part` | the same in `data_shards` parts, mapped over the workers; none where it is 1 | |
| `prepare_dataset` | plain text to token ids, with a ledger; of its parts where there are any | 6.1 |
| `mmlu_base` | MMLU of the weights before | 4.5.1 |
| `pretrain` | trains all weights on text | 6.2 |
| `export_hf` | the trained checkpoint to a Hugging Face folder | 3.2 |
| `generate` | continues a prompt | 4.4 |
| `mmlu_trained` | MMLU of the weights after | 4.5.1 |

Every stage keeps its result under the output folder; what an earlier run has made is used again.
"""

from __future__ import annotations

from qwen3_airflow.ascend.shared_container import run_container
from qwen3_airflow.dag import qwen3_dag
from qwen3_airflow.operators import (
    ConvertHfToMcore,
    EvaluateMmlu,
    ExportHf,
    Generate,
    PlanOperator,
    Preflight,
    Pretrain,
)
from qwen3_airflow.sharded import prepare_in_parts

with qwen3_dag("qwen3_pretrain", doc=__doc__, kind="pretrain", tags=["pretrain"]) as dag:
    plan = PlanOperator()
    with run_container(plan):
        ready = Preflight()
        base = ConvertHfToMcore()
        data = prepare_in_parts()
        before = EvaluateMmlu(task_id="mmlu_base", checkpoint=base.output)
        trained = Pretrain(checkpoint=base.output, dataset=data.output)
        answers = Generate(checkpoint=trained.output)
        after = EvaluateMmlu(task_id="mmlu_trained", checkpoint=trained.output)
        exported = ExportHf(checkpoint=trained.output)

        ready >> [before, trained]
