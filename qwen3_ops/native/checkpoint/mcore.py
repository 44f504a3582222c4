"""Megatron-mcore checkpoints: opened as whole tensors, written as shards."""

from __future__ import annotations

import shutil
import uuid
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import torch
from torch import Tensor

from qwen3_ops.artifacts import writing
from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import Dtype, ModelSpec
from qwen3_ops.native.checkpoint.dtypes import TORCH_DTYPES, as_torch_dtype
from qwen3_ops.native.checkpoint.megatron_args import build_args, layout_of, model_of, pad_vocab_size
from qwen3_ops.native.checkpoint.rank_file import FILE_NAME, RankFile, RankFileWriter, TensorSpec
from qwen3_ops.native.checkpoint.schema import Entry, LoraLayers, stage_entries, tensor_names
from qwen3_ops.native.checkpoint.sharding import EMBEDDING, OUTPUT, check_layout, join, shape_of, shard_shape, split
from qwen3_ops.native.checkpoint.state import LazyState, check_names, check_shape
from qwen3_ops.native.checkpoint.tracker import TRACKER, iteration_folder, read_tracker, write_tracker

__all__ = ["McoreCheckpoint", "open_checkpoint", "read_tracker", "write_checkpoint"]

_VOCABULARY = (EMBEDDING, OUTPUT)


class McoreCheckpoint:
    """A checkpoint, opened and checked; its weights are mapped, not read.

    Attributes:
        folder: with the tracker.
        iteration: 0 for ``release``.
        args: of rank 0.
        layout: how it is cut.
        model: what ``args`` say; ``padded_vocab_size`` is the unpadded number of rows.
        dtype: of the weights.
        lora: which layers carry LoRA, or None.
        lora_r: rank of the LoRA tensors, or None.
    """

    def __init__(self, folder: Path, iteration: int, ranks: Mapping[tuple[int, int], RankFile], layout: ParallelLayout) -> None:
        self.folder, self.iteration, self.layout, self._ranks = folder, iteration, layout, ranks
        first = ranks[0, 0]
        self.args: Namespace = first.args
        self.dtype = _dtype_of(first)
        self.model = model_of(self.args, dtype=self.dtype, source=first.path)
        self.padded_vocab_size: int = self.args.padded_vocab_size
        self.lora = LoraLayers.found_in(first.model)
        self.lora_r = next((tensor.shape[0] for key, tensor in first.model.items() if tensor and ".lora_A." in key), None)
        check_layout(self.model, layout)
        self._keys: dict[str, tuple[int, str]] = {}
        for pp in range(layout.pipeline_model_parallel_size):
            entries = stage_entries(self.model, layout, pp, lora=self.lora)
            for entry in entries:
                if entry.tensor is not None:
                    self._keys.setdefault(entry.tensor, (pp, entry.key))
            for tp in range(layout.tensor_model_parallel_size):
                self._check_rank(ranks[tp, pp], entries)

    @property
    def has_base(self) -> bool:
        """Whether the base's weights are there, not LoRA alone."""
        return self.lora is None or not self.lora.only

    def state(self, *, padded: bool = False) -> LazyState:
        """Whole tensors by global name, each joined when it is asked for; ``padded``: with the padding rows of the vocabulary."""

        def load(name: str) -> Tensor:
            pp, key = self._keys[name]
            tensor = join(name, [self._ranks[tp, pp].tensor(key) for tp in range(self.layout.tensor_model_parallel_size)])
            return tensor[: self.model.padded_vocab_size] if name in _VOCABULARY and not padded else tensor

        return LazyState(self._keys, load)

    def full_state_dict(self) -> dict[str, Tensor]:
        """Every whole tensor in memory, under mcore names with global layer numbers."""
        return dict(self.state())

    def _check_rank(self, rank: RankFile, entries: list[Entry]) -> None:
        whole = {entry.key: entry.tensor for entry in entries if entry.tensor is not None}
        if rank.iteration != self._ranks[0, 0].iteration:
            both = f"{rank.iteration} and {self._ranks[0, 0].iteration}"
            raise BadInput("the ranks are of different iterations", value=both, source=rank.path, remedy="Copy one whole checkpoint.")
        check_names((key for key, tensor in rank.model.items() if tensor is not None), whole, source=rank.path)
        wide = self.model.model_copy(update={"padded_vocab_size": self.padded_vocab_size})
        for key, name in whole.items():
            stored = rank.model[key]
            expected = shard_shape(name, shape_of(name, wide, lora_r=self.lora_r), self.layout.tensor_model_parallel_size)
            check_shape(key, stored.shape if stored else (), expected, source=rank.path)


def open_checkpoint(folder: Path, iteration: int | None = None) -> McoreCheckpoint:
    """Open a checkpoint, by default its newest iteration.

    Raises:
        BadInput: no tracker, a rank missing, truncated or refused, or tensors that do not fit its own args.
    """
    if iteration is None:
        iteration = read_tracker(folder)
    if iteration is None:
        what = "there is no checkpoint" if folder.is_dir() else "the checkpoint's folder is not there"
        raise BadInput(
            what, value=folder / TRACKER if folder.is_dir() else folder, remedy="Give the folder that holds the tracker and iter_*."
        )
    ranks_folder = iteration_folder(folder, iteration)
    if not ranks_folder.is_dir():
        raise BadInput("the checkpoint's iteration is not there", value=ranks_folder, source=folder / TRACKER)
    candidates = [ranks_folder / name / FILE_NAME for name in ("mp_rank_00", "mp_rank_00_000", "mp_rank_00_000_000")]
    first = RankFile(next((path for path in candidates if path.exists()), candidates[0]))
    layout = layout_of(first.args, source=first.path)
    ranks = {(tp, pp): RankFile(ranks_folder / layout.rank_folder(tp, pp) / FILE_NAME) for tp, pp in layout.ranks()}
    return McoreCheckpoint(folder, iteration, ranks, layout)


def _dtype_of(rank: RankFile) -> torch.dtype:
    """The one dtype of a rank's tensors; where they differ, what args say."""
    found = {tensor.dtype for tensor in rank.model.values() if tensor is not None}
    dtype: object = found.pop() if len(found) == 1 else getattr(rank.args, "params_dtype", None)
    for known in TORCH_DTYPES.values():
        if dtype == known:
            return known
    raise BadInput("the checkpoint's dtype is not bf16, fp16 or fp32", value=dtype, source=rank.path)


def write_checkpoint(
    folder: Path,
    *,
    iteration: int,
    state: Mapping[str, Tensor],
    model: ModelSpec,
    layout: ParallelLayout,
    dtype: Dtype | torch.dtype,
    extra_args: Mapping[str, object] | None = None,
    lora_only: bool = False,
    make_vocab_size_divisible_by: int = 1,
    progress: Callable[[int], None] = lambda nbytes: None,
    beside: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Cut ``state`` into ``folder/iter_<iteration>`` and publish it: the iteration's folder by a rename, then the tracker.

    Args:
        state: whole tensors under mcore names with global layer numbers; read one at a time, so it may be lazy.
        model: ``padded_vocab_size`` is the number of rows in ``state``; they are padded here as the layout needs.
        extra_args: further fields of the file's ``args`` (LoRA's hyper-parameters, samples consumed, ...).
        lora_only: leave the base's weights out (``--lora-ckpt-filter``).
        progress: called with the bytes of each whole tensor written.
        beside: called with the iteration's folder before it is published, to add files of its own (the trainer's state).

    Returns:
        The iteration's folder.

    Raises:
        BadInput: a layout that does not divide the model, or tensors missing, unknown or of a wrong shape.
    """
    check_layout(model, layout)
    lora = LoraLayers.found_in(state)
    if lora_only:
        if lora is None:
            raise BadInput("there is no LoRA to write", value=folder)
        lora = LoraLayers(targets=lora.targets, only=True)
    names = tensor_names(model, lora=lora)
    check_names((name for name in state if not lora_only or "lora" in name), names, source="the state to write")
    lora_r = next((state[name].shape[0] for name in names if ".lora_A." in name), None)
    padded = pad_vocab_size(model.padded_vocab_size, make_vocab_size_divisible_by * layout.tensor_model_parallel_size)
    extra = {"make_vocab_size_divisible_by": make_vocab_size_divisible_by, **(extra_args or {})}
    if lora is not None:
        if "lora_alpha" not in extra:
            raise ValueError("lora_alpha can not be read off the tensors: give it in extra_args")
        extra = {"lora_target_modules": lora.target_modules} | extra | {"lora_r": lora_r, "lora_ckpt_filter": lora_only}
    args = build_args(model, layout, padded_vocab_size=padded, iteration=iteration, dtype=as_torch_dtype(dtype), extra=extra)
    final = iteration_folder(folder, iteration)
    staging = folder / f".{final.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with writing(folder):
            for pp in range(layout.pipeline_model_parallel_size):
                _write_stage(staging, pp, state=state, model=model, layout=layout, args=args, lora=lora, lora_r=lora_r, progress=progress)
            beside(staging)
            _replace(final, staging)
            write_tracker(folder, iteration)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return final


def _write_stage(
    staging: Path,
    pp: int,
    *,
    state: Mapping[str, Tensor],
    model: ModelSpec,
    layout: ParallelLayout,
    args: Namespace,
    lora: LoraLayers | None,
    lora_r: int | None,
    progress: Callable[[int], None],
) -> None:
    """The files of one pipeline stage, all its tensor ranks together: each whole tensor is made once."""
    parts = layout.tensor_model_parallel_size
    entries = stage_entries(model, layout, pp, lora=lora)
    wide = model.model_copy(update={"padded_vocab_size": args.padded_vocab_size})
    specs = {
        key: None if name is None else TensorSpec(args.params_dtype, shard_shape(name, shape_of(name, wide, lora_r=lora_r), parts))
        for key, name in entries
    }
    with ExitStack() as stack:
        writers = []
        for tp in range(parts):
            path = staging / layout.rank_folder(tp, pp) / FILE_NAME
            path.parent.mkdir(parents=True)
            writers.append(stack.enter_context(closing(RankFileWriter(path, args=args, iteration=args.iteration, model=specs))))
        for key, name in entries:
            if name is None:
                continue
            tensor = state[name].detach()
            check_shape(name, tuple(tensor.shape), shape_of(name, model, lora_r=lora_r), source="the state to write")
            tensor = tensor.to("cpu", args.params_dtype)
            if name in _VOCABULARY:
                tensor = _pad_rows(tensor, args.padded_vocab_size)
            for writer, shard in zip(writers, split(name, tensor, parts), strict=True):
                writer.write(key, shard)
            progress(tensor.numel() * tensor.element_size())
        for writer in writers:
            writer.finish()


def _pad_rows(tensor: Tensor, rows: int) -> Tensor:
    """``[V, H]`` -> ``[rows, H]``; the last row is repeated, as MindSpeed does."""
    missing = rows - tensor.shape[0]
    return torch.cat([tensor, tensor[-1:].expand(missing, -1)]) if missing else tensor


def _replace(final: Path, staging: Path) -> None:
    """Put ``staging`` at ``final``; an older folder there (a run that was repeated) gives way."""
    old = staging.with_suffix(".old")
    if final.exists():
        final.rename(old)
    staging.rename(final)
    shutil.rmtree(old, ignore_errors=True)
