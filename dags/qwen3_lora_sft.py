"""### LoRA fine-tuning of Qwen3

| task | what it does | runbook |
|---|---|---|
| `plan` | resolves the request; refuses what can not work | |
| `start_container`, `stop_container` | one container for all stages, where the host's profile wants that; else nothing to do | 2 |
| `preflight` | looks at the host before a stage takes NPUs for hours: devices, versions, disk, ports, image | 1, 2 |
| `convert_hf_to_mcore` | Hugging Face weights to a Megatron-mcore checkpoint, cut by TP and PP | 3.1 |
| `prepare_dataset` | instruction records to token ids, with a ledger | 4.1.2, 5.1 |
| `mmlu_base` | MMLU of the untuned weights | 4.5.1 |
| `train_lora` | trains the adapter | 5.2 |
| `merge_lora` | base and adapter to one Megatron checkpoint | 5.3 |
| `export_hf` | base and adapter to a Hugging Face folder | 5.4 |
| `generate` | answers a prompt | 5.5 |
| `mmlu_tuned` | MMLU of the tuned weights | 5.6 |

Every stage keeps its result under the output folder; what an earlier run has made is used again.
"""

from __future__ import annotations

from qwen3_airflow.ascend.shared_container import run_container
from qwen3_airflow.dag import qwen3_dag
from qwen3_airflow.operators import (
    ConvertHfToMcore,
    EvaluateMmlu,
    ExportLoraToHf,
    Generate,
    MergeLora,
    PlanOperator,
    Preflight,
    PrepareDataset,
    TrainLora,
)

with qwen3_dag("qwen3_lora_sft", doc=__doc__, tags=["lora"]) as dag:
    plan = PlanOperator()
    with run_container(plan):
        ready = Preflight()
        base = ConvertHfToMcore()
        data = PrepareDataset()
        before = EvaluateMmlu(task_id="mmlu_base", checkpoint=base.output)
        adapter = TrainLora(checkpoint=base.output, dataset=data.output)
        merged = MergeLora(checkpoint=base.output, adapter=adapter.output)
        answers = Generate(checkpoint=merged.output)
        after = EvaluateMmlu(task_id="mmlu_tuned", checkpoint=merged.output)
        exported = ExportLoraToHf(checkpoint=base.output, adapter=adapter.output)

        ready >> [before, adapter]
