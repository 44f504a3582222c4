"""### Full fine-tuning of Qwen3

| task | what it does | runbook |
|---|---|---|
| `plan` | resolves the request; refuses what can not work | |
| `start_container`, `stop_container` | one container for all stages, where the host's profile wants that; else nothing to do | 2 |
| `preflight` | looks at the host before a stage takes NPUs for hours: devices, versions, disk, ports, image | 1, 2 |
| `convert_hf_to_mcore` | Hugging Face weights to a Megatron-mcore checkpoint, cut by TP and PP | 3.1 |
| `prepare_dataset` | instruction records to token ids, with a ledger | 4.1.2, 4.2 |
| `mmlu_base` | MMLU of the untuned weights | 4.5.1 |
| `train_full` | trains all weights | 4.3 |
| `export_hf` | the trained checkpoint to a Hugging Face folder | 3.2 |
| `generate` | answers a prompt | 4.4 |
| `mmlu_tuned` | MMLU of the tuned weights | 4.5.1 |

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
    PrepareDataset,
    TrainFull,
)

with qwen3_dag("qwen3_full_sft", doc=__doc__, kind="full", tags=["full"]) as dag:
    plan = PlanOperator()
    with run_container(plan):
        ready = Preflight()
        base = ConvertHfToMcore()
        data = PrepareDataset()
        before = EvaluateMmlu(task_id="mmlu_base", checkpoint=base.output)
        tuned = TrainFull(checkpoint=base.output, dataset=data.output)
        answers = Generate(checkpoint=tuned.output)
        after = EvaluateMmlu(task_id="mmlu_tuned", checkpoint=tuned.output)
        exported = ExportHf(checkpoint=tuned.output)

        ready >> [before, tuned]
