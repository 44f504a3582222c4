"""What becomes of one batch of records: sequences for each output file, and its part of the ledger."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from qwen3_ops.native.data.ledger import Ledger
from qwen3_ops.native.data.text_readers import Unreadable
from qwen3_ops.native.data.tokenizer import INT32, Ids
from qwen3_ops.native.data.turns import IGNORE_INDEX
from qwen3_ops.native.data.writer import Block

IDS, MASK, LABELS = "packed_input_ids", "packed_attention_mask", "packed_labels"

_IGNORED: Ids = array("i", [IGNORE_INDEX]).tobytes()

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


class Sample(NamedTuple):
    """One record's tokens.

    Attributes:
        parts: its runs of tokens, by turns not trained and trained; an even number, empty ones included.
        cut: not all of the record is there.
    """

    parts: list[Ids]
    cut: bool = False

    @property
    def length(self) -> int:
        """Tokens."""
        return sum(map(len, self.parts)) // INT32


class BlockBuilder:
    """Joins samples; nothing is done token by token.

    Args:
        eos_between: the label of the first token of every prompt but a record's first; None: not trained either.
    """

    def __init__(self, eos_between: Ids | None = None) -> None:
        self.rows: list[int] = []
        self._eos_between = eos_between
        self._parts: list[Ids] = []
        self._labels: list[Ids] = []
        self._first_parts: list[Ids] = []
        self._lengths: list[int] = []
        self._documents: list[int] = []
        self._trainable = 0

    def add(self, row: int, sample: Sample) -> None:
        if not self.rows:
            self._first_parts = sample.parts
        self.rows.append(row)
        self._parts += sample.parts
        self._lengths.append(sample.length)
        self._documents.append(1)

    def add_labelled(self, row: int, sample: Sample) -> None:
        """As :meth:`add`, with labels."""
        self.add(row, sample)
        for place, part in enumerate(sample.parts):
            if place % 2:
                self._labels.append(part)
                self._trainable += len(part)
            elif self._eos_between is not None and place and part:
                self._labels.append(self._eos_between + _IGNORED * (len(part) // INT32 - 1))
                self._trainable += INT32
            else:
                self._labels.append(_IGNORED * (len(part) // INT32))

    def leave_out(self) -> None:
        """A record that is too long: a document without a sequence."""
        self._documents.append(0)

    def first(self) -> First | None:
        if not self.rows:
            return None
        trained = [bool(place % 2) for place, part in enumerate(self._first_parts) for _ in range(len(part) // INT32)]
        return First(row=self.rows[0], tokens=_array(self._first_parts).tolist(), trained=trained)

    def block(self) -> Block:
        return Block(tokens=_array(self._parts), lengths=array("i", self._lengths), documents=self._documents)

    def instructions(self, ledger: Ledger) -> Encoded:
        """Ids, mask and labels; what is written is told to ``ledger``."""
        ids = self.block()
        ledger.write(self._lengths, trainable=self._trainable // INT32)
        blocks = {
            name: Block(tokens=tokens, lengths=ids.lengths, documents=ids.documents)
            for name, tokens in ((IDS, ids.tokens), (MASK, array("i", [1]) * len(ids.tokens)), (LABELS, _array(self._labels)))
        }
        return Encoded(blocks=blocks, ledger=ledger, first=self.first())


def _array(parts: Sequence[Ids]) -> array[int]:
    numbers = array("i")
    numbers.frombytes(b"".join(parts))
    return numbers
