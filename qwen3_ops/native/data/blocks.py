"""What becomes of one batch of records: sequences for each output file, and its part of the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3_ops.native.data.indexed import Block
from qwen3_ops.native.data.ledger import Ledger
from qwen3_ops.native.data.text_readers import Unreadable
from qwen3_ops.native.data.trainer_view import IGNORE_INDEX

IDS, MASK, LABELS = "packed_input_ids", "packed_attention_mask", "packed_labels"

Record = Mapping[str, Any]
Rows = Sequence[tuple[int, "Record | Unreadable"]]
"""Records with their row numbers."""


@dataclass(frozen=True, kw_only=True)
class First:
    """The first record of a batch that is written: its row, its tokens and which of them are trained."""

    row: int
    tokens: NDArray[np.int32]
    trained: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One batch by output file; of every output the same number of batches comes, in the same order."""

    blocks: Mapping[str, Block]
    ledger: Ledger
    first: First | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One record's tokens.

    Attributes:
        runs: lengths of its parts, by turns not trained and trained.
        eos_between: the first label of every prompt but the first is the end token.
        cut: not all of the record is there.
    """

    tokens: list[int]
    runs: Sequence[int]
    eos_between: bool = False
    cut: bool = False


class BlockBuilder:
    """Joins samples; arrays are made once a batch."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self._tokens: list[int] = []
        self._runs: list[int] = []
        self._first_runs: Sequence[int] = ()
        self._lengths: list[int] = []
        self._documents: list[int] = []
        self._ends: list[int] = []

    def add(self, row: int, sample: Sample) -> None:
        if not self.rows:
            self._first_runs = sample.runs
        if sample.eos_between:
            start = len(self._tokens)
            for place in range(2, len(sample.runs), 2):
                start += sample.runs[place - 2] + sample.runs[place - 1]
                self._ends += [start] if sample.runs[place] else []
        self.rows.append(row)
        self._tokens += sample.tokens
        self._runs += sample.runs
        self._lengths.append(len(sample.tokens))
        self._documents.append(1)

    def leave_out(self) -> None:
        """A record that is too long: a document without a sequence."""
        self._documents.append(0)

    def first(self) -> First:
        size = self._lengths[0]
        return First(row=self.rows[0], tokens=np.array(self._tokens[:size], dtype=np.int32), trained=_alternating(self._first_runs))

    def block(self) -> Block:
        return Block(
            tokens=np.array(self._tokens, dtype=np.int32),
            lengths=np.array(self._lengths, dtype=np.int32),
            documents=np.array(self._documents, dtype=np.int64),
        )

    def instructions(self, ledger: Ledger, *, eos: int) -> Encoded:
        """Ids, mask and labels; what is written is told to ``ledger``."""
        ids = self.block()
        trained = _alternating(self._runs)
        labels = np.where(trained, ids.tokens, np.int32(IGNORE_INDEX))
        labels[self._ends] = eos
        ledger.write(self._lengths, trainable=int(np.count_nonzero(labels != IGNORE_INDEX)))
        blocks = {
            name: Block(tokens=tokens, lengths=ids.lengths, documents=ids.documents)
            for name, tokens in ((IDS, ids.tokens), (MASK, np.ones_like(ids.tokens)), (LABELS, labels))
        }
        return Encoded(blocks=blocks, ledger=ledger, first=self.first() if self.rows else None)


def _alternating(runs: Sequence[int]) -> NDArray[np.bool_]:
    """False and True by turns, as often as each run says."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)
