"""Whole tensors on their way from a source to a result, a few rows at a time.

Nothing is made as a whole: some rows are read from the source, changed where a conversion changes
values, and used for everything (checks, digests, files) while the processor's cache still has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qwen3_ops.native.checkpoint.dtypes import ElementType, float32
from qwen3_ops.native.checkpoint.sharding import Runs
from qwen3_ops.native.checkpoint.tensor_spec import Bits, as_tensor, converted

if TYPE_CHECKING:
    from torch import Tensor


class Rows(NamedTuple):
    """Some rows of a whole tensor, as the source holds them and as the result shall; valid until the next ones are made."""

    original: Bits
    result: Bits


class Whole(NamedTuple):
    """A whole tensor that is made when it is read.

    Attributes:
        shape: of both sides.
        dtype: of the result.
        moved: no value changes: the result's rows are the original's.
        rows: makes those from ``begin`` to ``end``; to be called from one thread.
    """

    shape: tuple[int, ...]
    dtype: ElementType
    moved: bool
    rows: Callable[[int, int], Rows]

    def tensor(self) -> Tensor:
        """The result in one piece."""
        return as_tensor(self.rows(0, self.shape[0]).result, self.dtype)

    def checked(self, check: Callable[[int, Bits], None]) -> Whole:
        """``check`` is given each time the number of the first row, and the result's rows."""

        def rows(begin: int, end: int) -> Rows:
            made = self.rows(begin, end)
            check(begin, made.result)
            return made

        return self._replace(rows=rows)

    def changed(self, dtype: ElementType, change: Callable[[int, Bits], Bits]) -> Whole:
        """``change`` is given the number of the first row, and the result's rows, and makes others of ``dtype``."""

        def rows(begin: int, end: int) -> Rows:
            made = self.rows(begin, end)
            return Rows(made.original, change(begin, made.result))

        return self._replace(dtype=dtype, moved=False, rows=rows)

    def cast(self, dtype: ElementType) -> Whole:
        return self if self.dtype == dtype else self.changed(dtype, lambda begin, rows: converted(rows, self.dtype, dtype))

    def padded(self, count: int) -> Whole:
        """``[V, H]`` -> ``[count, H]``; the last row is repeated, as MindSpeed does."""
        last = self.shape[0]
        if count <= last:
            return self

        def rows(begin: int, end: int) -> Rows:
            made = self.rows(min(begin, last - 1), min(end, last))
            missing = end - max(begin, last)
            if missing <= 0:
                return made
            kept = max(last - begin, 0)
            original, result = (np.concatenate([side[:kept], np.repeat(side[-1:], missing, axis=0)]) for side in made)
            return Rows(original, result)

        return self._replace(shape=(count, *self.shape[1:]), rows=rows)


class Piece(NamedTuple):
    """A stored tensor, or a slice of one, as a part of a whole tensor.

    Attributes:
        read: gives the rows from a first one on, as many as the array that it is given has, which it fills unless they are in memory.
    """

    runs: Runs
    dtype: ElementType
    read: Callable[[int, Bits], Bits]

    @classmethod
    def of(cls, runs: Runs, bits: Bits, dtype: ElementType) -> Piece:
        return cls(runs, dtype, lambda first, rows: bits[first : first + len(rows)])


class _Scratch:
    """Memory that is used over and over: what was taken before is overwritten."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def take(self, shape: tuple[int, ...], dtype: ElementType) -> Bits:
        size = prod(shape) * dtype.itemsize
        if len(self._bytes) < size:
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size].view(dtype.unsigned).reshape(shape)


def join(shape: tuple[int, ...], pieces: Sequence[Piece]) -> Whole:
    """The whole tensor of ``pieces``, the inverse of `Runs.take`; rows that lie together in one piece are copied once, from its file."""
    alike = len({piece.dtype for piece in pieces}) == 1
    dtype = pieces[0].dtype if alike else float32
    joined, columns = _Scratch(), _Scratch()

    def rows(begin: int, end: int) -> Rows:
        for piece in pieces:
            first = _within(piece.runs, begin, end)
            if first is not None:
                found = piece.read(first, joined.take((end - begin, *shape[1:]), piece.dtype))
                return Rows(found, converted(found, piece.dtype, dtype))
        block = joined.take((end - begin, *shape[1:]), dtype)
        for piece in pieces:
            lay = _lay_columns if piece.runs.axis else _lay_rows
            lay(piece, begin, block, dtype, columns)
        return Rows(block, block)

    return Whole(shape, dtype, alike, rows)


def _within(runs: Runs, begin: int, end: int) -> int | None:
    """Where the rows ``begin`` to ``end`` of a whole tensor begin in a stored one that holds them one behind the other."""
    at = 0
    for start, stop in runs.spans if runs.axis == 0 else ():
        if start <= begin and end <= stop:
            return at + begin - start
        at += stop - start
    return None


def _lay_rows(piece: Piece, first: int, block: Bits, dtype: ElementType, scratch: _Scratch) -> None:
    """Fill those rows of ``block``, which begins with row ``first`` of the whole tensor, that ``piece`` has."""
    at = 0
    for start, stop in piece.runs.spans:
        begin, end = max(start, first), min(stop, first + len(block))
        if begin < end:
            place = block[begin - first : end - first]
            wanted = place if piece.dtype == dtype else scratch.take(place.shape, piece.dtype)
            found = piece.read(at + begin - start, wanted)
            if found is not place:
                place[:] = converted(found, piece.dtype, dtype)
        at += stop - start


def _lay_columns(piece: Piece, first: int, block: Bits, dtype: ElementType, scratch: _Scratch) -> None:
    """Fill the columns of ``block`` that ``piece`` has."""
    found = converted(piece.read(first, scratch.take((len(block), piece.runs.size), piece.dtype)), piece.dtype, dtype)
    at = 0
    for start, stop in piece.runs.spans:
        block[:, start:stop] = found[:, at : at + stop - start]
        at += stop - start
