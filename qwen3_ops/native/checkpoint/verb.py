"""``convert-ckpt``: a source of whole tensors, poured into a target, with a certificate of what became of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from math import prod
from pathlib import Path
from typing import Any

from qwen3_ops.artifacts import Kind, staged_folder
from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.checkpoint import peft_adapter
from qwen3_ops.native.checkpoint.certificate import Certificate, CertificateRecorder, Side
from qwen3_ops.native.checkpoint.dtypes import WEIGHTS, ElementType, dtype_name
from qwen3_ops.native.checkpoint.flags import FLAGS, MODEL_TYPES
from qwen3_ops.native.checkpoint.hf import HfWeights, write_config, write_planned, write_weights
from qwen3_ops.native.checkpoint.lora import check_fit, settings_of
from qwen3_ops.native.checkpoint.mcore_reader import McoreCheckpoint, open_checkpoint
from qwen3_ops.native.checkpoint.mcore_writer import write_source
from qwen3_ops.native.checkpoint.megatron_args import pad_vocab_size
from qwen3_ops.native.checkpoint.modules import base_names, shape_of
from qwen3_ops.native.checkpoint.schema import Schema
from qwen3_ops.native.checkpoint.sharding import check_layout
from qwen3_ops.native.checkpoint.sources import Opened, Prepared, opened_hf, opened_mg
from qwen3_ops.verbs import Context, Outcome

HF_FOLDER = "mg2hf"
"""Below ``--save-dir``, as MindSpeed-LLM names it."""


def run(flags: FLAGS, ctx: Context) -> Outcome:
    """Convert ``--load-dir`` into ``--save-dir``.

    Raises:
        BadInput: an input that can not be converted; nothing is written then.
        Infrastructure: the disk is too small.
    """
    _check_type(flags)
    if flags.save_lora_to_hf:
        return _adapter_to_hf(flags, ctx)
    opened = _open_hf(flags, ctx) if flags.load_model_type == "hf" else _open_mg(flags, ctx)
    with nullcontext() if opened.merging is None and opened.found == opened.dtype else _one_thread_each():
        return _to_hf(opened, flags, ctx) if flags.save_model_type == "hf" else _to_mcore(opened, flags, ctx)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Where values change, torch computes them: tensors side by side, so that its own threads would only disturb."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_type(flags: FLAGS) -> None:
    if flags.model_type_hf not in MODEL_TYPES:
        raise BadInput(
            "only Qwen3 models can be converted",
            value=flags.model_type_hf,
            source="--model-type-hf",
            remedy=f"Give {' or '.join(MODEL_TYPES)}.",
        )
    if flags.save_model_type == "hf" and flags.hf_cfg_dir is None and not flags.save_lora_to_hf:
        raise BadInput(
            "an export needs the base model's config and tokenizer, and base weights are read-only: nothing is written beside them",
            value="--hf-cfg-dir is missing",
            remedy="Give --save-dir NEW --hf-cfg-dir OLD, where OLD is the base model's Hugging Face folder.",
        )


def _open_hf(flags: FLAGS, ctx: Context) -> Opened:
    weights = HfWeights(flags.load_dir, model_type=MODEL_TYPES[flags.model_type_hf])
    _check_experts(flags, weights.model)
    return opened_hf(weights, dtype=_dtype(flags, weights.dtype, ctx))


def _open_mg(flags: FLAGS, ctx: Context) -> Opened:
    base, adapter = _checkpoints(flags, ctx)
    settings = None
    if adapter is not None:
        settings = settings_of(adapter, given_r=flags.lora_r, given_alpha=flags.lora_alpha, given_targets=flags.lora_target_modules)
        ctx.events.log(f"merging LoRA r {settings.r}, alpha {settings.alpha}, {' '.join(settings.target_modules)} from {adapter.folder}")
    return opened_mg(
        base,
        dtype=_dtype(flags, base.dtype, ctx),
        extra=flags.load_dir_extra,
        adapter=adapter,
        adapter_extra=flags.adapter_extra,
        settings=settings,
        precision=flags.merge_precision,
    )


def _checkpoints(flags: FLAGS, ctx: Context) -> tuple[McoreCheckpoint, McoreCheckpoint | None]:
    """``--load-dir``, and the checkpoint whose LoRA is merged: ``--lora-load``, or the base itself where it holds LoRA."""
    base = open_checkpoint(flags.load_dir, extra=flags.load_dir_extra)
    wanted = MODEL_TYPES[flags.model_type_hf]
    if base.model.model_type != wanted:
        value = f"{base.model.model_type}, not {wanted}"
        raise BadInput("the checkpoint is of another model type", value=value, source="--model-type-hf")
    _check_experts(flags, base.model)
    if flags.lora_load is None:
        if not base.has_base and not flags.save_lora_to_hf:
            raise BadInput(
                "the checkpoint holds LoRA without its base", value=base.folder, remedy="Give the base as --load-dir, this as --lora-load."
            )
        if base.lora is None and flags.lora_flags:
            raise BadInput("there are LoRA flags but no LoRA", value=base.folder, remedy="Give --lora-load, or leave the --lora flags out.")
        return base, base if base.lora is not None else None
    adapter = open_checkpoint(flags.lora_load, extra=flags.lora_load_extra)
    check_fit(base, adapter)
    if adapter.has_base and adapter.lora is not None:
        ctx.events.log(f"{adapter.folder} holds base weights too: they are used in place of {base.folder}'s, as MindSpeed-LLM does")
    return base, adapter


def _check_experts(flags: FLAGS, model: ModelSpec) -> None:
    if flags.num_experts is not None and flags.num_experts != model.num_experts:
        value = f"{model.num_experts}, not {flags.num_experts}"
        raise BadInput("the model has another number of experts", value=value, source="--num-experts")
    if model.num_experts is None and flags.moe_grouped_gemm:
        raise BadInput("a dense model has no experts to group", source="--moe-grouped-gemm")


def _dtype(flags: FLAGS, found: ElementType | None, ctx: Context) -> ElementType:
    """``--params-dtype``, else the source's own; MindSpeed-LLM's default is fp16, whatever the source."""
    if flags.params_dtype is not None:
        return WEIGHTS[flags.params_dtype]
    if found is None:
        raise BadInput("the weights have several dtypes", value=flags.load_dir, remedy="Choose one with --params-dtype.")
    ctx.events.log(f"no --params-dtype: the weights stay {dtype_name(found)}, as in {flags.load_dir}")
    return found


def _to_mcore(opened: Opened, flags: FLAGS, ctx: Context) -> Outcome:
    layout = flags.layout(opened.layout or ParallelLayout())
    check_layout(opened.model, layout)
    grouped = flags.moe_grouped_gemm or (opened.grouped_gemm and not flags.no_moe_grouped_gemm)
    multiple = flags.make_vocab_size_divisible_by or 1
    recorder, iteration = CertificateRecorder(), opened.iteration
    with ctx.events.progress("converting", total=_nbytes(opened.model, opened.dtype), unit="bytes") as bar:
        write_source(
            flags.save_dir,
            opened.source,
            schema=Schema(model=opened.model, layout=layout, grouped_gemm=grouped),
            iteration=iteration,
            dtype=opened.dtype,
            extra_args=opened.args,
            make_vocab_size_divisible_by=multiple,
            recorder=recorder,
            progress=bar.advance,
            beside=lambda folder: _check_merge(opened, ctx),
        )
    rows = pad_vocab_size(opened.model.padded_vocab_size, multiple * layout.tensor_model_parallel_size)
    result = Side(
        type="mg",
        path=".",
        iteration=iteration,
        model=opened.model.model_copy(update={"padded_vocab_size": rows}),
        layout=layout,
        grouped_gemm=grouped,
        dtype=opened.dtype.name,
        tensors=recorder.tensors("result"),
    )
    certified = _certify(flags.save_dir, opened, result, recorder)
    ctx.events.log(f"written as {layout}")
    facts = {"tp": layout.tensor_model_parallel_size, "pp": layout.pipeline_model_parallel_size, "iteration": iteration}
    return _outcome("mcore_checkpoint", opened, facts, certified)


def _to_hf(opened: Opened, flags: FLAGS, ctx: Context) -> Outcome:
    assert flags.hf_cfg_dir is not None  # checked first of all
    model = _model_of_config(flags.hf_cfg_dir, opened.model)
    recorder, total = CertificateRecorder(), _nbytes(opened.model, opened.dtype)
    with staged_folder(flags.save_dir / HF_FOLDER) as folder, ctx.events.progress("converting", total=total, unit="bytes") as bar:
        write_weights(folder, opened.source, model=model, dtype=opened.dtype, recorder=recorder, progress=bar.advance)
        _check_merge(opened, ctx)
        write_config(folder, base=flags.hf_cfg_dir, dtype=opened.dtype)
    result = Side(type="hf", path=HF_FOLDER, model=model, dtype=opened.dtype.name, tensors=recorder.tensors("result"))
    certified = _certify(flags.save_dir, opened, result, recorder)
    return _outcome("hf_model", opened, {"model": HF_FOLDER}, certified)


def _adapter_to_hf(flags: FLAGS, ctx: Context) -> Outcome:
    """``--save-lora-to-hf``: nothing is merged; the adapter's own checkpoint is the source."""
    _, adapter = _checkpoints(flags, ctx)
    if adapter is None:
        raise BadInput("the checkpoint holds no LoRA weights", value=flags.load_dir, remedy="Give --lora-load.")
    settings = settings_of(adapter, given_r=flags.lora_r, given_alpha=flags.lora_alpha, given_targets=flags.lora_target_modules)
    assert adapter.lora is not None  # settings_of made sure
    opened = opened_mg(adapter, dtype=_dtype(flags, adapter.dtype, ctx), extra=flags.adapter_extra)
    plan = peft_adapter.plan_adapter(adapter.model, lora=adapter.lora, r=settings.r, dtype=opened.dtype)
    recorder = CertificateRecorder()
    with staged_folder(flags.save_dir / HF_FOLDER) as folder:
        write_planned(folder, plan, Prepared(adapter, dtype=opened.dtype, folder=adapter.folder), recorder=recorder)
        peft_adapter.write_config(folder, settings=settings, plan=plan, base_model=flags.hf_cfg_dir)
    result = Side(type="peft", path=HF_FOLDER, model=adapter.model, dtype=opened.dtype.name, tensors=recorder.tensors("result"))
    _certify(flags.save_dir, opened, result, recorder)
    lora = {"lora_r": settings.r, "lora_alpha": settings.alpha, "lora_target_modules": list(settings.target_modules)}
    return Outcome(
        kind="lora_checkpoint",
        facts={"model": HF_FOLDER, "params_dtype": dtype_name(opened.dtype), **lora},
        metrics={"tensors": len(plan.files[peft_adapter.WEIGHTS])},
    )


def _check_merge(opened: Opened, ctx: Context) -> None:
    if opened.merging is not None:
        for name in opened.merging.check():
            ctx.events.warning(f"the merge leaves {name} as it was: B @ A rounds to zero there")


def _certify(folder: Path, opened: Opened, result: Side, recorder: CertificateRecorder) -> frozenset[str]:
    """Write the certificate; the files whose tensors it lists."""
    Certificate(
        params_dtype=dtype_name(opened.dtype),
        source=opened.side(recorder.tensors("source")),
        result=result,
        merge=opened.merge(),
        mapping=recorder.mapping(opened.source.names()),
    ).write(folder)
    return frozenset(str(Path(result.path) / ref.partition(":")[0]) for ref in result.tensors)


def _model_of_config(folder: Path, source: ModelSpec) -> ModelSpec:
    """The model that config.json describes; its vocabulary may be smaller than the checkpoint's padded one.

    Raises:
        BadInput: it is another model.
    """
    model = ModelSpec.from_hf(folder, model_type=source.model_type)
    shape = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels")
    for name in (*shape, "num_experts", "moe_intermediate_size", "untie_embeddings_and_output_weights"):
        if getattr(model, name) != getattr(source, name):
            value = f"{name} {getattr(model, name)}, the checkpoint has {getattr(source, name)}"
            raise BadInput("--hf-cfg-dir is another model", value=value, source=folder / "config.json")
    if model.padded_vocab_size > source.padded_vocab_size:
        value = f"vocab_size {model.padded_vocab_size}, the checkpoint has {source.padded_vocab_size} rows"
        raise BadInput("--hf-cfg-dir has a larger vocabulary", value=value, source=folder / "config.json")
    return model


def _nbytes(model: ModelSpec, dtype: ElementType) -> int:
    return sum(prod(shape_of(name, model)) for name in base_names(model)) * dtype.itemsize


def _outcome(kind: Kind, opened: Opened, facts: Mapping[str, Any], certified: frozenset[str]) -> Outcome:
    merged = opened.settings
    lora = {} if merged is None else {"merged_lora": {"r": merged.r, "alpha": merged.alpha, "target_modules": list(merged.target_modules)}}
    return Outcome(
        kind=kind,
        facts={**facts, "params_dtype": dtype_name(opened.dtype), **lora},
        metrics={"tensors": len(opened.source.names()), "bytes": _nbytes(opened.model, opened.dtype)},
        certified=certified,
    )
