"""``qwen3-ops train``: fine-tuning and pre-training in one process of plain PyTorch."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch

from qwen3_ops.errors import BadInput
from qwen3_ops.native.threads import choose_threads
from qwen3_ops.native.training.batches import open_splits
from qwen3_ops.native.training.checkpointing import save_checkpoint
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.log import Scalars
from qwen3_ops.native.training.loop import Totals, Trainer
from qwen3_ops.native.training.optimizer import AdamSettings, MixedPrecisionAdamW
from qwen3_ops.native.training.schedule import schedule_of
from qwen3_ops.native.training.start import load_model, refuse_overwriting, remove_leftovers, restore
from qwen3_ops.verbs import Context, Outcome


def run(flags: FLAGS, ctx: Context) -> Outcome:
    """Train to ``--train-iters`` and save.

    Raises:
        BadInput: the flags, the data or the checkpoint do not fit together.
        Interrupted: stopped by a signal, after saving.
        QualityGate: the loss is no longer a number.
    """
    refuse_several_processes()
    refuse_overwriting(flags)
    remove_leftovers(flags)
    spec = flags.model_spec()
    choose_threads(spec)
    device = torch.device("cpu")
    splits = open_splits(flags)
    model, source = load_model(flags, device=device, events=ctx.events)
    model.recompute = flags.recompute_granularity == "full"
    schedule = schedule_of(flags)
    optimizer = MixedPrecisionAdamW(model.named_parameters(), AdamSettings.of(flags))
    position, totals = restore(source, flags=flags, optimizer=optimizer, schedule=schedule, events=ctx.events)
    _announce(model, optimizer, flags)
    scalars = Scalars(flags.tensorboard_dir, purge_step=position.iteration + 1)
    save = partial(save_checkpoint, flags=flags, model=model, optimizer=optimizer, schedule=schedule, events=ctx.events)
    trainer = Trainer(
        flags=flags, model=model, optimizer=optimizer, schedule=schedule, splits=splits, position=position, totals=totals,
        events=ctx.events, scalars=scalars, save=save if flags.save else None, device=device,
    )  # fmt: skip
    try:
        trainer.run()
    finally:
        scalars.close()
    return Outcome(
        kind="lora_checkpoint" if flags.lora else "mcore_checkpoint",
        facts=_facts(flags, iteration=position.iteration),
        metrics=_metrics(totals, optimizer),
    )


def refuse_several_processes() -> None:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != 1:
        raise BadInput("this engine trains in one process", value=world, source="WORLD_SIZE", remedy="Start it once, without torchrun.")


def _announce(model: torch.nn.Module, optimizer: MixedPrecisionAdamW, flags: FLAGS) -> None:
    total = sum(parameter.numel() for parameter in model.parameters())
    if flags.lora:
        trainable = optimizer.num_trainable
        print(f"trainable params: {trainable:,} || all params: {total:,} || trainable%: {100 * trainable / total}", flush=True)
    print("done with setup ...\ntraining ...", flush=True)


def _facts(flags: FLAGS, *, iteration: int) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "tp": flags.tensor_model_parallel_size,
        "pp": flags.pipeline_model_parallel_size,
        "iteration": iteration,
        "params_dtype": flags.params_dtype_name,
        "seq_length": flags.seq_length,
        "stage": flags.stage or "pretrain",
    }
    if flags.prompt_type is not None:
        facts["prompt_type"] = flags.prompt_type
    if flags.lora:
        facts |= {
            "lora_r": flags.lora_r,
            "lora_alpha": flags.lora_alpha,
            "lora_target_modules": list(flags.lora_target_modules),
            "lora_ckpt_filter": flags.lora_ckpt_filter,
        }
    return facts


def _metrics(totals: Totals, optimizer: MixedPrecisionAdamW) -> dict[str, Any]:
    """Of the whole run, however often it was stopped and resumed."""
    return {
        "first_loss": totals.first_loss,
        "last_loss": totals.last_loss,
        "iterations": totals.iterations,
        "seconds": round(totals.seconds, 3),
        "tokens": totals.tokens,
        "tokens_per_second": round(totals.tokens / totals.seconds, 1) if totals.seconds else None,
        "trainable_parameters": optimizer.num_trainable,
    }
