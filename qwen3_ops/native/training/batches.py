"""Micro batches by sample number, so that a resumed run needs to know only what it consumed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen3_ops.errors import BadInput
from qwen3_ops.events import Events
from qwen3_ops.native.data.indexed import IndexedDataset
from qwen3_ops.native.data.indexed_format import with_suffix
from qwen3_ops.native.data.order_cache import OrderCache
from qwen3_ops.native.data.packed_view import PackedDataset, documents_by_eos, is_neat, mask_prefix, positions_in
from qwen3_ops.native.data.tokenizer import Tokenizer
from qwen3_ops.native.data.trainer_view import (
    InstructionDataset,
    PretrainDataset,
    collate,
    pretrain_split_bounds,
    shuffled_order,
    split_bounds,
)
from qwen3_ops.native.data.turns import IGNORE_INDEX
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.mask_defect import LossMaskDefect


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one forward pass sees.

    Attributes:
        tokens: int64 [b, s].
        labels: int64 [b, s], what position i shall predict; IGNORE_INDEX where nothing is learnt.
        records: which samples these are: record numbers of the data set (fine-tuning), or sample
            numbers of the joined texts (pre-training).
        num_tokens: without padding.
        num_labels: positions that are learnt.
        positions: int64 [b, s], each token's place in its document; None: in its row.
        documents: int64 [b, s], the document of each token, which sees no other; None: a row is one.
    """

    tokens: Tensor
    labels: Tensor
    records: tuple[int, ...]
    num_tokens: int
    num_labels: int
    positions: Tensor | None = None
    documents: Tensor | None = None

    def to(self, device: torch.device) -> MicroBatch:
        """On ``device``; the copy runs beside what the device is doing."""
        if device.type == "cpu":
            return self

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.pin_memory().to(device, non_blocking=True)

        parts = {name: moved(getattr(self, name)) for name in ("tokens", "labels", "positions", "documents")}
        return replace(self, **parts)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class InstructionSamples:
    """Fine-tuning: sample n is record ``order[n]``, padded with its micro batch on the right."""

    dataset: InstructionDataset
    order: NDArray[np.int64]
    pad_token_id: int
    pad_to_multiple_of: int
    fixed_length: int | None

    def micro_batch(self, first: int, size: int) -> MicroBatch:
        records = tuple(int(record) for record in self.order[first : first + size])
        samples = [self.dataset[record] for record in records]
        batch = collate(
            samples,
            pad_token_id=self.pad_token_id,
            pad_to_multiple_of=self.pad_to_multiple_of,
            fixed_length=self.fixed_length,
        )
        shifted = np.full_like(batch["labels"], IGNORE_INDEX)
        shifted[:, :-1] = batch["labels"][:, 1:]
        documents = batch.get("documents")
        if documents is not None:  # the end of a record does not tell how another one begins
            shifted[:, :-1][documents[:, 1:] != documents[:, :-1]] = IGNORE_INDEX
        return MicroBatch(
            tokens=torch.from_numpy(batch["input_ids"]),
            labels=torch.from_numpy(shifted),
            records=records,
            num_tokens=sum(len(sample["input_ids"]) for sample in samples) if documents is None else int((documents > 0).sum()),
            num_labels=int((shifted != IGNORE_INDEX).sum()),
            positions=None if documents is None else torch.from_numpy(positions_in(documents)),
            documents=None if documents is None else torch.from_numpy(documents),
        )


@dataclass(frozen=True, kw_only=True)
class PretrainSamples:
    """Pre-training: sample n is the n-th piece of the shuffled, joined texts.

    Attributes:
        eod: token that ends a text, for the next three.
        separate: tokens see their own text only.
        reset_positions: these count positions anew as well. Without ``separate`` Megatron resets only what learnt
            position embeddings would be asked for, and Qwen3 has none.
        mask_eod: nothing is learnt at it, that is, not how the next text begins.
    """

    dataset: PretrainDataset
    eod: int
    separate: bool = False
    reset_positions: bool = False
    mask_eod: bool = False
    defect: LossMaskDefect | None = None

    def micro_batch(self, first: int, size: int) -> MicroBatch:
        samples = [self.dataset[number] for number in range(first, first + size)]
        ids = np.stack([sample["input_ids"] for sample in samples])
        tokens, labels = torch.from_numpy(ids), torch.from_numpy(np.stack([sample["labels"] for sample in samples]))
        if self.mask_eod:
            labels = labels.masked_fill(tokens == self.eod, IGNORE_INDEX)
        if self.defect is not None:
            labels = self.defect.damage(labels, first=first)
        documents = documents_by_eos(ids, eos=self.eod) if self.separate else None
        return MicroBatch(
            tokens=tokens,
            labels=labels,
            records=tuple(range(first, first + size)),
            num_tokens=tokens.numel(),
            num_labels=int((labels != IGNORE_INDEX).sum()),
            positions=torch.from_numpy(positions_in(documents)) if documents is not None and self.reset_positions else None,
            documents=None if documents is None else torch.from_numpy(documents),
        )


Samples = InstructionSamples | PretrainSamples


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The samples of training and, where ``--split`` leaves some and ``--eval-iters`` is not 0, of the others."""

    train: Samples
    validation: Samples | None
    test: Samples | None


def open_splits(flags: FLAGS, events: Events) -> Splits:
    """The samples of the three parts of ``--data-path``.

    Raises:
        BadInput: no such data, or the split leaves nothing to train on.
    """
    evaluations = flags.iterations // flags.eval_interval + 1
    wanted = (flags.iterations, evaluations * flags.eval_iters, flags.eval_iters)
    prefix = Path(flags.data_path[0])
    tokenizer = Tokenizer(flags.tokenizer_name_or_path)
    if flags.prompt_type is not None:
        tokenizer.use_template(flags.prompt_type)
    parts: list[Samples | None] = []
    if flags.is_instruction_dataset:
        dataset = _instruction_dataset(flags, prefix, tokenizer, events)
        cache = OrderCache(flags.data_cache_path, dataset.ids_prefix)
        for documents, iters in zip(split_bounds(flags.split, len(dataset)), wanted, strict=True):
            samples = iters * flags.batch_size
            parts.append(_instruction_part(flags, dataset, documents, samples, tokenizer, cache) if documents and iters else None)
    else:
        cache = OrderCache(flags.data_cache_path, prefix)
        for documents, iters in zip(pretrain_split_bounds(flags.split, _num_documents(prefix)), wanted, strict=True):
            samples = iters * flags.batch_size
            parts.append(_pretrain_part(flags, prefix, documents, samples, tokenizer, cache) if documents and iters else None)
    train, validation, test = parts
    if train is None:
        raise BadInput("the split leaves nothing to train on", value=flags.split, source="--split")
    return Splits(train=train, validation=validation, test=test)


def _instruction_dataset(flags: FLAGS, prefix: Path, tokenizer: Tokenizer, events: Events) -> InstructionDataset:
    if flags.reset_position_ids:
        if not flags.neat_pack:
            events.warning(
                "--reset-position-ids without --neat-pack: a document ends with every end token; where the template closes prompts "
                "with it as well, conversations are torn. Pack and train with --neat-pack to keep them whole."
            )
        return PackedDataset(prefix, flags.seq_length, eos=None if flags.neat_pack else tokenizer.eos_token_id)
    if with_suffix(mask_prefix(prefix), ".idx").is_file() and is_neat(IndexedDataset(mask_prefix(prefix))):
        raise BadInput(
            "the data set was packed with --neat-pack",
            value=prefix,
            remedy="Give --reset-position-ids --neat-pack, or records see each other.",
        )
    return InstructionDataset(prefix, flags.seq_length)


def _instruction_part(
    flags: FLAGS, dataset: InstructionDataset, documents: range, samples: int, tokenizer: Tokenizer, cache: OrderCache
) -> InstructionSamples:
    multiple_of = flags.batch_size if flags.padded_samples else 1

    def order() -> NDArray[np.int64]:
        return documents.start + shuffled_order(len(documents), samples, flags.seed, multiple_of=multiple_of, shuffle=not flags.no_shuffle)

    return InstructionSamples(
        dataset=dataset,
        order=cache.get(
            "records" if flags.no_shuffle else "shuffled",
            order,
            documents=f"{documents.start}..{documents.stop}",
            multiple=multiple_of,
            samples=samples,
            seed=flags.seed,
        ),
        pad_token_id=tokenizer.pad_token_id,
        pad_to_multiple_of=flags.pad_to_multiple_of,
        fixed_length=None if flags.variable_seq_lengths else flags.seq_length,
    )


def _pretrain_part(flags: FLAGS, prefix: Path, documents: range, samples: int, tokenizer: Tokenizer, cache: OrderCache) -> PretrainSamples:
    workers = flags.reproduce_loss_mask_defect
    return PretrainSamples(
        dataset=PretrainDataset(
            prefix,
            flags.seq_length,
            samples,
            flags.seed,
            documents=documents,
            pad_token_id=tokenizer.pad_token_id,
            cache=cache,
        ),
        eod=tokenizer.eos_token_id,
        reset_positions=flags.reset_position_ids,
        separate=flags.reset_attention_mask,
        mask_eod=flags.eod_mask_loss,
        defect=None if workers is None else LossMaskDefect(workers, seq_length=flags.seq_length),
    )


def _num_documents(prefix: Path) -> int:
    return len(IndexedDataset(prefix))
