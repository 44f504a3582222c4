"""LoRA: what an adapter says of itself, and merging it into its base.

``W + (alpha / r) * B @ A`` with ``W [out, in]``, ``B [out, r]``, ``A [r, in]``, rounded where PEFT
rounds on a CPU, so that the result is MindSpeed-LLM's bit for bit:

- bf16: ``bf16(W + bf16(bf16(B @ A) * scale))``, the product accumulated in fp32;
- fp16: ``fp16(W + fp16(fp32(B @ A) * scale))``;
- fp32: no rounding between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qwen3_ops.artifacts import facts_of, read_manifest
from qwen3_ops.errors import BadInput
from qwen3_ops.native.checkpoint.mcore import McoreCheckpoint
from qwen3_ops.native.checkpoint.state import LazyState


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Hyper-parameters that decide what a merge gives."""

    r: int
    alpha: int
    target_modules: tuple[str, ...]

    @property
    def scale(self) -> float:
        return self.alpha / self.r


def settings_of(
    adapter: McoreCheckpoint, *, given_r: int | None = None, given_alpha: int | None = None, given_targets: tuple[str, ...] = ()
) -> LoraSettings:
    """Rank and targets from the adapter's tensors, alpha from its args, else from its manifest, else as given.

    Raises:
        BadInput: no LoRA there, alpha known nowhere, or any two sources that disagree.
    """
    source = adapter.folder
    if adapter.lora is None or adapter.lora_r is None:
        raise BadInput("the checkpoint holds no LoRA weights", value=source, remedy="Give the folder that LoRA training saved to.")
    trained = bool(getattr(adapter.args, "lora_target_modules", None))  # without targets the args hold Megatron's defaults only
    stored: Mapping[str, Any] = vars(adapter.args) if trained else {}
    noted = facts_of(read_manifest(source))
    r = _agreed("lora_r", source, {"its tensors": adapter.lora_r, "its args": stored, "its manifest": noted, "--lora-r": given_r})
    alpha = _agreed("lora_alpha", source, {"its args": stored, "its manifest": noted, "--lora-alpha": given_alpha})
    targets = {
        "its tensors": _sorted(adapter.lora.target_modules),
        "its args": _sorted(stored.get("lora_target_modules")),
        "its manifest": _sorted(noted.get("lora_target_modules")),
        "--lora-target-modules": _sorted(given_targets),
    }
    return LoraSettings(r=r, alpha=alpha, target_modules=_agreed("lora_target_modules", source, targets))


def _sorted(modules: Any) -> tuple[str, ...] | None:
    return tuple(sorted(modules)) if modules else None


def _agreed(name: str, adapter: object, views: Mapping[str, Any]) -> Any:
    """The one value that all sources give; a source is a value or a mapping that may hold it."""
    known = {source: view.get(name) if isinstance(view, Mapping) else view for source, view in views.items()}
    known = {source: value for source, value in known.items() if value is not None}
    if not known:
        raise BadInput(f"{name} of the adapter is not known", value=adapter, remedy=f"Give --{name.replace('_', '-')} as in training.")
    (first, value), *others = known.items()
    for source, other in others:
        if other != value:
            said = f"{_shown(value)} by {first}, {_shown(other)} by {source}"
            raise BadInput(
                f"{name} of the adapter is in doubt", value=said, source=adapter, remedy="Leave the flag out to take the adapter's own."
            )
    return value


def _shown(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def check_fit(base: McoreCheckpoint, adapter: McoreCheckpoint) -> None:
    """Raises BadInput where the adapter was not trained on a base of this shape and layout."""
    if base.lora is not None:
        raise BadInput(
            "the base checkpoint holds LoRA weights itself", value=base.folder, source="--load-dir", remedy="Give the base of the training."
        )
    if adapter.layout != base.layout:
        value = f"{adapter.layout}, the base is {base.layout}"
        raise BadInput("the adapter has another layout than its base", value=value, source=adapter.folder, remedy="Convert the base to it.")
    for name in ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels"):
        mine, other = getattr(base.model, name), getattr(adapter.model, name)
        if mine != other:
            raise BadInput("the adapter was trained on another model", value=f"{name} {other}, the base has {mine}", source=adapter.folder)


def merge(base: Mapping[str, Tensor], adapter: Mapping[str, Tensor], *, settings: LoraSettings, dtype: torch.dtype) -> LazyState:
    """Whole tensors of the merged model, each made when it is asked for.

    Args:
        base: whole tensors; names with ``.base_layer.`` are understood.
        adapter: holds ``<module>.lora_A.default.weight`` and ``.lora_B.default.weight``.

    Raises:
        BadInput: the merge would change nothing.
    """
    plain = {name.replace(".base_layer.", "."): name for name in base if ".lora_" not in name}

    def load(name: str) -> Tensor:
        weight = base[plain[name]].to(dtype)
        module = name.removesuffix(".weight")
        if f"{module}.lora_A.default.weight" not in adapter:
            return weight
        a, b = (adapter[f"{module}.lora_{half}.default.weight"].to(dtype) for half in "AB")
        return weight + _delta(a, b, settings.scale)

    merged = LazyState(plain, load)
    targeted = (name for name in plain if f"{name.removesuffix('.weight')}.lora_A.default.weight" in adapter)
    if all(torch.equal(merged[name], base[plain[name]].to(dtype)) for name in targeted):
        raise BadInput("the merge changes nothing", value="B @ A rounds to zero in every layer", remedy="Was the adapter trained?")
    return merged


def _delta(a: Tensor, b: Tensor, scale: float) -> Tensor:
    product = b.float() @ a.float()
    if a.dtype == torch.bfloat16:
        product = product.to(a.dtype)
    return (product * scale).to(a.dtype)
