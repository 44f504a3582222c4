"""Stages: which script renders each, who interprets it, what goes in and what comes out.

A rendering is pure: no I/O and no torch. It is made with real paths to get the command,
and with fingerprints in the place of paths to get the request's identity (``plan.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qwen3_ops.artifacts import Kind
from qwen3_ops.config import RunConfig
from qwen3_ops.stages import scripts
from qwen3_ops.stages.blanks import is_pretraining
from qwen3_ops.stages.script import Script


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the runbook.

    Attributes:
        verb: the ``qwen3-ops`` command that interprets the argv.
        section: of the runbook.
        script: of MindSpeed-LLM, or the choice of one by the run.
        inputs: input name -> kinds of artifact it may be.
        kind: of the artifact made.
        version: raised when the same argv gives another result than before.
    """

    verb: str
    section: str
    title: str
    script: Script | Callable[[RunConfig], Script]
    inputs: Mapping[str, tuple[Kind, ...]]
    kind: Kind
    version: int = 1

    def script_of(self, run: RunConfig) -> Script:
        return self.script if isinstance(self.script, Script) else self.script(run)


STAGES: Mapping[str, Stage] = {
    "convert_hf_to_mcore": Stage(
        verb="convert-ckpt",
        section="3.1",
        title="Convert the weights, Hugging Face to Megatron",
        script=lambda run: scripts.RESHARD if run.load else scripts.CONVERT_HF_TO_MCORE,
        inputs={},
        kind="mcore_checkpoint",
    ),
    "prepare_dataset": Stage(
        verb="preprocess-data",
        section="4.1.2",
        title="Prepare the training data",
        script=lambda run: scripts.PREPARE_PRETRAINING if is_pretraining(run) else scripts.PREPARE_DATASET,
        inputs={},
        kind="dataset",
        version=2,
    ),
    "train_full": Stage(
        verb="train",
        section="4.3",
        title="Train all weights",
        script=scripts.TRAIN_FULL,
        inputs={"checkpoint": ("mcore_checkpoint",), "dataset": ("dataset",)},
        kind="mcore_checkpoint",
    ),
    "train_lora": Stage(
        verb="train",
        section="5.2",
        title="Train LoRA",
        script=scripts.TRAIN_LORA,
        inputs={"checkpoint": ("mcore_checkpoint",), "dataset": ("dataset",)},
        kind="lora_checkpoint",
    ),
    "pretrain": Stage(
        verb="train",
        section="6.2",
        title="Pre-train",
        script=scripts.PRETRAIN,
        inputs={"checkpoint": ("mcore_checkpoint",), "dataset": ("dataset",)},
        kind="mcore_checkpoint",
    ),
    "merge_lora": Stage(
        verb="convert-ckpt",
        section="5.3",
        title="Merge LoRA into the Megatron weights",
        script=scripts.MERGE_LORA,
        inputs={"checkpoint": ("mcore_checkpoint",), "adapter": ("lora_checkpoint",)},
        kind="mcore_checkpoint",
    ),
    "export_to_hf": Stage(
        verb="convert-ckpt",
        section="3.2",
        title="Export to Hugging Face",
        script=scripts.EXPORT_TO_HF,
        inputs={"checkpoint": ("mcore_checkpoint",)},
        kind="hf_model",
    ),
    "export_lora_to_hf": Stage(
        verb="convert-ckpt",
        section="5.4",
        title="Merge LoRA and export to Hugging Face",
        script=scripts.EXPORT_LORA_TO_HF,
        inputs={"checkpoint": ("mcore_checkpoint",), "adapter": ("lora_checkpoint",)},
        kind="hf_model",
    ),
    "generate": Stage(
        verb="generate",
        section="4.4, 5.5",
        title="Check generation",
        script=scripts.GENERATE,
        inputs={"checkpoint": ("mcore_checkpoint",)},
        kind="generation",
    ),
    "evaluate_mmlu": Stage(
        verb="evaluate",
        section="4.5, 5.6",
        title="Evaluate MMLU",
        script=scripts.EVALUATE_MMLU,
        inputs={"checkpoint": ("mcore_checkpoint",)},
        kind="evaluation",
    ),
}
