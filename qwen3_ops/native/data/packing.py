"""Packing: which records share a sequence (a greedy knapsack, from the lengths alone), and how it is written."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qwen3_ops.native.data.blocks import IDS, LABELS, MASK
from qwen3_ops.native.data.indexed_format import output_prefix
from qwen3_ops.native.data.turns import IGNORE_INDEX
from qwen3_ops.native.data.writer import open_writers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNPACKED = (IDS, LABELS)
"""What packing needs of the records."""


def knapsacks(lengths: Iterable[int], size: int) -> list[list[int]]:
    """Record numbers of each packed sequence of ``size`` tokens, in their order there.

    Each takes the longest record that still fits, the last one among equally long ones, until none
    does. The order is the original's, which leaves one token free in every sequence; a record of
    exactly ``size`` tokens, for which the original never ends, gets a sequence of its own.
    """
    by_length: dict[int, list[int]] = {}
    packs = []
    for record, length in enumerate(lengths):
        if length == size:
            packs.append([record])
        else:
            by_length.setdefault(length, []).append(record)
    waiting = sorted(by_length)
    while waiting:
        room, pack = size - 1, []
        while place := bisect_right(waiting, room):
            length = waiting[place - 1]
            pack.append(by_length[length].pop())
            room -= length
            if not by_length[length]:
                del waiting[place - 1]
        packs.append(pack)
    return packs


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Whole records and padding in sequences of exactly ``size`` tokens.

    Attributes:
        neat: the mask numbers a sequence's records from 1, padding is 0; else it is all ones.
    """

    size: int
    pad_token_id: int
    neat: bool

    def write(self, prefix: Path, parts: Sequence[Path]) -> int:
        """Pack the records of ``parts`` (prefixes, one after the other). Returns the number of sequences."""
        from qwen3_ops.native.data.indexed import JoinedDatasets

        ids, labels = (JoinedDatasets([output_prefix(part, name) for part in parts]) for name in UNPACKED)
        packs = knapsacks(ids.sequence_lengths.tolist(), self.size)
        with open_writers(prefix, (IDS, MASK, LABELS)) as writers:
            for pack in packs:
                numbers = [array("i", [place]) * int(ids.sequence_lengths[record]) for place, record in enumerate(pack, start=1)]
                writers[IDS].add_document(self._filled([ids[record] for record in pack], self.pad_token_id))
                writers[MASK].add_document(self._filled(numbers, 0) if self.neat else array("i", [1]) * self.size)
                writers[LABELS].add_document(self._filled([labels[record] for record in pack], IGNORE_INDEX))
        return len(packs)

    def _filled(self, pieces: Iterable[array[int] | NDArray[np.int32]], padding: int) -> array[int]:
        filled = array("i")
        for piece in pieces:
            filled.frombytes(piece.tobytes())
        return filled + array("i", [padding]) * (self.size - len(filled))
