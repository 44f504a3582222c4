"""``qwen3-ops make-tiny``: the tiny twin, everything that the pipeline needs in the small."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch

from qwen3_ops.artifacts import staged_folder
from qwen3_ops.events import Events
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.checkpoint.hf import write_weights
from qwen3_ops.native.checkpoint.mcore_writer import StateSource
from qwen3_ops.native.tiny.pretrain import BATCH, pretrain
from qwen3_ops.native.tiny.records import Record, alpaca_records, mmlu_rows, openai_records, sharegpt_records
from qwen3_ops.native.tiny.texts import SYSTEM, pretraining_texts
from qwen3_ops.native.tiny.tokenizer import END_OF_TEXT, TURN_END, train_tokenizer, write_tokenizer
from qwen3_ops.native.tiny.world import load_world

STEPS = 600
"""Pre-training steps, under a minute."""

_VOCABULARY = 1024
_ALPACA, _SHAREGPT, _OPENAI, _PRETRAIN = 4000, 400, 400, 4000  # records shipped


def make_tiny(output: Path, *, seed: int = 1234, steps: int = STEPS, events: Events) -> None:
    """Write ``output``: model/, alpaca.parquet, sharegpt.jsonl, openai.jsonl, pretrain.parquet, mmlu/data/{test,dev}.

    The same seed gives the same bytes on the same machine. The folder appears when all of it is there.

    Raises:
        BadInput: ``output`` exists already, or can not be written.
        Infrastructure: the disk is full.
    """
    with staged_folder(output) as folder:
        world, rng = load_world(), random.Random(seed)  # noqa: S311 (samples, no secrets)
        plain = pretraining_texts(world, rng, count=_PRETRAIN)
        alpaca = alpaca_records(world, rng, count=_ALPACA)
        sharegpt = sharegpt_records(world, rng, count=_SHAREGPT)
        openai = openai_records(world, rng, count=_OPENAI)
        _write_parquet(folder / "alpaca.parquet", alpaca)
        _write_parquet(folder / "pretrain.parquet", [{"text": text} for text in plain])
        _write_jsonl(folder / "sharegpt.jsonl", sharegpt)
        _write_jsonl(folder / "openai.jsonl", openai)
        _write_mmlu(folder / "mmlu" / "data", mmlu_rows(world, rng))

        model_folder = folder / "model"
        model_folder.mkdir()
        samples = [*plain, SYSTEM, *(text for record in (*alpaca, *sharegpt, *openai) for text in _texts(record))]
        tokenizer = train_tokenizer(samples, vocabulary_size=_VOCABULARY)
        write_tokenizer(tokenizer, model_folder)
        spec = twin_spec()
        _write_config(model_folder, spec, end_of_text=tokenizer.token_to_id(END_OF_TEXT), turn_end=tokenizer.token_to_id(TURN_END))
        torch.set_num_threads(1)  # more would be slower for so small a model, and the sums would depend on their number
        texts = pretraining_texts(world, rng, count=steps * BATCH)
        model = pretrain(spec, tokenizer, texts, seed=seed, events=events)
        write_weights(model_folder, StateSource(model.state_dict(), torch.bfloat16), model=spec, dtype=torch.bfloat16)
    events.log(f"the tiny twin: {spec.num_parameters:,} parameters, {len(alpaca)} Alpaca records -> {output}")


def twin_spec() -> ModelSpec:
    """Like the 14B in all but size: untied, grouped queries, heads * head_dim other than the hidden size."""
    return ModelSpec(
        model_type="qwen3",
        num_layers=4,
        hidden_size=64,
        ffn_hidden_size=192,
        num_attention_heads=8,
        num_query_groups=4,
        kv_channels=16,
        padded_vocab_size=_VOCABULARY,
        rotary_base=1_000_000,
        norm_epsilon=1e-6,
        max_position_embeddings=4096,
        untie_embeddings_and_output_weights=True,
        params_dtype="bf16",
    )


def _write_config(folder: Path, spec: ModelSpec, *, end_of_text: int, turn_end: int) -> None:
    """config.json and generation_config.json with the keys of a released Qwen3."""
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": turn_end,
        "head_dim": spec.kv_channels,
        "hidden_act": "silu",
        "hidden_size": spec.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": spec.ffn_hidden_size,
        "max_position_embeddings": spec.max_position_embeddings,
        "max_window_layers": spec.num_layers,
        "model_type": "qwen3",
        "num_attention_heads": spec.num_attention_heads,
        "num_hidden_layers": spec.num_layers,
        "num_key_value_heads": spec.num_query_groups,
        "rms_norm_eps": spec.norm_epsilon,
        "rope_scaling": None,
        "rope_theta": spec.rotary_base,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": spec.padded_vocab_size,
    }
    generation = {"bos_token_id": end_of_text, "do_sample": False, "eos_token_id": [turn_end, end_of_text], "pad_token_id": end_of_text}
    for name, content in (("config.json", config), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _texts(value: Any) -> list[str]:
    """Every text in a record."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [text for part in parts for text in _texts(part)]


def _write_parquet(path: Path, records: Sequence[Record]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(records)), path)


def _write_jsonl(path: Path, records: Sequence[Record]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def _write_mmlu(folder: Path, rows: Mapping[str, Mapping[str, list[list[str]]]]) -> None:
    for split, subjects in rows.items():
        (folder / split).mkdir(parents=True)
        for subject, questions in subjects.items():
            with (folder / split / f"{subject}_{split}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows(questions)
