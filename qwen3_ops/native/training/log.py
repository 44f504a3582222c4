"""MindSpeed-LLM's training log lines, so that their readers can be shared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone

from qwen3_ops.model import ModelSpec


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One iteration as it is told.

    Attributes:
        learning_rate: of the next step, as Megatron prints it.
        seconds: per iteration.
        lm_loss: None where no step since the last report was taken.
        grad_norm: None where the last step was left out.
        skipped: steps left out since the last report, ``nan`` of them for a loss or gradient that was not a number.
        teraflops: per second and device by Megatron's formula; None to leave it out.
    """

    iteration: int
    train_iters: int
    consumed_samples: int
    batch_size: int
    seconds: float
    learning_rate: float
    lm_loss: float | None
    grad_norm: float | None
    loss_scale: float = 1.0
    skipped: int = 0
    nan: int = 0
    teraflops: float | None = None

    def line(self) -> str:
        """The line as Megatron prints it (UTC time)."""
        parts = [
            f" [{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S}] iteration {self.iteration:8d}/{self.train_iters:8d} |",
            f" consumed samples: {self.consumed_samples:12d} |",
            f" elapsed time per iteration (ms): {self.seconds * 1000:.1f} |",
            "" if self.teraflops is None else f" throughput per GPU (TFLOP/s/GPU): {self.teraflops:.1f} |",
            f" learning rate: {self.learning_rate:.6E} |",
            f" global batch size: {self.batch_size:5d} |",
            f" lm loss: {self.lm_loss:.6E} |" if self.lm_loss is not None and self.lm_loss > 0 else "",
            f" loss scale: {self.loss_scale:.1f} |",
            "" if self.grad_norm is None else f" grad norm: {self.grad_norm:.3f} |",
            f" number of skipped iterations: {self.skipped:3d} |",
            f" number of nan iterations: {self.nan:3d} |",
        ]
        return "".join(parts)


def validation_lines(iteration: int, loss: float, *, part: str | None) -> str:
    """``part`` is named after training only (``validation`` or ``test``)."""
    where = f" on {part} set" if part else ""
    line = f" validation loss at iteration {iteration}{where} | lm loss value: {loss:.6E} | lm loss PPL: {math.exp(min(20, loss)):.6E} | "
    dashes = "-" * (len(line) + 1)
    return f"{dashes}\n{line}\n{dashes}"


def floating_point_operations(spec: ModelSpec, *, batch_size: int, seq_length: int) -> float:
    """Of one step, forward and backward, every sequence counted at full length (Megatron's formula)."""
    width = spec.num_attention_heads * spec.kv_channels / spec.hidden_size
    attention = width * (1 + spec.num_query_groups / spec.num_attention_heads + seq_length / spec.hidden_size)
    mlp = 1.5 * spec.ffn_hidden_size / spec.hidden_size
    logits = spec.padded_vocab_size / (2 * spec.num_layers * spec.hidden_size)
    return 12 * batch_size * seq_length * spec.num_layers * spec.hidden_size**2 * (attention + mlp + logits)
