"""Flags of ``merge-data``: what MindSpeed-LLM's ``preprocess_data.py`` takes when it merges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from qwen3_ops.flags import Flags
from qwen3_ops.native.data.flags import DROPPED_HELP, MAX_DROPPED_RATIO


class MergeFlags(Flags):
    """Which parts are joined, and where to."""

    INERT: ClassVar[Mapping[str, int]] = {
        "--merge-group-keys": -1,  # the parts say themselves what files they have
        "--workers": 1,
        "--log-interval": 1,
    }

    input: tuple[Path, ...] = Field(description="Folders of the parts, or one folder that holds them; in any order.")
    output_prefix: Path
    max_dropped_ratio: float = Field(default=MAX_DROPPED_RATIO, ge=0, le=1, description=DROPPED_HELP)


FLAGS = MergeFlags
