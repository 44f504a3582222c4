"""Which keys a rank's file holds, in which order, and which whole tensors each belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from qwen3_ops.layout import ParallelLayout, Rank
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.checkpoint.modules import (
    CUTS,
    EMBEDDING,
    FINAL_NORM,
    LINEAR_KINDS,
    OUTPUT,
    layer_modules,
    parse_layer_name,
)


class Entry(NamedTuple):
    """One key of a rank's file.

    Attributes:
        key: as in the file, where each model chunk counts its layers, and each rank its experts, from 0.
        tensors: global names of the whole tensors it is cut from: one; several experts' for a grouped
            weight; none for an ``_extra_state``, which is empty.
    """

    key: str
    tensors: tuple[str, ...]

    @property
    def grouped(self) -> bool:
        """Whether it is a flat buffer of several experts (``--moe-grouped-gemm``)."""
        return self.key.endswith((".weight1", ".weight2"))


@dataclass(frozen=True, kw_only=True)
class LoraLayers:
    """Which layers of a checkpoint carry LoRA.

    Attributes:
        kinds: as ``self_attention.linear_qkv``, in a layer's order.
        only: the base's weights are left out (``--lora-ckpt-filter``).
    """

    kinds: tuple[str, ...]
    only: bool

    @property
    def target_modules(self) -> list[str]:
        """As ``--lora-target-modules`` names them: ``linear_qkv``."""
        return list(dict.fromkeys(kind.rpartition(".")[2] for kind in self.kinds))

    @classmethod
    def found_in(cls, keys: Iterable[str]) -> LoraLayers | None:
        """Read off the keys of a rank or of a whole state; None where there is no LoRA."""
        names = list(keys)
        found = {parsed.kind for parsed in map(parse_layer_name, names) if parsed is not None and parsed.is_lora}
        if not found:
            return None
        return cls(kinds=tuple(kind for kind in LINEAR_KINDS if kind in found), only=all("lora" in name for name in names))


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Everything that decides a checkpoint's keys.

    Attributes:
        extra_states: empty entries are listed; ``convert_ckpt_v2.py`` writes none.
        grouped_gemm: a layer's experts lie in two flat buffers.
    """

    model: ModelSpec
    layout: ParallelLayout
    lora: LoraLayers | None = None
    grouped_gemm: bool = False
    extra_states: bool = True

    def chunks(self, rank: Rank) -> list[list[Entry]]:
        """The keys of each model chunk of ``rank``, in the file's order."""
        stage = self.layout.chunks_of_stage(rank.pp, num_layers=self.model.num_layers)
        last = rank.pp == self.layout.pipeline_model_parallel_size - 1
        return [
            [
                entry
                for entry in self._entries(layers, rank, first=rank.pp == 0 and number == 0, last=last and number == len(stage) - 1)
                if (self.lora is None or not self.lora.only or "lora" in entry.key) and (self.extra_states or entry.tensors)
            ]
            for number, layers in enumerate(stage)
        ]

    def tensor_names(self) -> list[str]:
        """Global names of all whole tensors, each once, in order."""
        whole = Schema(model=self.model, layout=ParallelLayout(), lora=self.lora)
        (chunk,) = whole.chunks(Rank(0, 0, 0))
        return [name for entry in chunk for name in entry.tensors]

    def _entries(self, layers: list[int | None], rank: Rank, *, first: bool, last: bool) -> Iterator[Entry]:
        if first:
            yield Entry(EMBEDDING, (EMBEDDING,))
        for number, layer in enumerate(layers):
            if layer is not None:
                yield from self._layer(f"decoder.layers.{number}.", f"decoder.layers.{layer}.", rank.ep)
        if last:
            yield Entry(FINAL_NORM, (FINAL_NORM,))
            if self.model.untie_embeddings_and_output_weights:
                yield Entry(OUTPUT, (OUTPUT,))
            elif not first:  # a chunk of its own needs its copy of the tied embedding
                yield Entry(OUTPUT, (EMBEDDING,))
            yield Entry("output_layer._extra_state", ())

    def _layer(self, here: str, whole: str, ep: int) -> Iterator[Entry]:
        local = (self.model.num_experts or 0) // self.layout.expert_model_parallel_size
        experts = range(ep * local, (ep + 1) * local)
        for module in layer_modules(self.model, experts=range(0) if self.grouped_gemm else experts):
            kind, key = module, f"{here}{module}"
            if ".local_experts." in module:
                expert, _, linear = module.removeprefix("mlp.experts.local_experts.").partition(".")
                kind, key = f"mlp.experts.{linear}", f"{here}mlp.experts.local_experts.{int(expert) - experts.start}.{linear}"
            for suffix in _suffixes(kind, adapted=self.lora is not None and kind in self.lora.kinds):
                empty = suffix.endswith("_extra_state")
                yield Entry(f"{key}.{suffix}", () if empty else (f"{whole}{module}.{suffix}",))
        if self.grouped_gemm:
            for number in (1, 2):
                names = (f"{whole}mlp.experts.local_experts.{expert}.linear_fc{number}.weight" for expert in experts)
                yield Entry(f"{here}mlp.experts.weight{number}", tuple(names))


def _suffixes(kind: str, *, adapted: bool) -> Iterator[str]:
    """Keys below one module; Megatron's parallel linear layers have an (empty) extra state each."""
    if kind not in LINEAR_KINDS:
        yield "weight"
        return
    base = "base_layer." if adapted else ""
    yield from (f"{base}weight", f"{base}_extra_state")
    if adapted:
        yield "lora_A.default.weight"
        if CUTS[kind] == "columns":  # then A is the parallel half, else B
            yield "lora_A.default._extra_state"
        yield "lora_B.default.weight"
        if CUTS[kind] != "columns":
            yield "lora_B.default._extra_state"
