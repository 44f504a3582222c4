"""``convert-ckpt``: the three directions, each a source of whole tensors poured into a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwen3_ops.artifacts import Kind, staged_folder
from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.checkpoint.dtypes import TORCH_DTYPES, dtype_name
from qwen3_ops.native.checkpoint.flags import FLAGS
from qwen3_ops.native.checkpoint.hf import HfWeights, write_config, write_weights
from qwen3_ops.native.checkpoint.lora import LoraSettings, check_fit, merge, settings_of
from qwen3_ops.native.checkpoint.mcore import McoreCheckpoint, open_checkpoint, write_checkpoint
from qwen3_ops.native.checkpoint.sharding import base_names, check_layout, shape_of
from qwen3_ops.native.checkpoint.state import refuse_nan
from qwen3_ops.verbs import Context, Outcome

HF_FOLDER = "mg2hf"
"""Below ``--save-dir``, as MindSpeed-LLM names it."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A whole model, whatever it came from.

    Attributes:
        state: whole tensors, made one at a time.
        model: ``padded_vocab_size`` is the number of rows in ``state``.
        layout: of the checkpoint; None for a Hugging Face folder.
        args: of the checkpoint, carried over to the next one.
        merged: the LoRA that went into ``state``.
    """

    state: Mapping[str, Tensor]
    model: ModelSpec
    dtype: torch.dtype
    iteration: int = 1
    layout: ParallelLayout | None = None
    args: Mapping[str, Any]
    merged: LoraSettings | None = None


def run(flags: FLAGS, ctx: Context) -> Outcome:
    """Convert ``--load-dir`` into ``--save-dir``.

    Raises:
        BadInput: an input that can not be converted; nothing is written then.
    """
    _check_type(flags)
    source = _from_hf(flags, ctx) if flags.load_model_type == "hf" else _from_mcore(flags, ctx)
    return _to_hf(source, flags, ctx) if flags.save_model_type == "hf" else _to_mcore(source, flags, ctx)


def _check_type(flags: FLAGS) -> None:
    if flags.model_type_hf != "qwen3":
        raise BadInput(
            "only dense Qwen3 models can be converted", value=flags.model_type_hf, source="--model-type-hf", remedy="Give qwen3."
        )
    if flags.save_model_type == "hf" and flags.hf_cfg_dir is None:
        raise BadInput(
            "an export needs the base model's config and tokenizer, and base weights are read-only: nothing is written beside them",
            value="--hf-cfg-dir is missing",
            remedy="Give --save-dir NEW --hf-cfg-dir OLD, where OLD is the base model's Hugging Face folder.",
        )


def _from_hf(flags: FLAGS, ctx: Context) -> Source:
    weights = HfWeights(flags.load_dir)
    dtype = _dtype(flags, weights.dtype, ctx)
    state = refuse_nan(weights.state(dtype), source=flags.load_dir)
    return Source(state=state, model=weights.model, dtype=dtype, args={})


def _from_mcore(flags: FLAGS, ctx: Context) -> Source:
    base = open_checkpoint(flags.load_dir)
    dtype = _dtype(flags, base.dtype, ctx)
    state: Mapping[str, Tensor] = base.state(padded=True)
    settings = None
    adapter = _adapter(flags, base, ctx)
    if adapter is not None:
        settings = settings_of(adapter, given_r=flags.lora_r, given_alpha=flags.lora_alpha, given_targets=flags.lora_target_modules)
        own = adapter.state(padded=True)
        state = merge(own if adapter.has_base else state, own, settings=settings, dtype=dtype)
        ctx.events.log(f"merging LoRA r {settings.r}, alpha {settings.alpha}, {' '.join(settings.target_modules)} from {adapter.folder}")
    return Source(
        state=refuse_nan(state, source=flags.load_dir),
        model=base.model.model_copy(update={"padded_vocab_size": base.padded_vocab_size}),
        dtype=dtype,
        iteration=base.iteration or 1,
        layout=base.layout,
        args={**vars(base.args), "lora_target_modules": [], "lora_ckpt_filter": False},
        merged=settings,
    )


def _adapter(flags: FLAGS, base: McoreCheckpoint, ctx: Context) -> McoreCheckpoint | None:
    """The checkpoint whose LoRA is merged: ``--lora-load``, or the base itself where it holds LoRA."""
    if flags.lora_load is None:
        if not base.has_base:
            raise BadInput(
                "the checkpoint holds LoRA without its base", value=base.folder, remedy="Give the base as --load-dir, this as --lora-load."
            )
        if base.lora is None and flags.lora_flags:
            raise BadInput("there are LoRA flags but no LoRA", value=base.folder, remedy="Give --lora-load, or leave the --lora flags out.")
        return base if base.lora is not None else None
    adapter = open_checkpoint(flags.lora_load)
    check_fit(base, adapter)
    if adapter.has_base:
        ctx.events.log(f"{adapter.folder} holds base weights too: they are used in place of {base.folder}'s, as MindSpeed-LLM does")
    return adapter


def _dtype(flags: FLAGS, found: torch.dtype | None, ctx: Context) -> torch.dtype:
    """``--params-dtype``, else the source's own; MindSpeed-LLM's default is fp16, whatever the source."""
    if flags.params_dtype is not None:
        return TORCH_DTYPES[flags.params_dtype]
    if found is None:
        raise BadInput("the weights have several dtypes", value=flags.load_dir, remedy="Choose one with --params-dtype.")
    ctx.events.log(f"no --params-dtype: the weights stay {dtype_name(found)}, as in {flags.load_dir}")
    return found


def _to_mcore(source: Source, flags: FLAGS, ctx: Context) -> Outcome:
    before = source.layout or ParallelLayout()
    layout = ParallelLayout(
        tensor_model_parallel_size=flags.target_tensor_parallel_size or before.tensor_model_parallel_size,
        pipeline_model_parallel_size=flags.target_pipeline_parallel_size or before.pipeline_model_parallel_size,
    )
    check_layout(source.model, layout)
    with ctx.events.progress("converting", total=_nbytes(source.model, source.dtype), unit="bytes") as bar:
        write_checkpoint(
            flags.save_dir,
            iteration=source.iteration,
            state=source.state,
            model=source.model,
            layout=layout,
            dtype=source.dtype,
            extra_args=source.args,
            make_vocab_size_divisible_by=flags.make_vocab_size_divisible_by or 1,
            progress=bar.advance,
        )
    facts = {"tp": layout.tensor_model_parallel_size, "pp": layout.pipeline_model_parallel_size, "iteration": source.iteration}
    return _outcome("mcore_checkpoint", source, facts)


def _to_hf(source: Source, flags: FLAGS, ctx: Context) -> Outcome:
    assert flags.hf_cfg_dir is not None  # checked first of all
    model = _model_of_config(flags.hf_cfg_dir, source.model)
    total = _nbytes(source.model, source.dtype)
    with staged_folder(flags.save_dir / HF_FOLDER) as folder, ctx.events.progress("converting", total=total, unit="bytes") as bar:
        write_weights(folder, source.state, model=model, dtype=source.dtype, progress=bar.advance)
        write_config(folder, base=flags.hf_cfg_dir, dtype=source.dtype)
    return _outcome("hf_model", source, {"model": HF_FOLDER})


def _model_of_config(folder: Path, source: ModelSpec) -> ModelSpec:
    """The model that config.json describes; its vocabulary may be smaller than the checkpoint's padded one.

    Raises:
        BadInput: it is another model.
    """
    model = ModelSpec.from_hf(folder)
    shape = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels")
    for name in (*shape, "untie_embeddings_and_output_weights"):
        if getattr(model, name) != getattr(source, name):
            value = f"{name} {getattr(model, name)}, the checkpoint has {getattr(source, name)}"
            raise BadInput("--hf-cfg-dir is another model", value=value, source=folder / "config.json")
    if model.padded_vocab_size > source.padded_vocab_size:
        value = f"vocab_size {model.padded_vocab_size}, the checkpoint has {source.padded_vocab_size} rows"
        raise BadInput("--hf-cfg-dir has a larger vocabulary", value=value, source=folder / "config.json")
    return model


def _nbytes(model: ModelSpec, dtype: torch.dtype) -> int:
    return sum(torch.Size(shape_of(name, model)).numel() for name in base_names(model)) * dtype.itemsize


def _outcome(kind: Kind, source: Source, facts: Mapping[str, Any]) -> Outcome:
    merged = source.merged
    lora = {} if merged is None else {"merged_lora": {"r": merged.r, "alpha": merged.alpha, "target_modules": list(merged.target_modules)}}
    return Outcome(
        kind=kind,
        facts={**facts, "params_dtype": dtype_name(source.dtype), **lora},
        metrics={"tensors": len(source.state), "bytes": _nbytes(source.model, source.dtype)},
    )
