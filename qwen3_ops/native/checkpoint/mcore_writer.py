"""Megatron-mcore checkpoints, written as shards from whole tensors."""

from __future__ import annotations

import shutil
import uuid
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qwen3_ops.artifacts import writing
from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout, Rank
from qwen3_ops.model import Dtype, ModelSpec
from qwen3_ops.native.checkpoint.disk import require_space
from qwen3_ops.native.checkpoint.dtypes import ElementType, as_torch_dtype, element_type
from qwen3_ops.native.checkpoint.mcore_reader import VOCABULARY, stored_shape, tensor_ref
from qwen3_ops.native.checkpoint.megatron_args import build_args, pad_vocab_size
from qwen3_ops.native.checkpoint.modules import shape_of
from qwen3_ops.native.checkpoint.placed_file import Buffers, Sink
from qwen3_ops.native.checkpoint.rank_file import FILE_NAME
from qwen3_ops.native.checkpoint.rank_writer import RankFileWriter
from qwen3_ops.native.checkpoint.schema import LoraLayers, Schema
from qwen3_ops.native.checkpoint.sharding import Runs, check_layout, shard_runs
from qwen3_ops.native.checkpoint.state import Part, Source, check_names, check_shape
from qwen3_ops.native.checkpoint.tensor_spec import TensorSpec, as_bits
from qwen3_ops.native.checkpoint.tracker import iteration_folder, write_tracker
from qwen3_ops.native.checkpoint.transfer import Job, Recorder, transfer
from qwen3_ops.native.checkpoint.whole import Piece, Whole, join

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class StateSource:
    """A state dictionary as a source: whole tensors, of whatever device, in the dtype to write."""

    def __init__(self, state: Mapping[str, Tensor], dtype: Dtype | ElementType | torch.dtype) -> None:
        self._state, self._dtype = state, element_type(dtype)

    def names(self) -> list[str]:
        return list(self._state)

    def make(self, name: str) -> Whole:
        bits = as_bits(self._state[name].detach().to("cpu", as_torch_dtype(self._dtype)))
        return join(bits.shape, [Piece.of(Runs(0, ((0, len(bits)),)), bits, self._dtype)])

    def parts(self, name: str) -> list[Part]:
        return []


class Place(NamedTuple):
    """Where a part of the result lies."""

    rank: Rank
    chunk: int
    key: str


class CheckpointPlan(NamedTuple):
    """Everything about a checkpoint but its values.

    Attributes:
        ranks: of each rank the model chunks, key -> tensor, None for an empty entry.
        places: ref of each part -> where it lies.
    """

    ranks: dict[Rank, list[dict[str, TensorSpec | None]]]
    jobs: list[Job]
    places: dict[str, Place]


def plan_checkpoint(schema: Schema, *, iteration: int, padded_vocab_size: int, dtype: ElementType, lora_r: int | None) -> CheckpointPlan:
    """Which whole tensors each entry of each rank is cut from; replicated ones are cut once."""
    wide = schema.model.model_copy(update={"padded_vocab_size": padded_vocab_size})
    tp, folder = schema.layout.tensor_model_parallel_size, iteration_folder(Path(), iteration)
    ranks: dict[Rank, list[dict[str, TensorSpec | None]]] = {}
    places: dict[str, Place] = {}
    groups: dict[tuple[str, ...], list[Part]] = {}
    grouped: set[tuple[str, ...]] = set()
    for rank in schema.layout.ranks():
        chunks = schema.chunks(rank)
        file = str(folder / schema.layout.rank_folder(*rank) / FILE_NAME)
        ranks[rank] = [{} for _ in chunks]
        for number, entry in ((number, entry) for number, entries in enumerate(chunks) for entry in entries):
            if not entry.tensors:
                ranks[rank][number][entry.key] = None
                continue
            whole = shape_of(entry.tensors[0], wide, lora_r=lora_r)
            spec = TensorSpec(dtype, stored_shape(entry, whole, tp))
            ref = tensor_ref(file, number, entry.key, len(chunks))
            ranks[rank][number][entry.key] = spec
            places[ref] = Place(rank, number, entry.key)
            groups.setdefault(entry.tensors, []).append(Part(ref, spec, shard_runs(entry.tensors[0], whole, tp)[rank.tp]))
            if entry.grouped:
                grouped.add(entry.tensors)
    return CheckpointPlan(ranks, [Job(names, tuple(parts), names in grouped) for names, parts in groups.items()], places)


class Fitted:
    """A source whose tensors are checked, and padded to the rows of the vocabulary that are written."""

    def __init__(self, source: Source, *, model: ModelSpec, rows: int, lora_r: int | None) -> None:
        self._source, self._model, self._rows, self._lora_r = source, model, rows, lora_r

    def names(self) -> list[str]:
        return self._source.names()

    def parts(self, name: str) -> list[Part]:
        return self._source.parts(name)

    def make(self, name: str) -> Whole:
        whole = self._source.make(name)
        check_shape(name, whole.shape, shape_of(name, self._model, lora_r=self._lora_r), source="the state to write")
        return whole.padded(self._rows) if name in VOCABULARY else whole


def write_checkpoint(
    folder: Path,
    *,
    iteration: int,
    state: Mapping[str, Tensor],
    model: ModelSpec,
    layout: ParallelLayout,
    dtype: Dtype | ElementType | torch.dtype,
    extra_args: Mapping[str, object] | None = None,
    lora_only: bool = False,
    make_vocab_size_divisible_by: int = 1,
    beside: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Cut ``state`` into ``folder/iter_<iteration>`` and publish it: the iteration's folder by a rename, then the tracker.

    Args:
        state: whole tensors under mcore names with global layer numbers; it may be lazy, and is read by several threads.
        model: ``padded_vocab_size`` is the number of rows in ``state``; they are padded here as the layout needs.
        extra_args: further fields of the file's ``args`` (LoRA's hyper-parameters, samples consumed, ...).
        lora_only: leave the base's weights out (``--lora-ckpt-filter``).
        beside: called with the iteration's folder before it is published, to add files of its own (the trainer's state).

    Returns:
        The iteration's folder.

    Raises:
        BadInput: a layout that does not divide the model, or tensors missing, unknown or of a wrong shape.
    """
    lora = LoraLayers.found_in(state)
    if lora_only:
        if lora is None:
            raise BadInput("there is no LoRA to write", value=folder)
        lora = LoraLayers(kinds=lora.kinds, only=True)
    schema = Schema(model=model, layout=layout, lora=lora)
    names = schema.tensor_names()
    check_names((name for name in state if not lora_only or "lora" in name), names, source="the state to write")
    lora_r = next((state[name].shape[0] for name in names if ".lora_A." in name), None)
    extra = dict(extra_args or {})
    if lora is not None:
        if "lora_alpha" not in extra:
            raise ValueError("lora_alpha can not be read off the tensors: give it in extra_args")
        extra = {"lora_target_modules": lora.target_modules} | extra | {"lora_r": lora_r, "lora_ckpt_filter": lora_only}
    return write_source(
        folder,
        StateSource(state, dtype),
        schema=schema,
        iteration=iteration,
        dtype=element_type(dtype),
        extra_args=extra,
        lora_r=lora_r,
        make_vocab_size_divisible_by=make_vocab_size_divisible_by,
        beside=beside,
    )


def write_source(
    folder: Path,
    source: Source,
    *,
    schema: Schema,
    iteration: int,
    dtype: ElementType,
    extra_args: Mapping[str, object],
    lora_r: int | None = None,
    make_vocab_size_divisible_by: int = 1,
    recorder: Recorder | None = None,
    progress: Callable[[int], None] = lambda nbytes: None,
    beside: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """`write_checkpoint` from any source that makes tensors of ``dtype``; ``progress`` gets the bytes of each whole one."""
    model, layout = schema.model, schema.layout
    check_layout(model, layout)
    padded = pad_vocab_size(model.padded_vocab_size, make_vocab_size_divisible_by * layout.tensor_model_parallel_size)
    extra = {"make_vocab_size_divisible_by": make_vocab_size_divisible_by, **extra_args}
    args = build_args(
        model, layout, padded_vocab_size=padded, iteration=iteration, dtype=dtype, grouped_gemm=schema.grouped_gemm, extra=extra
    )
    plan = plan_checkpoint(schema, iteration=iteration, padded_vocab_size=padded, dtype=dtype, lora_r=lora_r)
    fitted = Fitted(source, model=model, rows=padded, lora_r=lora_r)
    final = iteration_folder(folder, iteration)
    staging = folder / f".{final.name}.{uuid.uuid4().hex[:8]}.tmp"
    nbytes = sum(spec.nbytes for chunks in plan.ranks.values() for chunk in chunks for spec in chunk.values() if spec)
    try:
        with writing(folder):
            require_space(folder, nbytes)
            _write_ranks(staging, plan, fitted, args=args, layout=layout, recorder=recorder, progress=progress)
            beside(staging)
            _replace(final, staging)
            write_tracker(folder, iteration)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return final


def _write_ranks(
    staging: Path,
    plan: CheckpointPlan,
    source: Source,
    *,
    args: Namespace,
    layout: ParallelLayout,
    recorder: Recorder | None,
    progress: Callable[[int], None],
) -> None:
    with ExitStack() as stack:
        writers: dict[Rank, RankFileWriter] = {}
        buffers = Buffers()
        for rank, chunks in plan.ranks.items():
            path = staging / layout.rank_folder(*rank) / FILE_NAME
            path.parent.mkdir(parents=True)
            writer = RankFileWriter(path, args=args, iteration=args.iteration, chunks=chunks, buffers=buffers)
            writers[rank] = stack.enter_context(closing(writer))

        def open_sink(part: Part) -> Sink:
            place = plan.places[part.ref]
            return writers[place.rank].open(place.chunk, place.key)

        transfer(plan.jobs, source, open_sink=open_sink, recorder=recorder, progress=progress)
        for writer in writers.values():
            writer.finish()


def _replace(final: Path, staging: Path) -> None:
    """Put ``staging`` at ``final``; an older folder there (a run that was repeated) gives way."""
    old = staging.with_suffix(".old")
    if final.exists():
        final.rename(old)
    try:
        staging.rename(final)
    except BaseException:  # Interrupted too, whose signal comes when it likes
        if old.exists():
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)
