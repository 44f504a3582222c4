"""Flags of ``generate``: those of ``inference.py``; and what ``evaluate`` shares with it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from qwen3_ops.native.data.templates import TEMPLATES
from qwen3_ops.native.model_flags import ModelFlags

TASKS = ("greedy", "do_sample", "beam_search", "beam_search_with_sampling", "chat")


class InferenceFlags(ModelFlags):
    """A checkpoint to load and how far to generate."""

    INERT: ClassVar[dict[str, int]] = {
        **ModelFlags.INERT,
        "--micro-batch-size": 1,  # batches are made of prompts of like length
        "--use-kv-cache": 0,  # always
        "--fp32-residual-connection": 0,  # activations are of the weights' dtype or fp32 where it matters
        "--load-checkpoint-loosely": 0,
        "--max-tokens-to-oom": 1,  # batches are cut by what a cache of keys takes
        "--expert-model-parallel-size": 1,  # in scripts for dense models, too; a checkpoint with experts is refused
        "--no-load-optim": 0,
        "--no-load-rng": 0,
    }
    REFUSED: ClassVar[dict[str, str]] = {
        **ModelFlags.REFUSED,
        "--lora-r": "merge the adapter into the base first (convert-ckpt --lora-load)",
        "--lora-alpha": "merge the adapter into the base first (convert-ckpt --lora-load)",
        "--lora-target-modules": "merge the adapter into the base first (convert-ckpt --lora-load)",
        "--lora-load": "merge the adapter into the base first (convert-ckpt --lora-load)",
    }

    load: Path
    tokenizer_name_or_path: Path
    seq_length: int = Field(ge=1)
    max_new_tokens: int = Field(default=128, ge=1)
    seed: int = Field(default=1234, ge=0)
    prompt_type: str | None = None

    @field_validator("prompt_type")
    @classmethod
    def _known_template(cls, value: str | None) -> str | None:
        if value is not None and value not in TEMPLATES:
            raise ValueError(f"there is no template of that name; known are {', '.join(TEMPLATES)}")
        return value


class FLAGS(InferenceFlags):
    """One generation; ``--prompts`` and ``--num-beams`` are ours, the real script has one fixed prompt and two beams."""

    INERT: ClassVar[dict[str, int]] = {
        **InferenceFlags.INERT,
        "--max-length": 1,  # --max-new-tokens overrides it, in the original, too
    }

    task: tuple[str, ...] = ("greedy",)
    prompts: Path | None = Field(
        default=None,
        description="Text file with one prompt a line, or .jsonl with a field prompt, or messages of role and content (ours).",
    )
    hf_chat_template: bool = Field(default=False, description="Write prompts by the tokenizer's own chat template.")
    enable_thinking: Literal["true", "false"] | None = Field(
        default=None,
        description="Whether Qwen3 may think before it answers; when not given, the chat template decides (on), and --prompt-type qwen3 "
        "has it off, as its training data does.",
    )
    history_turns: int = Field(default=3, ge=0, description="Of the task chat: earlier turns that a question comes with.")
    num_beams: int = Field(default=2, ge=2, description="Beams of the tasks beam_search*; the real script has two (ours).")
    temperature: float = Field(default=0.7, gt=0)
    top_k: int = Field(default=50, ge=0, description="Sample from the k likeliest tokens, and those as likely as the k-th; 0: from all.")
    top_p: float = Field(
        default=0.95, ge=0, le=1, description="Sample from the likeliest tokens up to this probability in all; 0: from all."
    )

    @model_validator(mode="after")
    def _tasks(self) -> FLAGS:
        for task in self.task:
            if task not in TASKS:
                raise ValueError(f"--task {task}: unknown; choose among {', '.join(TASKS)}")
        if self.hf_chat_template and self.prompt_type is not None:
            raise ValueError("--hf-chat-template and --prompt-type exclude each other")
        thinks = self.hf_chat_template or (self.prompt_type is not None and bool(TEMPLATES[self.prompt_type].thought))
        if self.enable_thinking is not None and not thinks:
            raise ValueError("--enable-thinking needs --hf-chat-template or --prompt-type qwen3")
        return self
