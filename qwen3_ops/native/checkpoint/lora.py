"""LoRA: what an adapter says of itself, and its base with it merged in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen3_ops.artifacts import facts_of, read_manifest
from qwen3_ops.errors import BadInput
from qwen3_ops.native.checkpoint.certificate import MergedTensor
from qwen3_ops.native.checkpoint.dtypes import ElementType
from qwen3_ops.native.checkpoint.flags import MergePrecision
from qwen3_ops.native.checkpoint.mcore_reader import McoreCheckpoint
from qwen3_ops.native.checkpoint.state import Part, Source
from qwen3_ops.native.checkpoint.whole import Whole

if TYPE_CHECKING:
    from qwen3_ops.native.checkpoint.merge import Changes


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
    for name in ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels", "num_experts"):
        mine, other = getattr(base.model, name), getattr(adapter.model, name)
        if mine != other:
            raise BadInput("the adapter was trained on another model", value=f"{name} {other}, the base has {mine}", source=adapter.folder)


class MergedSource:
    """The merged model as a source: each tensor is merged while it is read. ``adapter`` makes its tensors in ``dtype``."""

    def __init__(self, base: Source, adapter: Source, *, settings: LoraSettings, dtype: ElementType, precision: MergePrecision) -> None:
        self._base, self._adapter, self._settings, self._dtype, self._precision = base, adapter, settings, dtype, precision
        self._plain = {name.replace(".base_layer.", "."): name for name in base.names() if ".lora_" not in name}
        self._lora = set(adapter.names())
        self._changes: dict[str, Changes] = {}

    @property
    def targets(self) -> dict[str, MergedTensor]:
        """What the merge did to each targeted tensor that was read."""
        return {name: MergedTensor(elements=count.elements, changed=count.changed) for name, count in sorted(self._changes.items())}

    def names(self) -> list[str]:
        return list(self._plain)

    def is_target(self, name: str) -> bool:
        return f"{name.removesuffix('.weight')}.lora_A.default.weight" in self._lora

    def make(self, name: str) -> Whole:
        from qwen3_ops.native.checkpoint.merge import Merge

        base = self._base.make(self._plain[name])
        if not self.is_target(name):
            return base
        a, b = (self._adapter.make(lora).tensor() for lora in self._lora_names(name))
        merge = Merge(a, b, scale=self._settings.scale, precision=self._precision)
        self._changes[name] = merge.changes
        return base.cast(self._dtype).changed(self._dtype, merge)

    def parts(self, name: str) -> list[Part]:
        return self._base.parts(self._plain[name])

    def check(self) -> list[str]:
        """Names of targeted tensors that the merge left as they were.

        Raises:
            BadInput: those are all of them.
        """
        targets = self.targets
        same = [name for name, target in targets.items() if target.changed == 0]
        if len(same) == len(targets):
            raise BadInput("the merge changes nothing", value="B @ A rounds to zero in every layer", remedy="Was the adapter trained?")
        return same

    def _lora_names(self, name: str) -> list[str]:
        return [f"{name.removesuffix('.weight')}.lora_{half}.default.weight" for half in "AB"]
