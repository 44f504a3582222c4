"""Micro batches by sample number, so that a resumed run needs to know only what it consumed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.indexed import IndexedDataset
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
    """

    tokens: Tensor
    labels: Tensor
    records: tuple[int, ...]
    num_tokens: int

    def to(self, device: torch.device) -> MicroBatch:
        if device.type == "cpu":
            return self
        return MicroBatch(tokens=self.tokens.to(device), labels=self.labels.to(device), records=self.records, num_tokens=self.num_tokens)


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
        return MicroBatch(
            tokens=torch.from_numpy(batch["input_ids"]),
            labels=torch.from_numpy(shifted),
            records=records,
            num_tokens=sum(len(sample["input_ids"]) for sample in samples),
        )


@dataclass(frozen=True, kw_only=True)
class PretrainSamples:
    """Pre-training: sample n is the n-th piece of the shuffled, joined texts."""

    dataset: PretrainDataset
    defect: LossMaskDefect | None = None

    def micro_batch(self, first: int, size: int) -> MicroBatch:
        samples = [self.dataset[number] for number in range(first, first + size)]
        tokens = torch.from_numpy(np.stack([sample["input_ids"] for sample in samples]))
        labels = torch.from_numpy(np.stack([sample["labels"] for sample in samples]))
        if self.defect is not None:
            labels = self.defect.damage(labels, first=first)
        return MicroBatch(tokens=tokens, labels=labels, records=tuple(range(first, first + size)), num_tokens=tokens.numel())


Samples = InstructionSamples | PretrainSamples


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The samples of training and, where ``--split`` leaves some and ``--eval-iters`` is not 0, of the others."""

    train: Samples
    validation: Samples | None
    test: Samples | None


def open_splits(flags: FLAGS) -> Splits:
    """The samples of the three parts of ``--data-path``.

    Raises:
        BadInput: no such data, or the split leaves nothing to train on.
    """
    evaluations = flags.train_iters // flags.eval_interval + 1
    wanted = (flags.train_iters, evaluations * flags.eval_iters, flags.eval_iters)
    prefix = Path(flags.data_path[0])
    tokenizer = Tokenizer(flags.tokenizer_name_or_path)
    if flags.prompt_type is not None:
        tokenizer.use_template(flags.prompt_type)
    pad = tokenizer.pad_token_id
    parts: list[Samples | None] = []
    if flags.is_instruction_dataset:
        dataset = InstructionDataset(prefix, flags.seq_length)
        for documents, iters in zip(split_bounds(flags.split, len(dataset)), wanted, strict=True):
            parts.append(_instruction_part(flags, dataset, documents, iters * flags.batch_size, pad) if documents and iters else None)
    else:
        for documents, iters in zip(pretrain_split_bounds(flags.split, _num_documents(prefix)), wanted, strict=True):
            parts.append(_pretrain_part(flags, prefix, documents, iters * flags.batch_size, pad) if documents and iters else None)
    train, validation, test = parts
    if train is None:
        raise BadInput("the split leaves nothing to train on", value=flags.split, source="--split")
    return Splits(train=train, validation=validation, test=test)


def _instruction_part(flags: FLAGS, dataset: InstructionDataset, documents: range, samples: int, pad: int) -> InstructionSamples:
    return InstructionSamples(
        dataset=dataset,
        order=documents.start + shuffled_order(len(documents), samples, flags.seed),
        pad_token_id=pad,
        pad_to_multiple_of=flags.pad_to_multiple_of,
        fixed_length=None if flags.variable_seq_lengths else flags.seq_length,
    )


def _pretrain_part(flags: FLAGS, prefix: Path, documents: range, samples: int, pad: int) -> PretrainSamples:
    workers = flags.reproduce_loss_mask_defect
    return PretrainSamples(
        dataset=PretrainDataset(prefix, flags.seq_length, samples, flags.seed, documents=documents, pad_token_id=pad),
        defect=None if workers is None else LossMaskDefect(workers, seq_length=flags.seq_length),
    )


def _num_documents(prefix: Path) -> int:
    return len(IndexedDataset(prefix))
