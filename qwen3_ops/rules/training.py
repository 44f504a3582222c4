"""Learning rates, saving, and what the training is of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.pipelines import StageRequest
from qwen3_ops.rules.registry import rule


@rule("lr", "min_lr", about="training")
def learning_rates_ordered(run: RunConfig) -> Iterator[Finding]:
    if run.min_lr > run.lr:
        yield Finding(
            rule="min_lr must not exceed lr",
            fields=("min_lr", "lr"),
            values=f"min_lr = {run.min_lr}, lr = {run.lr}",
            consequence="training stops at its start",
            remedy="lower min_lr",
        )


@rule("save_interval", "train_iters", about="training")
def something_to_resume(run: RunConfig) -> Iterator[Finding]:
    if run.save_interval is None or run.save_interval >= run.train_iters:
        yield Finding(
            rule="save_interval should be smaller than train_iters",
            fields=("save_interval",),
            values=f"save_interval = {run.save_interval or 'none'}, train_iters = {run.train_iters}",
            consequence="a crash before the end loses everything",
            remedy="save several times in a run",
            severity="warn",
        )


@rule("handler_name")
def data_fits_training(run: RunConfig, stages: Sequence[StageRequest]) -> Iterator[Finding]:
    kinds = {stage.stage for stage in stages} & {"train_full", "train_lora", "pretrain"}
    plain = run.handler_name == "GeneralPretrainHandler"
    if (plain and kinds & {"train_full", "train_lora"}) or (not plain and "pretrain" in kinds):
        yield Finding(
            rule="pre-training wants plain text, fine-tuning conversations",
            fields=("handler_name",),
            values=f"handler_name = {run.handler_name}, the pipeline has {', '.join(sorted(kinds))}",
            consequence="training does not find its data: the names of the prepared files differ",
            remedy="choose an instruction handler" if plain else "choose GeneralPretrainHandler",
        )


@rule("lora_r", "lora_alpha")
def lora_scale_is_usual(run: RunConfig, stages: Sequence[StageRequest]) -> Iterator[Finding]:
    scale = run.lora_alpha / run.lora_r
    if any(stage.stage == "train_lora" for stage in stages) and not 0.25 <= scale <= 8:
        yield Finding(
            rule="lora_alpha / lora_r should lie between 1/4 and 8",
            fields=("lora_r", "lora_alpha"),
            values=f"lora_alpha = {run.lora_alpha}, lora_r = {run.lora_r}: the update is scaled by {scale:g}",
            consequence="the adapter learns next to nothing, or diverges",
            remedy="the runbook has 32 / 16",
            severity="warn",
        )
