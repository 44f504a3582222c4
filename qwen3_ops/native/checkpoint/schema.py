"""Which keys a rank's file holds, in which order, and which whole tensor each belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.checkpoint.sharding import EMBEDDING, FINAL_NORM, LAYER_MODULES, LORA_TARGETS, OUTPUT, parse_layer_name


class Entry(NamedTuple):
    """One key of a rank's file.

    Attributes:
        key: as in the file, where each pipeline stage counts its layers from 0.
        tensor: global name of the whole tensor; None for an ``_extra_state``, which is empty.
    """

    key: str
    tensor: str | None


@dataclass(frozen=True, kw_only=True)
class LoraLayers:
    """Which layers of a checkpoint carry LoRA.

    Attributes:
        targets: full module names, as ``self_attention.linear_qkv``, in a layer's order.
        only: the base's weights are left out (``--lora-ckpt-filter``).
    """

    targets: tuple[str, ...]
    only: bool

    @property
    def target_modules(self) -> list[str]:
        """As ``--lora-target-modules`` names them: ``linear_qkv``."""
        return [module.rpartition(".")[2] for module in self.targets]

    @classmethod
    def found_in(cls, keys: Iterable[str]) -> LoraLayers | None:
        """Read off the keys of a rank or of a whole state; None where there is no LoRA."""
        names = list(keys)
        parsed = [item for item in map(parse_layer_name, names) if item is not None]
        found = {module for _, module, part in parsed if part is not None and part.startswith("lora_")}
        if not found:
            return None
        only = all("lora" in name for name in names)
        return cls(targets=tuple(module for module in LORA_TARGETS.values() if module in found), only=only)


def stage_entries(model: ModelSpec, layout: ParallelLayout, pp: int, *, lora: LoraLayers | None = None) -> list[Entry]:
    """The keys of every rank of pipeline stage ``pp``, in the file's order."""
    entries = list(_all_entries(model, layout, pp, lora))
    return [entry for entry in entries if "lora" in entry.key] if lora is not None and lora.only else entries


def _all_entries(model: ModelSpec, layout: ParallelLayout, pp: int, lora: LoraLayers | None) -> Iterator[Entry]:
    if pp == 0:
        yield Entry(EMBEDDING, EMBEDDING)
    for number, layer in enumerate(layout.layers_of_stage(pp, num_layers=model.num_layers)):
        here, whole = f"decoder.layers.{number}.", f"decoder.layers.{layer}."
        for module in LAYER_MODULES:
            for suffix in _suffixes(module, adapted=lora is not None and module in lora.targets):
                empty = suffix.endswith("_extra_state")
                yield Entry(f"{here}{module}.{suffix}", None if empty else f"{whole}{module}.{suffix}")
    if pp == layout.pipeline_model_parallel_size - 1:
        yield Entry(FINAL_NORM, FINAL_NORM)
        if model.untie_embeddings_and_output_weights:
            yield Entry(OUTPUT, OUTPUT)
        elif pp > 0:  # a stage of its own needs its copy of the tied embedding
            yield Entry(OUTPUT, EMBEDDING)
        yield Entry("output_layer._extra_state", None)


def _suffixes(module: str, *, adapted: bool) -> Iterator[str]:
    """Keys below one module; Megatron's parallel linear layers have an (empty) extra state each."""
    if module not in LORA_TARGETS.values():
        yield "weight"
        return
    base = "base_layer." if adapted else ""
    yield from (f"{base}weight", f"{base}_extra_state")
    if adapted:
        yield "lora_A.default.weight"
        if LAYER_MODULES[module] == "columns":  # then A is the parallel half, else B
            yield "lora_A.default._extra_state"
        yield "lora_B.default.weight"
        if LAYER_MODULES[module] != "columns":
            yield "lora_B.default._extra_state"


def tensor_names(model: ModelSpec, *, lora: LoraLayers | None = None) -> list[str]:
    """Global names of all whole tensors, each once, in order."""
    return [entry.tensor for entry in stage_entries(model, ParallelLayout(), 0, lora=lora) if entry.tensor is not None]
