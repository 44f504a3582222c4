"""Pipelines as data: which stages, and whose output feeds whom.

The DAG files say the same to Airflow; a test keeps both equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class StageRequest:
    """One stage of a pipeline.

    Attributes:
        name: unique in the pipeline, the Airflow task id.
        stage: a key of ``qwen3_ops.stages.STAGES``.
        inputs: the stage's input names -> names of the stages whose outputs they are.
    """

    name: str
    stage: str
    inputs: Mapping[str, str] = field(default_factory=dict)


LORA_SFT: tuple[StageRequest, ...] = (
    StageRequest(name="convert_hf_to_mcore", stage="convert_hf_to_mcore"),
    StageRequest(name="prepare_dataset", stage="prepare_dataset"),
    StageRequest(name="mmlu_base", stage="evaluate_mmlu", inputs={"checkpoint": "convert_hf_to_mcore"}),
    StageRequest(name="train_lora", stage="train_lora", inputs={"checkpoint": "convert_hf_to_mcore", "dataset": "prepare_dataset"}),
    StageRequest(name="merge_lora", stage="merge_lora", inputs={"checkpoint": "convert_hf_to_mcore", "adapter": "train_lora"}),
    StageRequest(name="generate", stage="generate", inputs={"checkpoint": "merge_lora"}),
    StageRequest(name="mmlu_tuned", stage="evaluate_mmlu", inputs={"checkpoint": "merge_lora"}),
    StageRequest(name="export_hf", stage="export_lora_to_hf", inputs={"checkpoint": "convert_hf_to_mcore", "adapter": "train_lora"}),
)

PIPELINES: Mapping[str, tuple[StageRequest, ...]] = {"lora_sft": LORA_SFT}
