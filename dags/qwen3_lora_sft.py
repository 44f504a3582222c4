"""### LoRA fine-tuning of Qwen3

| task | what it does | runbook |
|---|---|---|
| `plan` | resolves the request; refuses what can not work | |
| `convert_hf_to_mcore` | Hugging Face weights to a Megatron-mcore checkpoint, cut by TP and PP | 3 |
| `prepare_dataset` | instruction records to token ids | 4 |
| `train_lora` | trains the adapter | 5 |
| `merge_lora` | base and adapter to one checkpoint | 6 |
| `export_hf` | base and adapter to a Hugging Face folder | 6 |
| `generate` | answers a few prompts | 7 |
| `mmlu_base`, `mmlu_tuned` | MMLU before and after | 8 |

Every stage keeps its result under the output folder; what an earlier run has made is used again.
"""

from __future__ import annotations

from qwen3_airflow.dag import qwen3_dag
from qwen3_airflow.operators import (
    ConvertHfToMcore,
    EvaluateMmlu,
    ExportLoraToHf,
    Generate,
    MergeLora,
    PlanOperator,
    PrepareDataset,
    TrainLora,
)

with qwen3_dag("qwen3_lora_sft", doc=__doc__, tags=["lora"]) as dag:
    plan = PlanOperator()
    base = ConvertHfToMcore()
    data = PrepareDataset()
    before = EvaluateMmlu(task_id="mmlu_base", checkpoint=base.output)
    adapter = TrainLora(checkpoint=base.output, dataset=data.output)
    merged = MergeLora(checkpoint=base.output, adapter=adapter.output)
    answers = Generate(checkpoint=merged.output)
    after = EvaluateMmlu(task_id="mmlu_tuned", checkpoint=merged.output)
    exported = ExportLoraToHf(checkpoint=base.output, adapter=adapter.output)

    plan >> [base, data]
