"""AdamW over fp32 master weights, with Megatron's decay groups and clipping."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qwen3_ops.errors import BadInput
from qwen3_ops.native.training.distributed import World
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.sharding import assign, is_sharded, whole


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

    Args:
        rounded: fp32 parameters are computed with and saved below fp32 (FSDP2), so that the state has to tell them.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], settings: AdamSettings, *, rounded: bool = False) -> None:
        self.settings = settings
        self._params = {name: parameter for name, parameter in named if parameter.requires_grad}
        self._masters = {name: _master(parameter) for name, parameter in self._params.items()}
        self._told = {name for name, master in self._masters.items() if rounded or master is not self._params[name]}
        for name, parameter in self._params.items():
            if self._masters[name] is not parameter:
                parameter.register_post_accumulate_grad_hook(_GradientSum(self._masters[name]))  # type: ignore[no-untyped-call]
        masters = list(self._masters.values())
        groups = [
            {"params": [master for master in masters if master.dim() > 1], "weight_decay": settings.weight_decay},
            {"params": [master for master in masters if master.dim() <= 1], "weight_decay": 0.0},
        ]
        self._fused = masters[0].device.type in ("cpu", "cuda")  # elsewhere torch has no such kernel
        self._adam = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=0.0, betas=settings.betas, eps=settings.eps, fused=self._fused or None
        )

    def average_gradients(self, world: World, *, scale: float) -> None:
        """Divide the loss scale out, and take the mean over the processes where FSDP2 has not taken it already."""
        for master in self._masters.values():
            if master.grad is None and not is_sharded(master):
                master.grad = torch.zeros_like(master)
        gradients = list(self._gradients())
        if scale != 1.0:
            torch._foreach_mul_(gradients, 1.0 / scale)
        if not any(is_sharded(gradient) for gradient in gradients):
            world.average(gradients)

    def gradient_norm(self) -> Tensor:
        """L2 norm over the gradients of all trainable parameters, fp32 scalar."""
        return whole(torch.nn.utils.get_total_norm(list(self._gradients())))

    def step(self, lr: float, *, norm: Tensor) -> None:
        """Clip by ``norm`` (factor clip / (norm + 1e-6) where that is below 1), step, and forget the gradients."""
        if self.settings.clip_grad > 0:
            torch.nn.utils.clip_grads_with_norm_(self._masters.values(), self.settings.clip_grad, norm)
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        self.forget_gradients()
        self._publish()

    def forget_gradients(self) -> None:
        self._adam.zero_grad(set_to_none=True)

    def _gradients(self) -> Iterator[Tensor]:
        return (master.grad for master in self._masters.values() if master.grad is not None)

    @torch.no_grad()
    def _publish(self) -> None:
        """Round the masters to the model's weights."""
        for name, parameter in self._params.items():
            if self._masters[name] is not parameter:
                parameter.copy_(self._masters[name])

    @property
    def num_trainable(self) -> int:
        return sum(parameter.numel() for parameter in self._params.values())

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """``exp_avg.NAME``, ``exp_avg_sq.NAME``, ``step.NAME`` and, below fp32, ``master.NAME``: whole fp32 tensors, made one by one.

        They are the same however many processes share them; all of these have to ask.
        """
        for name, master in self._masters.items():
            for key, value in self._adam.state.get(master, {}).items():
                yield f"{key}.{name}", whole(value.detach()).float()
            if name in self._told:
                yield f"master.{name}", whole(master.detach())

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
            if name in self._told:
                assign(master, tensors[f"master.{name}"])
            moments = {key: torch.zeros_like(master) for key in ("exp_avg", "exp_avg_sq")}
            for key, moment in moments.items():
                assign(moment, tensors[f"{key}.{name}"])
            steps = tensors[f"step.{name}"].clone()
            self._adam.state[master] = {"step": steps.to(master.device) if self._fused else steps, **moments}
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
