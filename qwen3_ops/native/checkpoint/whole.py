"""Whole tensors on their way from a source to a result, a few rows at a time.

Nothing is made as a whole: some rows are taken from the source's maps, changed where a conversion changes
values, and used for everything (checks, digests, files) while the processor's cache still has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        """The result in one piece; a view where it lies so in a file."""
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
            sides = made[:1] if made.original is made.result else made
            sides = [np.concatenate([side[:kept], np.repeat(side[-1:], missing, axis=0)]) for side in sides]
            return Rows(sides[0], sides[-1])

        return self._replace(shape=(count, *self.shape[1:]), rows=rows)


class Piece(NamedTuple):
    """A stored tensor, or a slice of one, as a part of a whole tensor.

    Attributes:
        rows: gives those from ``first`` on, ``count`` of them.
    """

    runs: Runs
    dtype: ElementType
    rows: Callable[[int, int], Bits]

    @classmethod
    def of(cls, runs: Runs, bits: Bits, dtype: ElementType) -> Piece:
        return cls(runs, dtype, lambda first, count: bits[first : first + count])


def join(shape: tuple[int, ...], pieces: Sequence[Piece]) -> Whole:
    """The whole tensor of ``pieces``, the inverse of `Runs.take`; rows that lie together in one piece are not copied."""
    alike = len({piece.dtype for piece in pieces}) == 1
    dtype = pieces[0].dtype if alike else float32
    scratch: list[Bits] = []

    def rows(begin: int, end: int) -> Rows:
        for piece in pieces:
            found = _within(piece, begin, end)
            if found is not None:
                return Rows(found, converted(found, piece.dtype, dtype))
        if not scratch or len(scratch[0]) < end - begin:
            scratch[:] = [np.empty((end - begin, *shape[1:]), dtype.unsigned)]
        block = scratch[0][: end - begin]
        for piece in pieces:
            _lay(piece, begin, block, dtype)
        return Rows(block, block)

    return Whole(shape, dtype, alike, rows)


def _within(piece: Piece, begin: int, end: int) -> Bits | None:
    """Whole rows that ``piece`` holds, one behind the other."""
    at = 0
    for start, stop in piece.runs.spans if piece.runs.axis == 0 else ():
        if start <= begin and end <= stop:
            return piece.rows(at + begin - start, end - begin)
        at += stop - start
    return None


def _lay(piece: Piece, first: int, block: Bits, dtype: ElementType) -> None:
    """Copy what ``piece`` has of the rows from ``first`` on to its place in ``block``."""
    columns = piece.runs.axis == 1
    taken = converted(piece.rows(first, len(block)), piece.dtype, dtype) if columns else None
    at = 0
    for start, stop in piece.runs.spans:
        if taken is not None:
            block[:, start:stop] = taken[:, at : at + stop - start]
        else:
            begin, end = max(start, first), min(stop, first + len(block))
            if begin < end:
                block[begin - first : end - first] = converted(piece.rows(at + begin - start, end - begin), piece.dtype, dtype)
        at += stop - start
