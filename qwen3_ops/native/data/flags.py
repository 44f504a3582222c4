"""Flags of ``preprocess-data``: those of MindSpeed-LLM's ``preprocess_data.py``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from qwen3_ops.flags import Flags
from qwen3_ops.native.data.mapping import key_map
from qwen3_ops.native.data.templates import TEMPLATES

HandlerName = Literal["AlpacaStyleInstructionHandler", "SharegptStyleInstructionHandler", "GeneralPretrainHandler"]
PRETRAIN: HandlerName = "GeneralPretrainHandler"


MAX_DROPPED_RATIO = 0.05
DROPPED_HELP = (
    "Ours: more lost records than this part of all fail the stage (exit 3), the ledger is kept. Records longer than --seq-length and empty "
    "texts of pre-training are asked for and do not count. Unless given, it holds from 100 records on: a handful is no measure."
)


class PreprocessFlags(Flags):
    """What decides the bytes of a data set."""

    INERT: ClassVar[Mapping[str, int]] = {
        "--n-subs": 1,  # shares the work among processes, as --workers does here; the bytes are the same
        "--log-interval": 1,
        "--cache-dir": 1,  # nothing is cached: records are streamed
        "--overwrite-cache": 0,
        "--dataset-impl": 1,
        "--seed": 1,  # nothing is drawn here
        "--max-samples": 1,  # the original's other handlers read it, these do not
        "--tokenizer-not-use-fast": 0,
        "--make-vocab-size-divisible-by": 1,
    }
    REFUSED: ClassVar[Mapping[str, str]] = {
        "--merge-group-keys": "parts made with --shard are joined by qwen3-ops merge-data; for several inputs give their folder as --input",
        "--streaming": "records are always streamed: leave it out",
        "--split-sentences": "sentences are not split: records are documents",
        "--hf-datasets-params": "data sets are read from disk only: give files as --input",
        "--script-data-dir": "data sets are read from disk only, loading scripts are not run",
    }

    input: Path
    tokenizer_name_or_path: Path
    output_prefix: Path
    handler_name: HandlerName
    tokenizer_type: Literal["PretrainedFromHF"] = "PretrainedFromHF"
    prompt_type: str | None = None
    map_keys: str | None = None
    json_keys: tuple[str, ...] = ("text",)
    seq_length: int | None = Field(default=None, gt=0)
    pack: bool = False
    neat_pack: bool = False
    append_eod: bool = False
    pad_to_multiple_of: int = Field(default=1, gt=0)
    workers: int = Field(
        default=1, gt=0, description="At most so many processes, as cores and the input's size are worth it; the bytes are the same."
    )
    tokenizer_backend: Literal["auto", "tokenizers", "tiktoken"] = Field(
        default="auto",
        description="Ours: tiktoken gives the ids of a Qwen tokenizer several times faster; it is compared with tokenizers at the start. "
        "auto: for inputs of 4 MB or more, if it is installed and the tokenizer is of that kind.",
    )
    strict: bool = Field(
        default=False, description="Ours: the first record that is lost ends the run. What counts: see --max-dropped-ratio."
    )
    max_dropped_ratio: float = Field(default=MAX_DROPPED_RATIO, ge=0, le=1, description=DROPPED_HELP)
    shard: str | None = Field(
        default=None,
        description="Ours: I/N prepares part I (0 to N-1) of N; qwen3-ops merge-data joins all parts into the bytes of one run. "
        "Lines and parquet row groups are shared out; .csv, .arrow and JSON arrays file by file.",
    )

    @field_validator("prompt_type")
    @classmethod
    def _known_template(cls, name: str | None) -> str | None:
        if name is not None and name not in TEMPLATES:
            raise ValueError(f"unknown prompt type; known: {', '.join(TEMPLATES)}")
        return name

    @model_validator(mode="after")
    def _fits_the_handler(self) -> PreprocessFlags:
        if self.pack and (self.is_pretraining or self.seq_length is None):
            raise ValueError("--pack: needs --seq-length, and goes with instruction data only")
        if self.neat_pack and not self.pack:
            raise ValueError("--neat-pack: needs --pack")
        if self.is_pretraining and (self.prompt_type or self.map_keys):
            raise ValueError(f"--prompt-type and --map-keys do not go with {PRETRAIN}: texts are taken as they are")
        if not self.is_pretraining:
            if self.prompt_type is None:
                raise ValueError("--prompt-type: required for instruction data")
            if self.pad_to_multiple_of > 1:
                raise ValueError(f"--pad-to-multiple-of goes with {PRETRAIN} only")
            try:
                key_map(self.handler_name, self.map_keys)
            except ValueError as error:
                raise ValueError(f"--map-keys: {error}") from error
        if len(set(self.json_keys)) < len(self.json_keys):
            raise ValueError("--json-keys: a column is named twice")
        return self

    @field_validator("shard")
    @classmethod
    def _is_a_shard(cls, text: str | None) -> str | None:
        if text is not None:
            index, _, count = text.partition("/")
            if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
                raise ValueError("not I/N with I from 0 to N-1, such as 0/42")
        return text

    @property
    def part(self) -> tuple[int, int]:
        """Which part is made, of how many."""
        index, _, count = (self.shard or "0/1").partition("/")
        return int(index), int(count)

    @property
    def is_pretraining(self) -> bool:
        return self.handler_name == PRETRAIN


FLAGS = PreprocessFlags
