"""``qwen3-ops train``: fine-tuning and pre-training on plain PyTorch."""

from __future__ import annotations

from typing import Any

import torch

from qwen3_ops.errors import BadInput, Infrastructure
from qwen3_ops.events import Events
from qwen3_ops.native.threads import choose_threads
from qwen3_ops.native.training.batches import open_splits
from qwen3_ops.native.training.checkpointing import Saver
from qwen3_ops.native.training.distributed import World, joined
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.loop import Trainer
from qwen3_ops.native.training.loss_scale import LossScale
from qwen3_ops.native.training.optimizer import AdamSettings, MixedPrecisionAdamW
from qwen3_ops.native.training.position import Totals
from qwen3_ops.native.training.recompute import recomputed_layers
from qwen3_ops.native.training.retention import best_of
from qwen3_ops.native.training.scalars import Scalars
from qwen3_ops.native.training.schedule import schedule_of
from qwen3_ops.native.training.sharding import local_part
from qwen3_ops.native.training.start import load_model, refuse_overwriting, remove_leftovers, restore
from qwen3_ops.verbs import Context, Outcome


def run(flags: FLAGS, ctx: Context) -> Outcome:
    """Train and save, in one process or in as many as torchrun started.

    Raises:
        BadInput: the flags, the data or the checkpoint do not fit together.
        Infrastructure: no room on the device or on the disk, or another process failed.
        Interrupted: stopped by a signal, after saving.
        QualityGate: the loss is no longer a number.
    """
    with joined(timeout_minutes=flags.distributed_timeout_minutes) as world, world.quiet():
        check_world(flags, world)
        try:
            return _train(flags, world, ctx.events if world.first else Events())
        except torch.OutOfMemoryError as error:
            raise Infrastructure(
                "the device has no room left",
                value=str(error).partition(". ")[0],
                remedy="Lower --micro-batch-size, give --recompute-granularity full --recompute-method uniform, or more processes.",
            ) from error


def check_world(flags: FLAGS, world: World) -> None:
    """Raises BadInput when the flags do not go with the number of processes."""
    if flags.micro_batches % world.size:
        raise BadInput(
            "the global batch is not divisible by the micro batches of all processes",
            value=f"--global-batch-size {flags.batch_size}, --micro-batch-size {flags.micro_batch_size}, {world.size} processes",
            remedy="Every process is a data-parallel replica here, whatever the layout of the checkpoint.",
        )
    if world.size == 1 and flags.use_torch_fsdp2:
        raise BadInput("--use-torch-fsdp2 needs several processes", remedy="Start it by torchrun, or leave the flag out.")
    if world.size > 1 and flags.reproduce_loss_mask_defect is not None:
        raise BadInput("--reproduce-loss-mask-defect is for one process", value=f"{world.size} processes")


def _train(flags: FLAGS, world: World, events: Events) -> Outcome:
    refuse_overwriting(flags)
    if world.first:
        remove_leftovers(flags)
    choose_threads(flags.model_spec())
    splits = open_splits(flags, events)
    model, source = load_model(flags, world=world, events=events)
    model.recompute = recomputed_layers(flags)
    schedule, scale = schedule_of(flags), LossScale.of(flags)
    rounded = flags.use_torch_fsdp2 and flags.params_dtype_name != "fp32"
    optimizer = MixedPrecisionAdamW(model.named_parameters(), AdamSettings.of(flags), rounded=rounded)
    position, totals = restore(source, flags=flags, optimizer=optimizer, schedule=schedule, scale=scale, device=world.device, events=events)
    _announce(model, optimizer, flags, world)
    scalars = Scalars(flags, device=world.device, first=world.first, purge_step=position.iteration + 1)
    saver = None
    if flags.save is not None:
        saver = Saver(
            folder=flags.save, flags=flags, model=model, optimizer=optimizer, schedule=schedule, scale=scale, world=world, events=events
        )
    trainer = Trainer(
        flags=flags, model=model, optimizer=optimizer, schedule=schedule, scale=scale, splits=splits, position=position, totals=totals,
        world=world, events=events, scalars=scalars, save=saver.save if saver else None,
    )  # fmt: skip
    try:
        trainer.run()
    finally:
        scalars.close()
    return Outcome(
        kind="lora_checkpoint" if flags.lora else "mcore_checkpoint",
        facts=_facts(flags, iteration=position.iteration),
        metrics={**_metrics(totals, optimizer), **_best(flags, position.iteration)},
    )


def _announce(model: torch.nn.Module, optimizer: MixedPrecisionAdamW, flags: FLAGS, world: World) -> None:
    if world.size > 1:
        how = "FSDP2" if flags.use_torch_fsdp2 else "data parallel"
        print(f"using world size: {world.size}, data-parallel size: {world.size} ({how} on {world.device.type})", flush=True)
        held = sum(local_part(parameter).numel() for parameter in model.parameters())
        print(f"number of parameters held by the first process: {held:,}", flush=True)
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
        "skipped_iterations": totals.skipped,
        "seconds": round(totals.seconds, 3),
        "tokens": totals.tokens,
        "tokens_per_second": round(totals.tokens / totals.seconds, 1) if totals.seconds else None,
        "trainable_parameters": optimizer.num_trainable,
    }


def _best(flags: FLAGS, iteration: int) -> dict[str, Any]:
    """The best checkpoint, where ``--keep-best`` asks for it."""
    best = best_of(flags.save, newest=iteration) if flags.keep_best and flags.save is not None else None
    return {} if best is None else {"best_iteration": best.iteration, "best_validation_loss": best.validation_loss}
