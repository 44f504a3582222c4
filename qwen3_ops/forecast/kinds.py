"""What a pipeline trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from qwen3_ops.pipelines import StageRequest

_KINDS: dict[str, Literal["full", "lora"]] = {"train_full": "full", "pretrain": "full", "train_lora": "lora"}


def kind_of(stages: Sequence[StageRequest]) -> Literal["full", "lora"] | None:
    """All weights or LoRA; None: the pipeline trains nothing."""
    return next((_KINDS[stage.stage] for stage in stages if stage.stage in _KINDS), None)
