"""What becomes of one batch of records: sequences for each output file, and its part of the ledger."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen3_ops.native.data.ledger import Ledger
from qwen3_ops.native.data.text_readers import Unreadable
from qwen3_ops.native.data.turns import IGNORE_INDEX
from qwen3_ops.native.data.writer import Block

IDS, MASK, LABELS = "packed_input_ids", "packed_attention_mask", "packed_labels"

Record = Mapping[str, Any]
Rows = Sequence[tuple[int, "Record | Unreadable"]]
"""Records with their row numbers."""


@dataclass(frozen=True, kw_only=True)
class First:
    """The first record of a batch that is written: its row, its tokens and which of them are trained."""

    row: int
    tokens: list[int]
    trained: list[bool]


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
        trained = [bool(place % 2) for place, run in enumerate(self._first_runs) for _ in range(run)]
        return First(row=self.rows[0], tokens=self._tokens[: self._lengths[0]], trained=trained)

    def block(self) -> Block:
        return Block(tokens=array("i", self._tokens), lengths=array("i", self._lengths), documents=self._documents)

    def instructions(self, ledger: Ledger, *, eos: int) -> Encoded:
        """Ids, mask and labels; what is written is told to ``ledger``."""
        ids = self.block()
        labels = self._labels(ids.tokens, eos=eos)
        ledger.write(self._lengths, trainable=sum(self._runs[1::2]) + len(self._ends))
        blocks = {
            name: Block(tokens=tokens, lengths=ids.lengths, documents=ids.documents)
            for name, tokens in ((IDS, ids.tokens), (MASK, array("i", [1]) * len(ids.tokens)), (LABELS, labels))
        }
        return Encoded(blocks=blocks, ledger=ledger, first=self.first() if self.rows else None)

    def _labels(self, tokens: array[int], *, eos: int) -> array[int]:
        labels = array("i", [IGNORE_INDEX]) * len(tokens)
        place = 0
        for prompt, answer in zip(self._runs[0::2], self._runs[1::2], strict=True):
            start, place = place + prompt, place + prompt + answer
            labels[start:place] = tokens[start:place]
        for end in self._ends:
            labels[end] = eos
        return labels
