"""LoRA over Megatron's fused linear layers, by stock PEFT.

One A serves query, key and value together, and one serves gate and up: that is what
MindSpeed-LLM trains. Adapters on separate projections would be another model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qwen3_ops.errors import BadInput
from qwen3_ops.native.model import Qwen3
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.sharding import assign


def is_lora(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def add_lora(model: Qwen3, flags: FLAGS) -> None:
    """Wrap the target modules in place and freeze everything else.

    The new state keys are ``MODULE.base_layer.weight`` and ``MODULE.lora_{A,B}.default.weight``, the latter
    of the model's dtype and not set yet: the model may be on the meta device.
    """
    dtype = model.decoder.final_layernorm.weight.dtype
    with torch.device("meta"):
        _inject(model, flags)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_lora(name))
        if is_lora(name):
            parameter.data = parameter.data.to(dtype)


def draw_lora(model: Qwen3, flags: FLAGS) -> dict[str, Tensor]:
    """Starting values: A from ``--seed``, uniform in +-1/sqrt(fan-in) (Kaiming with a = sqrt 5), layer after layer; B zero."""
    from peft.tuners.lora import LoraLayer

    torch.manual_seed(flags.seed)
    drawn: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            with torch.device("meta"):
                base = nn.Linear(module.in_features, module.out_features, bias=False)
            single = nn.ModuleDict({name.rpartition(".")[2]: base.to_empty(device="cpu")})
            _inject(single, flags)
            drawn |= {f"{name}.{key.partition('.')[2]}": value for key, value in single.state_dict().items() if is_lora(key)}
    return drawn


def _inject(model: nn.Module, flags: FLAGS) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=flags.lora_r, lora_alpha=flags.lora_alpha, target_modules=list(flags.lora_target_modules), lora_dropout=0.0)
    inject_adapter_in_model(config, model, adapter_name="default")


def split_lora(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Base weights under the unwrapped model's names, and the LoRA weights."""
    base = {name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if not is_lora(name)}
    return base, {name: tensor for name, tensor in state.items() if is_lora(name)}


def load_lora(model: nn.Module, state: Mapping[str, Tensor], *, source: object) -> None:
    """Set every LoRA weight of the model.

    Raises:
        BadInput: other modules or another rank than the flags say.
    """
    own = {name: parameter for name, parameter in model.named_parameters() if is_lora(name)}
    problems = [f"{name} is not there" for name in own if name not in state]
    problems += [f"{name} is not a target of the flags" for name in state if name not in own]
    problems += [
        f"{name} is {list(state[name].shape)}, the flags want {list(parameter.shape)}"
        for name, parameter in own.items()
        if name in state and state[name].shape != parameter.shape
    ]
    if problems:
        raise BadInput(
            "the LoRA weights do not fit the flags",
            value="; ".join(problems[:3]),
            source=source,
            remedy="Take --lora-r and --lora-target-modules from the run that made them.",
        )
    for name, parameter in own.items():
        assign(parameter, state[name])
