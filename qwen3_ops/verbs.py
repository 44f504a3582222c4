"""The verbs of the runbook, and what the house needs to know of each.

A verb's flags and its native implementation live in one package below ``native``; both are
named here by string, so that planning a run imports none of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen3_ops.artifacts import Kind
from qwen3_ops.events import Events
from qwen3_ops.flags import Flags


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a verb's implementation is given besides its flags.

    Attributes:
        output: the folder to write into, or None when only the screen is wanted.
        side: a folder that stays when the stage fails and its output is removed, or None.
    """

    events: Events
    output: Path | None = None
    side: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a verb made: ``facts`` for later stages, ``metrics`` for people.

    Attributes:
        certified: files (relative to the output) whose every tensor has a digest in ``certificate.json``
            beside them; they were digested while they were written and are not read again.
    """

    kind: Kind
    facts: Mapping[str, Any]
    metrics: Mapping[str, Any]
    certified: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb.

    Attributes:
        name: of the ``qwen3-ops`` command.
        script: MindSpeed-LLM's own script with the same flags.
        summary: one line for ``--help``.
        package: holds ``flags`` (with ``FLAGS``) and ``verb`` (with ``run``).
        output_flag: the flag naming the output; None when the real script has none.
        output_is_prefix: the flag's value is a file prefix, its folder is the output.
        in_place: writes checkpoints as it goes, each published by itself (training).
        on_devices: MindSpeed-LLM runs it on NPUs, under torchrun.
    """

    name: str
    script: str
    summary: str
    package: str
    output_flag: str | None
    output_is_prefix: bool = False
    in_place: bool = False
    on_devices: bool = False

    def flags(self) -> type[Flags]:
        flags: type[Flags] = importlib.import_module(f"{self.package}.flags").FLAGS
        return flags

    def implementation(self) -> Callable[[Any, Context], Outcome]:
        run: Callable[[Any, Context], Outcome] = importlib.import_module(f"{self.package}.verb").run
        return run


VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(
            name="convert-ckpt",
            script="convert_ckpt.py",
            summary="Convert checkpoints between Hugging Face and Megatron-mcore; merge LoRA.",
            package="qwen3_ops.native.checkpoint",
            output_flag="--save-dir",
        ),
        Verb(
            name="preprocess-data",
            script="preprocess_data.py",
            summary="Turn instruction or pre-training data into Megatron's .bin/.idx.",
            package="qwen3_ops.native.data",
            output_flag="--output-prefix",
            output_is_prefix=True,
        ),
        Verb(
            name="merge-data",
            script="preprocess_data.py --merge-group-keys",
            summary="Join the parts that preprocess-data --shard made into the bytes of one run.",
            package="qwen3_ops.native.data.merge",
            output_flag="--output-prefix",
            output_is_prefix=True,
        ),
        Verb(
            name="train",
            script="posttrain_gpt.py",
            summary="Full or LoRA fine-tuning, or pre-training.",
            package="qwen3_ops.native.training",
            output_flag="--save",
            in_place=True,
            on_devices=True,
        ),
        Verb(
            name="generate",
            script="inference.py",
            summary="Generate text from a Megatron-mcore checkpoint.",
            package="qwen3_ops.native.generation",
            output_flag=None,
            on_devices=True,
        ),
        Verb(
            name="evaluate",
            script="evaluation.py",
            summary="Score a Megatron-mcore checkpoint on MMLU.",
            package="qwen3_ops.native.mmlu",
            output_flag=None,
            on_devices=True,
        ),
    )
}
