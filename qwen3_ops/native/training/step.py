"""One optimizer step: from micro batches to new weights, or to the reason why the weights stay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen3_ops.native.model import Qwen3
from qwen3_ops.native.training.batches import MicroBatch
from qwen3_ops.native.training.distributed import World
from qwen3_ops.native.training.loss import token_losses_mean
from qwen3_ops.native.training.loss_scale import LossScale
from qwen3_ops.native.training.optimizer import MixedPrecisionAdamW


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """What the micro batches of a step gave.

    Attributes:
        losses: fp32 [micro batches of all processes], in the order of their samples.
        tokens: of all processes, without padding.
        norm: L2 norm of the gradient, averaged over the micro batches and not yet clipped.
    """

    losses: Tensor
    tokens: int
    norm: Tensor

    @property
    def loss(self) -> float:
        """The plain mean over the micro batches, whatever their numbers of tokens: Megatron's."""
        return float(self.losses.mean())


def micro_batch_loss(model: Qwen3, batch: MicroBatch, *, scale: float = 1.0) -> Tensor:
    """Mean over the labels of ``batch``; its gradients are rounded to the model's dtype when they are ``scale`` times as large."""
    hidden = model.hidden_states(batch.tokens, positions=batch.positions, documents=batch.documents)
    return token_losses_mean(hidden, model.output_weight, batch.labels, gradient_scale=scale)


def compute_gradients(
    model: Qwen3, batches: Iterable[MicroBatch], *, count: int, optimizer: MixedPrecisionAdamW, scale: LossScale, world: World
) -> Gradients:
    """Leaves the step's gradient with the optimizer, the same in every process.

    Args:
        batches: those of this process, ``count`` of them.
    """
    model.train()
    losses: list[Tensor] = []
    tokens = 0
    for batch in batches:
        loss = micro_batch_loss(model, batch, scale=scale.scale)
        if not batch.num_labels:
            loss = loss + 0.0 * model.output_weight.sum()  # every process has to have a gradient of every weight
        (loss * scale.scale / count).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        tokens += batch.num_tokens
    optimizer.average_gradients(world, scale=scale.scale)
    everyone = world.gather(torch.stack([*losses, torch.tensor(float(tokens), device=world.device)]))
    return Gradients(
        losses=everyone[:, :-1].T.flatten(),
        tokens=int(everyone[:, -1].sum()),
        norm=optimizer.gradient_norm(),
    )
