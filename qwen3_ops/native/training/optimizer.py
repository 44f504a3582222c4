"""AdamW over fp32 master weights, with Megatron's decay groups and clipping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qwen3_ops.errors import BadInput
from qwen3_ops.native.training.flags import FLAGS


@dataclass(frozen=True, kw_only=True)
class AdamSettings:
    """Weight decay acts on matrices only: embedding, output layer, projections, LoRA; not on norms."""

    betas: tuple[float, float]
    eps: float
    weight_decay: float
    clip_grad: float

    @classmethod
    def of(cls, flags: FLAGS) -> AdamSettings:
        return cls(
            betas=(flags.adam_beta1, flags.adam_beta2),
            eps=flags.adam_eps,
            weight_decay=flags.weight_decay,
            clip_grad=flags.clip_grad,
        )


class MixedPrecisionAdamW:
    """Steps the trainable parameters of a model.

    Parameters below fp32 have an fp32 master copy, and their gradients are summed in fp32 over
    the micro batches; fp32 parameters are their own master.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], settings: AdamSettings) -> None:
        self.settings = settings
        self._params = {name: parameter for name, parameter in named if parameter.requires_grad}
        self._masters = {name: _master(parameter) for name, parameter in self._params.items()}
        for name, parameter in self._params.items():
            if self._masters[name] is not parameter:
                parameter.register_post_accumulate_grad_hook(_GradientSum(self._masters[name]))  # type: ignore[no-untyped-call]
        decayed = [master for master in self._masters.values() if master.dim() > 1]
        others = [master for master in self._masters.values() if master.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._adam = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=0.0, betas=settings.betas, eps=settings.eps, fused=True
        )

    def gradient_norm(self) -> Tensor:
        """L2 norm over the gradients of all trainable parameters, fp32 scalar."""
        return torch.nn.utils.get_total_norm([master.grad for master in self._masters.values() if master.grad is not None])

    def step(self, lr: float, *, norm: Tensor) -> None:
        """Clip by ``norm`` (factor clip / (norm + 1e-6) where that is below 1), step, and forget the gradients."""
        if self.settings.clip_grad > 0:
            torch.nn.utils.clip_grads_with_norm_(self._masters.values(), self.settings.clip_grad, norm)
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._publish()

    @torch.no_grad()
    def _publish(self) -> None:
        """Round the masters to the model's weights."""
        for name, parameter in self._params.items():
            if self._masters[name] is not parameter:
                parameter.copy_(self._masters[name])

    @property
    def num_trainable(self) -> int:
        return sum(parameter.numel() for parameter in self._params.values())

    def state(self) -> dict[str, Tensor]:
        """``exp_avg.NAME``, ``exp_avg_sq.NAME``, ``step.NAME`` and, below fp32, ``master.NAME``; all fp32."""
        tensors: dict[str, Tensor] = {}
        for name, master in self._masters.items():
            for key, value in self._adam.state.get(master, {}).items():
                tensors[f"{key}.{name}"] = value.detach().float().cpu().contiguous()
            if master is not self._params[name]:
                tensors[f"master.{name}"] = master.detach().cpu()
        return tensors

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], *, source: object) -> None:
        """Take over what ``state`` gave.

        Raises:
            BadInput: it belongs to other parameters.
        """
        names = {name.partition(".")[2] for name in tensors}
        if names != set(self._masters):
            other = sorted(names ^ set(self._masters))
            raise BadInput("the optimizer state belongs to other trainable parameters", value=", ".join(other[:3]), source=source)
        for name, master in self._masters.items():
            if master is not self._params[name]:
                master.copy_(tensors[f"master.{name}"])
            self._adam.state[master] = {
                "step": tensors[f"step.{name}"].clone(),
                "exp_avg": tensors[f"exp_avg.{name}"].to(master.device, copy=True),
                "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(master.device, copy=True),
            }
        self._publish()


def _master(parameter: nn.Parameter) -> Tensor:
    return parameter if parameter.dtype == torch.float32 else parameter.detach().float().clone().requires_grad_()


class _GradientSum:
    """A hook that moves a parameter's gradient into its master's, in fp32."""

    def __init__(self, master: Tensor) -> None:
        self._master = master

    def __call__(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        if self._master.grad is None:
            self._master.grad = parameter.grad.float()
        else:
            self._master.grad += parameter.grad
        parameter.grad = None
