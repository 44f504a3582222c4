"""Megatron-mcore checkpoints, opened as whole tensors."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout, Rank
from qwen3_ops.native.checkpoint.dtypes import UNQUANTIZED, WEIGHTS, ElementType
from qwen3_ops.native.checkpoint.megatron_args import layout_of, model_of
from qwen3_ops.native.checkpoint.modules import EMBEDDING, OUTPUT, shape_of
from qwen3_ops.native.checkpoint.rank_file import FILE_NAME, RankFile
from qwen3_ops.native.checkpoint.schema import Entry, LoraLayers, Schema
from qwen3_ops.native.checkpoint.sharding import Runs, check_layout, shard_runs
from qwen3_ops.native.checkpoint.state import LazyState, Part, check_names, check_shape
from qwen3_ops.native.checkpoint.tensor_spec import Bits, TensorSpec
from qwen3_ops.native.checkpoint.tracker import TRACKER, iteration_folder, read_tracker
from qwen3_ops.native.checkpoint.whole import Piece, Whole, join

if TYPE_CHECKING:
    from torch import Tensor

VOCABULARY = (EMBEDDING, OUTPUT)


class _Place(NamedTuple):
    """Where a whole tensor lies in the files of one pipeline and expert rank.

    Attributes:
        slot: its number among the experts of a grouped weight, of ``slots``.
    """

    pp: int
    ep: int
    chunk: int
    key: str
    slot: int | None
    slots: int


class McoreCheckpoint:
    """A checkpoint, opened and checked; its weights are not read yet.

    Attributes:
        folder: with the tracker.
        iteration: 0 for ``release``.
        args: of rank 0.
        layout: how it is cut.
        model: what ``args`` say; ``padded_vocab_size`` is the unpadded number of rows.
        padded_vocab_size: rows as stored.
        dtype: of the weights.
        lora: which layers carry LoRA, or None.
        lora_r: rank of the LoRA tensors, or None.
        grouped_gemm: each layer's experts lie in two flat buffers.
    """

    def __init__(self, folder: Path, iteration: int, ranks: Mapping[Rank, RankFile], layout: ParallelLayout) -> None:
        self.folder, self.iteration, self.layout, self._ranks = folder, iteration, layout, ranks
        first = ranks[Rank(0, 0, 0)]
        # Of every stage: the first one may hold nothing but no-op layers.
        tensors = {key: tensor for rank in ranks.values() for chunk in rank.chunks for key, tensor in chunk.items()}
        self.args: Namespace = first.args
        self.dtype = _dtype_of(first)
        self.padded_vocab_size = _rows(first, layout)
        self.model = model_of(self.args, layout, dtype=self.dtype, padded_vocab_size=self.padded_vocab_size, source=first.path)
        self.lora = LoraLayers.found_in(tensors)
        self.lora_r = next((tensor.shape[0] for key, tensor in tensors.items() if tensor and ".lora_A." in key), None)
        self.grouped_gemm = any(key.endswith(".mlp.experts.weight1") for key in tensors)
        check_layout(self.model, layout)
        schema = Schema(model=self.model, layout=layout, lora=self.lora, grouped_gemm=self.grouped_gemm)
        self._wide = self.model.model_copy(update={"padded_vocab_size": self.padded_vocab_size})
        self._places: dict[str, list[_Place]] = {}
        for rank in layout.ranks():
            chunks = schema.chunks(rank)
            self._check_rank(ranks[rank], chunks)
            if rank.tp == 0:
                self._note_places(rank, chunks)

    @property
    def has_base(self) -> bool:
        """Whether the base's weights are there, not LoRA alone."""
        return self.lora is None or not self.lora.only

    def names(self) -> list[str]:
        return list(self._places)

    def make(self, name: str) -> Whole:
        """The whole tensor with the padding rows of the vocabulary, joined from its shards.

        Raises:
            BadInput: a shard is damaged, or the last stage's copy of a tied embedding differs; some of it while rows are read.
        """
        first, *others = self._places[name]
        whole = self._join(name, first)
        for other in others if name == EMBEDDING else ():
            if other.key != first.key:
                whole = whole.checked(self._same_as(self._join(name, other), source=self._ranks[Rank(0, other.pp, 0)].path))
        return whole

    def parts(self, name: str) -> list[Part]:
        place = self._places[name][0]
        return [self._part(name, place, tp, runs) for tp, runs in enumerate(self._runs(name))]

    def state(self, *, padded: bool = False) -> LazyState:
        """Whole tensors by global name, each joined when it is asked for; ``padded``: with the padding rows of the vocabulary."""

        def load(name: str) -> Tensor:
            tensor = self.make(name).tensor()
            return tensor[: self.model.padded_vocab_size] if name in VOCABULARY and not padded else tensor

        return LazyState(self._places, load)

    def full_state_dict(self) -> dict[str, Tensor]:
        """Every whole tensor in memory, under mcore names with global layer numbers."""
        return dict(self.state())

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor, padding rows included."""
        return shape_of(name, self._wide, lora_r=self.lora_r)

    def _runs(self, name: str) -> list[Runs]:
        """Of the tensor ranks that are read: the first alone where all hold the same, as Megatron's converter does."""
        runs = shard_runs(name, self.shape(name), self.layout.tensor_model_parallel_size)
        return runs[:1] if len({item.spans for item in runs}) == 1 else runs

    def _join(self, name: str, place: _Place) -> Whole:
        return join(self.shape(name), [self._shard(name, place, tp, runs) for tp, runs in enumerate(self._runs(name))])

    def _shard(self, name: str, place: _Place, tp: int, runs: Runs) -> Piece:
        rank = self._ranks[Rank(tp, place.pp, place.ep)]
        dtype = self._part(name, place, tp, runs).spec.dtype
        if place.slot is None:
            return Piece(runs, dtype, rank.reader(place.chunk, place.key))
        rows, columns = runs.shape(self.shape(name))
        return Piece.of(runs, rank.tensor(place.chunk, place.key).reshape(place.slots, columns, rows)[place.slot].T, dtype)

    @staticmethod
    def _same_as(copy: Whole, *, source: Path) -> Callable[[int, Bits], None]:
        def check(begin: int, rows: Bits) -> None:
            if not np.array_equal(rows, copy.rows(begin, begin + len(rows)).original):
                raise BadInput("the tied output layer differs from the embedding", source=source, remedy="The checkpoint is inconsistent.")

        return check

    def _part(self, name: str, place: _Place, tp: int, runs: Runs) -> Part:
        rank = self._ranks[Rank(tp, place.pp, place.ep)]
        stored = rank.chunks[place.chunk][place.key]
        file = f"{rank.path.parent.parent.name}/{rank.path.parent.name}/{rank.path.name}"
        spec = TensorSpec(self.dtype if stored is None else stored.dtype, () if stored is None else stored.shape)
        return Part(tensor_ref(file, place.chunk, place.key, len(rank.chunks)), spec, runs, place.slot)

    def _check_rank(self, rank: RankFile, chunks: Sequence[Sequence[Entry]]) -> None:
        if rank.iteration != self._ranks[Rank(0, 0, 0)].iteration:
            both = f"{rank.iteration} and {self._ranks[Rank(0, 0, 0)].iteration}"
            raise BadInput("the ranks are of different iterations", value=both, source=rank.path, remedy="Copy one whole checkpoint.")
        if len(rank.chunks) != len(chunks):
            value = f"{len(rank.chunks)} model chunks, {len(chunks)} by its args"
            raise BadInput("the rank's file does not fit its args", value=value, source=rank.path)
        for chunk, entries in zip(rank.chunks, chunks, strict=True):
            whole = {entry.key: entry for entry in entries if entry.tensors}
            check_names((key for key, tensor in chunk.items() if tensor is not None), whole, source=rank.path)
            for key, entry in whole.items():
                stored = chunk[key]
                expected = stored_shape(entry, self.shape(entry.tensors[0]), self.layout.tensor_model_parallel_size)
                check_shape(key, stored.shape if stored else (), expected, source=rank.path)
                if stored is not None and stored.dtype not in WEIGHTS.values():
                    value = f"{key} is {stored.dtype.name}"
                    raise BadInput("a weight's dtype is not supported", value=value, source=rank.path, remedy=UNQUANTIZED)

    def _note_places(self, rank: Rank, chunks: Sequence[Sequence[Entry]]) -> None:
        for number, entries in enumerate(chunks):
            for entry in entries:
                for slot, name in enumerate(entry.tensors):
                    place = _Place(rank.pp, rank.ep, number, entry.key, slot if entry.grouped else None, len(entry.tensors))
                    self._places.setdefault(name, []).append(place)


def tensor_ref(file: str, chunk: int, key: str, chunks: int) -> str:
    """``iter_0000001/mp_rank_00/model_optim_rng.pt:KEY``; with virtual stages ``...:model1/KEY``."""
    return f"{file}:{key}" if chunks == 1 else f"{file}:model{chunk}/{key}"


def stored_shape(entry: Entry, whole: tuple[int, ...], tp: int) -> tuple[int, ...]:
    """Shape in a rank's file of ``entry``, whose (first) whole tensor has shape ``whole``."""
    shape = shard_runs(entry.tensors[0], whole, tp)[0].shape(whole)
    if not entry.grouped:
        return shape
    rows, columns = shape  # of one expert; a flat buffer of all is kept under the shape of one wide matrix
    return (columns, rows * len(entry.tensors)) if entry.key.endswith("1") else (columns * len(entry.tensors), rows)


def open_checkpoint(folder: Path, iteration: int | None = None, *, extra: Sequence[Path] = ()) -> McoreCheckpoint:
    """Open a checkpoint, by default its newest iteration.

    Args:
        extra: further folders that hold part of the ranks (training on several nodes without shared storage).

    Raises:
        BadInput: no tracker, a rank missing, truncated or refused, or tensors that do not fit its own args.
    """
    folders = [folder, *extra]
    if iteration is None:
        iteration = _newest(folders)
    ranks_folders = [iteration_folder(item, iteration) for item in folders]
    if not any(item.is_dir() for item in ranks_folders):
        raise BadInput("the checkpoint's iteration is not there", value=ranks_folders[0], source=folder / TRACKER)
    first = RankFile(_find(ranks_folders, ("mp_rank_00", "mp_rank_00_000", "mp_rank_00_000_000")))
    layout = layout_of(first.args, source=first.path)
    ranks = {rank: RankFile(_find(ranks_folders, (layout.rank_folder(*rank),))) for rank in layout.ranks()}
    return McoreCheckpoint(folder, iteration, ranks, layout)


def _newest(folders: Sequence[Path]) -> int:
    """The iteration that the folders' trackers name; not every node need have one."""
    found = {folder: iteration for folder in folders if (iteration := read_tracker(folder)) is not None}
    if not found:
        folder = folders[0]
        what = "there is no checkpoint" if folder.is_dir() else "the checkpoint's folder is not there"
        raise BadInput(
            what, value=folder / TRACKER if folder.is_dir() else folder, remedy="Give the folder that holds the tracker and iter_*."
        )
    if len(set(found.values())) > 1:
        said = ", ".join(f"{iteration} in {folder}" for folder, iteration in found.items())
        raise BadInput("the folders hold different iterations", value=said, remedy="Copy the trackers and ranks of one iteration.")
    return next(iter(found.values()))


def _find(folders: Sequence[Path], names: Sequence[str]) -> Path:
    """The rank's file, in whichever folder it is; where none has it, where it should be."""
    candidates = [folder / name / FILE_NAME for name in names for folder in folders]
    return next((path for path in candidates if path.exists()), candidates[0])


def _rows(rank: RankFile, layout: ParallelLayout) -> int:
    """Rows of the embedding as stored; of LoRA alone, what args say."""
    stored = rank.chunks[0].get(EMBEDDING)
    if stored is not None and len(stored.shape) == 2:
        return stored.shape[0] * layout.tensor_model_parallel_size
    rows = getattr(rank.args, "padded_vocab_size", None)
    if not isinstance(rows, int):
        raise BadInput("the checkpoint holds no embedding and does not tell its rows", source=rank.path)
    return rows


def _dtype_of(rank: RankFile) -> ElementType:
    """The one dtype of a rank's tensors; where they differ, what args say."""
    found = {tensor.dtype for chunk in rank.chunks for tensor in chunk.values() if tensor is not None}
    dtype: object = found.pop() if len(found) == 1 else getattr(rank.args, "params_dtype", None)
    for known in WEIGHTS.values():
        if dtype == known:
            return known
    raise BadInput("the checkpoint's dtype is not bf16, fp16 or fp32", value=dtype, source=rank.path)
