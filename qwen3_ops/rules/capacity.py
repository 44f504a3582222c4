"""Memory of devices and host. The disk is looked at when the plan knows what is there already."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.forecast.host import conversion_memory, host_memory, native_training_memory
from qwen3_ops.forecast.kinds import kind_of
from qwen3_ops.forecast.memory import GIB, device_memory, longest_sequence
from qwen3_ops.model import ModelSpec
from qwen3_ops.pipelines import StageRequest
from qwen3_ops.rules.places import nearest_existing
from qwen3_ops.rules.registry import rule

_LAYOUT = (
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "context_parallel_size",
    "nproc_per_node",
    "nnodes",
    "micro_batch_size",
    "global_batch_size",
    "seq_length",
    "lora_r",
    "lora_target_modules",
)


@rule("device_memory", "engine", "recompute_granularity", *_LAYOUT, about="training")
def training_fits_devices(run: RunConfig, model: ModelSpec, stages: Sequence[StageRequest]) -> Iterator[Finding]:
    kind = kind_of(stages)
    if kind is None or run.engine == "native":
        return
    need, have = device_memory(run, model, lora=kind == "lora"), run.device_memory * GIB
    if need.total <= have:
        return
    hopeless = need.standing > have
    yield Finding(
        rule="the training must fit a device's memory" if hopeless else "the training should fit a device's memory at full sequence length",
        fields=("device_memory", "tensor_model_parallel_size", "pipeline_model_parallel_size", "micro_batch_size", "seq_length"),
        values=f"{need.total / GIB:.1f} GiB on pipeline stage {need.stage}: weights {need.weights / GIB:.1f}, gradients "
        f"{need.gradients / GIB:.1f}, optimizer {need.optimizer / GIB:.1f}, activations {need.activations / GIB:.1f}, logits "
        f"{need.logits / GIB:.1f}, runtime {need.runtime / GIB:.1f}; a device has {run.device_memory:g} GiB"
        + ("" if hopeless else f", enough for records up to {longest_sequence(run, model, lora=kind == 'lora', available=have)} tokens"),
        consequence="NPU out of memory" + (" at the start" if hopeless else " at a micro batch of longer records"),
        remedy="`qwen3-ops plan --sweep` lists the layouts that fit"
        if hopeless
        else "lower micro_batch_size or seq_length, set recompute_granularity to full, or see `qwen3-ops plan --sweep`",
        severity="refuse" if hopeless else "warn",
    )


@rule("engine", "cpu_engine", "runtime", "lora_r", "lora_target_modules", about="weights")
def host_is_large_enough(run: RunConfig, model: ModelSpec, stages: Sequence[StageRequest]) -> Iterator[Finding]:
    kind = kind_of(stages)
    if run.runtime != "local":
        return
    have = host_memory()
    needs = [("conversion by MindSpeed-LLM", "cpu_engine", conversion_memory(model, engine=run.cpu_engine))]
    if kind and run.engine == "native":
        needs.append(("training by the native engine", "engine", native_training_memory(run, model, kind=kind)))
    for what, field, need in needs:
        if need > have:
            yield Finding(
                rule=f"the host must have the memory for the {what}",
                fields=(field,),
                values=f"about {need / 1e9:.0f} GB needed, the host has {have / 1e9:.0f} GB",
                consequence="the system kills the process (exit status -9)",
                remedy="set cpu_engine to native: it converts in under 1 GB" if field == "cpu_engine" else "set engine to mindspeed",
            )


def disk_is_large_enough(run: RunConfig, to_make: dict[str, int]) -> Iterator[Finding]:
    """``to_make``: task -> bytes of what does not stand yet."""
    standing = nearest_existing(Path(run.output_root))
    needed, free = sum(to_make.values()), shutil.disk_usage(standing).free
    if needed > free:
        largest = sorted(to_make.items(), key=lambda item: -item[1])[:3]
        yield Finding(
            rule="the disk below output_root must hold what the run makes",
            fields=("output_root", "save_interval", "keep_last"),
            values=f"{needed / 1e9:.1f} GB needed ({', '.join(f'{name} {size / 1e9:.1f}' for name, size in largest)}), "
            f"{free / 1e9:.1f} GB free on {standing}",
            consequence="a stage would fail when the disk is full, after hours",
            remedy="free space, choose another folder, or keep fewer checkpoints (keep_last)",
        )
