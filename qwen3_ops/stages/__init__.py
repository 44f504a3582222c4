"""Stages: RunConfig and ModelSpec in, the argv of one verb in the runbook's language out.

A rendering is pure: no I/O and no torch. It is called with real paths to get the command,
and with fingerprints in the place of paths to get the request's identity (``plan.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qwen3_ops.artifacts import Kind
from qwen3_ops.config import RunConfig
from qwen3_ops.model import ModelSpec
from qwen3_ops.stages.checkpoint import convert_hf_to_mcore, export_lora_to_hf, merge_lora
from qwen3_ops.stages.dataset import prepare_dataset
from qwen3_ops.stages.evaluation import evaluate_mmlu, generate
from qwen3_ops.stages.paths import Paths
from qwen3_ops.stages.training import train_lora

Render = Callable[[RunConfig, ModelSpec, Paths], list[str]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the runbook.

    Attributes:
        verb: the ``qwen3-ops`` command that interprets the argv.
        section: of the runbook.
        inputs: input name -> kinds of artifact it may be.
        kind: of the artifact made.
        version: raised when the same argv gives another result than before.
    """

    verb: str
    section: str
    title: str
    render: Render
    inputs: Mapping[str, tuple[Kind, ...]]
    kind: Kind
    version: int = 1


STAGES: Mapping[str, Stage] = {
    "convert_hf_to_mcore": Stage(
        verb="convert-ckpt",
        section="3.1",
        title="Convert the weights, Hugging Face to Megatron",
        render=convert_hf_to_mcore,
        inputs={},
        kind="mcore_checkpoint",
    ),
    "prepare_dataset": Stage(
        verb="preprocess-data",
        section="4.1.2",
        title="Prepare the training data",
        render=prepare_dataset,
        inputs={},
        kind="dataset",
    ),
    "train_lora": Stage(
        verb="train",
        section="5.2",
        title="Train LoRA",
        render=train_lora,
        inputs={"checkpoint": ("mcore_checkpoint",), "dataset": ("dataset",)},
        kind="lora_checkpoint",
    ),
    "merge_lora": Stage(
        verb="convert-ckpt",
        section="5.3",
        title="Merge LoRA into the Megatron weights",
        render=merge_lora,
        inputs={"checkpoint": ("mcore_checkpoint",), "adapter": ("lora_checkpoint",)},
        kind="mcore_checkpoint",
    ),
    "export_lora_to_hf": Stage(
        verb="convert-ckpt",
        section="5.4",
        title="Merge LoRA and export to Hugging Face",
        render=export_lora_to_hf,
        inputs={"checkpoint": ("mcore_checkpoint",), "adapter": ("lora_checkpoint",)},
        kind="hf_model",
    ),
    "generate": Stage(
        verb="generate",
        section="5.5",
        title="Check generation",
        render=generate,
        inputs={"checkpoint": ("mcore_checkpoint",)},
        kind="generation",
    ),
    "evaluate_mmlu": Stage(
        verb="evaluate",
        section="5.6",
        title="Evaluate MMLU",
        render=evaluate_mmlu,
        inputs={"checkpoint": ("mcore_checkpoint",)},
        kind="evaluation",
    ),
}
