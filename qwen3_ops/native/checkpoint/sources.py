"""Opening what a conversion reads: a Hugging Face folder, or a checkpoint with or without LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.checkpoint.certificate import Merge, Side, TensorRecord
from qwen3_ops.native.checkpoint.dtypes import ElementType
from qwen3_ops.native.checkpoint.flags import MergePrecision
from qwen3_ops.native.checkpoint.hf import HfWeights
from qwen3_ops.native.checkpoint.lora import LoraSettings, MergedSource
from qwen3_ops.native.checkpoint.mcore_reader import McoreCheckpoint
from qwen3_ops.native.checkpoint.state import Part, Source, refuse_not_finite
from qwen3_ops.native.checkpoint.whole import Whole


class Prepared:
    """A source whose tensors are free of NaN and infinity and come in the dtype that is written."""

    def __init__(self, source: Source, *, dtype: ElementType, folder: Path) -> None:
        self._source, self._dtype, self._folder = source, dtype, folder

    def names(self) -> list[str]:
        return self._source.names()

    def parts(self, name: str) -> list[Part]:
        return self._source.parts(name)

    def make(self, name: str) -> Whole:
        made = self._source.make(name)
        whole = made.checked(partial(refuse_not_finite, name, made.dtype, source=self._folder))
        if whole.dtype == self._dtype:
            return whole
        too_large = f"Values are too large for {self._dtype.name}: choose another --params-dtype."
        return whole.cast(self._dtype).checked(partial(refuse_not_finite, name, self._dtype, source=self._folder, remedy=too_large))


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A whole model, whatever it came from.

    Attributes:
        source: makes its tensors in ``dtype``.
        model: ``padded_vocab_size`` is the number of rows that ``source`` makes.
        layout: of the checkpoint; None for a Hugging Face folder.
        iteration: of the result; of a Hugging Face folder's, 1.
        source_iteration: of the checkpoint in ``folder``: an adapter that brings its own base has one of its own.
        args: of the checkpoint, carried over to the next one.
        found: dtype of the weights as they lie there, None where they differ.
        merging: the merge that ``source`` does, or None.
    """

    source: Source
    folder: Path
    extra: tuple[Path, ...] = ()
    model: ModelSpec
    dtype: ElementType
    found: ElementType | None
    iteration: int = 1
    source_iteration: int | None = None
    layout: ParallelLayout | None = None
    grouped_gemm: bool = False
    args: Mapping[str, Any] = field(default_factory=dict)
    merging: MergedSource | None = None
    settings: LoraSettings | None = None
    adapter: McoreCheckpoint | None = None
    adapter_extra: tuple[Path, ...] = ()
    precision: MergePrecision = "default"

    def side(self, tensors: dict[str, TensorRecord]) -> Side:
        """What a certificate says of it."""
        return Side(
            type="hf" if self.layout is None else "mg",
            path=str(self.folder.absolute()),
            extra=tuple(str(item.absolute()) for item in self.extra),
            iteration=self.source_iteration,
            model=self.model,
            layout=self.layout,
            grouped_gemm=self.grouped_gemm,
            dtype=None if self.found is None else self.found.name,
            tensors=tensors,
        )

    def merge(self) -> Merge | None:
        """What a certificate says of the merge, once every tensor was made."""
        if self.merging is None or self.settings is None or self.adapter is None:
            return None
        return Merge(
            adapter=str(self.adapter.folder.absolute()),
            adapter_extra=tuple(str(item.absolute()) for item in self.adapter_extra),
            adapter_iteration=self.adapter.iteration,
            r=self.settings.r,
            alpha=self.settings.alpha,
            target_modules=self.settings.target_modules,
            precision=self.precision,
            targets=dict(sorted(self.merging.targets.items())),
        )


def opened_hf(weights: HfWeights, *, dtype: ElementType) -> Opened:
    source = Prepared(weights, dtype=dtype, folder=weights.folder)
    return Opened(source=source, folder=weights.folder, model=weights.model, dtype=dtype, found=weights.dtype)


def opened_mg(
    checkpoint: McoreCheckpoint,
    *,
    dtype: ElementType,
    extra: tuple[Path, ...] = (),
    adapter: McoreCheckpoint | None = None,
    adapter_extra: tuple[Path, ...] = (),
    settings: LoraSettings | None = None,
    precision: MergePrecision = "default",
) -> Opened:
    """A checkpoint, merged with ``adapter`` where there is one; an adapter with base weights brings its own base."""
    base, merging = checkpoint, None
    source: Source = base
    if adapter is not None and settings is not None:
        base, extra = (adapter, adapter_extra) if adapter.has_base else (checkpoint, extra)
        lora = Prepared(adapter, dtype=dtype, folder=adapter.folder)
        source = merging = MergedSource(base, lora, settings=settings, dtype=dtype, precision=precision)
    return Opened(
        source=Prepared(source, dtype=dtype, folder=base.folder),
        folder=base.folder,
        extra=extra,
        model=base.model.model_copy(update={"padded_vocab_size": base.padded_vocab_size}),
        dtype=dtype,
        found=base.dtype,
        iteration=checkpoint.iteration or 1,  # the next one of a release is the first
        source_iteration=base.iteration,
        layout=base.layout,
        grouped_gemm=base.grouped_gemm,
        args={**vars(checkpoint.args), "lora_target_modules": [], "lora_ckpt_filter": False},
        merging=merging,
        settings=settings,
        adapter=adapter,
        adapter_extra=adapter_extra,
        precision=precision,
    )
