"""Flags of ``evaluate``: those of ``evaluation.py`` for the task mmlu."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from qwen3_ops.native.generation.flags import InferenceFlags


class FLAGS(InferenceFlags):
    """MMLU by the runbook's protocol: raw five-shot prompts, a generated letter.

    Without ``--no-chat-template`` the prompts are wrapped in the tokenizer's chat template, without its generation prompt.
    """

    INERT: ClassVar[dict[str, int]] = {**InferenceFlags.INERT, "--evaluation-batch-size": 1}  # batches score alike
    REFUSED: ClassVar[dict[str, str]] = {
        **InferenceFlags.REFUSED,
        "--alternative-prompt": "only the runbook's direct prompts are built",
        "--hf-chat-template": "only the runbook's direct prompts are built",
        "--eval-language": "MMLU is English",
        "--broadcast": "the evaluation runs in one process",
    }

    task: Literal["mmlu"] = "mmlu"
    task_data_path: Path = Field(description="Folder with *_test.csv; the examples are read from ../dev/*_dev.csv beside it.")
    no_chat_template: bool = False
    max_eval_samples: int | None = Field(default=None, ge=1, description="Questions per subject, at most.")

    @model_validator(mode="after")
    def _direct(self) -> FLAGS:
        if self.prompt_type is not None:
            raise ValueError("--prompt-type: only the runbook's direct prompts are built")
        return self
