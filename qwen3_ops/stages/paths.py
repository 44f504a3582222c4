"""The places a stage's argv names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Absolute paths, or fingerprints where a request's identity is wanted.

    Attributes:
        model: Hugging Face folder.
        tokenizer: the same folder; its fingerprint covers the tokenizer's files only.
        source: raw data file or folder.
        tasks: folder of MMLU's CSV files.
        output: folder of the artifact.
        load: Megatron checkpoint that was given in the place of the model's weights.
        inputs: outputs of earlier stages by input name.
        dataset_name: of a data set's files; None for the format's name.
    """

    model: str
    tokenizer: str
    source: str
    tasks: str
    output: str
    load: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    dataset_name: str | None = None
