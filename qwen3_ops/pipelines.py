"""Pipelines as data: which stages, and whose output feeds whom.

The DAG files say the same to Airflow; a test keeps both equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qwen3_ops.recipes import Kind


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


_CONVERT = StageRequest(name="convert_hf_to_mcore", stage="convert_hf_to_mcore")
_PREPARE = StageRequest(name="prepare_dataset", stage="prepare_dataset")
_MMLU_BASE = StageRequest(name="mmlu_base", stage="evaluate_mmlu", inputs={"checkpoint": "convert_hf_to_mcore"})
_TO_TRAIN = {"checkpoint": "convert_hf_to_mcore", "dataset": "prepare_dataset"}

LORA_SFT: tuple[StageRequest, ...] = (
    _CONVERT,
    _PREPARE,
    _MMLU_BASE,
    StageRequest(name="train_lora", stage="train_lora", inputs=_TO_TRAIN),
    StageRequest(name="merge_lora", stage="merge_lora", inputs={"checkpoint": "convert_hf_to_mcore", "adapter": "train_lora"}),
    StageRequest(name="generate", stage="generate", inputs={"checkpoint": "merge_lora"}),
    StageRequest(name="mmlu_tuned", stage="evaluate_mmlu", inputs={"checkpoint": "merge_lora"}),
    StageRequest(name="export_hf", stage="export_lora_to_hf", inputs={"checkpoint": "convert_hf_to_mcore", "adapter": "train_lora"}),
)


def _all_weights(train: str, *, after: str) -> tuple[StageRequest, ...]:
    """A training (``train`` is both its name and its stage) of which every weight is used; ``after``: name of the MMLU that follows it."""
    trained = {"checkpoint": train}
    return (
        _CONVERT,
        _PREPARE,
        _MMLU_BASE,
        StageRequest(name=train, stage=train, inputs=_TO_TRAIN),
        StageRequest(name="generate", stage="generate", inputs=trained),
        StageRequest(name=after, stage="evaluate_mmlu", inputs=trained),
        StageRequest(name="export_hf", stage="export_to_hf", inputs=trained),
    )


FULL_SFT = _all_weights("train_full", after="mmlu_tuned")
PRETRAIN = _all_weights("pretrain", after="mmlu_trained")

PIPELINES: Mapping[str, tuple[StageRequest, ...]] = {"lora_sft": LORA_SFT, "full_sft": FULL_SFT, "pretrain": PRETRAIN}
KINDS: Mapping[str, Kind] = {"lora_sft": "lora", "full_sft": "full", "pretrain": "pretrain"}
"""Pipeline -> kind of training, which chooses the recipe where none is named."""
