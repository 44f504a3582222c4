"""Whole tensors on their way from a source to a result, a few rows at a time.

Nothing is made as a whole: some rows are taken from the source's maps, changed where a conversion changes
values, and used for everything (checks, digests, files) while the processor's cache still has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qwen3_ops.native.checkpoint.sharding import Runs


class Rows(NamedTuple):
    """Some rows of a whole tensor, as the source holds them and as the result shall; valid until the next ones are made."""

    original: Tensor
    result: Tensor


class Whole(NamedTuple):
    """A whole tensor that is made when it is read.

    Attributes:
        shape: of both sides.
        dtype: of the result.
        moved: no value changes: the result's rows are the original's.
        rows: makes those from ``begin`` to ``end``; to be called from one thread.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    moved: bool
    rows: Callable[[int, int], Rows]

    def full(self) -> Tensor:
        """The result in one piece; a view where it lies so in a file."""
        return self.rows(0, self.shape[0]).result

    def checked(self, check: Callable[[int, Tensor], None]) -> Whole:
        """``check`` is given each time the number of the first row, and the result's rows."""

        def rows(begin: int, end: int) -> Rows:
            made = self.rows(begin, end)
            check(begin, made.result)
            return made

        return self._replace(rows=rows)

    def changed(self, dtype: torch.dtype, change: Callable[[int, Tensor], Tensor]) -> Whole:
        """``change`` is given the number of the first row, and the result's rows, and makes others of ``dtype``."""

        def rows(begin: int, end: int) -> Rows:
            made = self.rows(begin, end)
            return Rows(made.original, change(begin, made.result))

        return self._replace(dtype=dtype, moved=False, rows=rows)

    def cast(self, dtype: torch.dtype) -> Whole:
        return self if self.dtype == dtype else self.changed(dtype, lambda begin, rows: rows.to(dtype))

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
            sides = [torch.cat([side[:kept], side[-1:].expand(missing, -1)]) for side in dict.fromkeys(made)]
            return Rows(sides[0], sides[-1])

        return self._replace(shape=(count, *self.shape[1:]), rows=rows)


class Piece(NamedTuple):
    """A stored tensor, or a slice of one, as a part of a whole tensor.

    Attributes:
        rows: gives those from ``first`` on, ``count`` of them.
    """

    runs: Runs
    dtype: torch.dtype
    rows: Callable[[int, int], Tensor]

    @classmethod
    def of(cls, runs: Runs, tensor: Tensor) -> Piece:
        return cls(runs, tensor.dtype, lambda first, count: tensor.narrow(0, first, count))


def join(shape: tuple[int, ...], pieces: Sequence[Piece]) -> Whole:
    """The whole tensor of ``pieces``, the inverse of `Runs.take`; rows that lie together in one piece are not copied."""
    alike = len({piece.dtype for piece in pieces}) == 1
    dtype = pieces[0].dtype if alike else torch.float32
    scratch: list[Tensor] = []

    def rows(begin: int, end: int) -> Rows:
        found = _within_one(pieces, begin, end)
        if found is None:
            if not scratch or len(scratch[0]) < end - begin:
                scratch[:] = [torch.empty(end - begin, *shape[1:], dtype=dtype)]
            found = scratch[0][: end - begin]
            for piece in pieces:
                _lay(piece, begin, found)
        return Rows(found, found.to(dtype))

    return Whole(shape, dtype, alike, rows)


def _within_one(pieces: Sequence[Piece], begin: int, end: int) -> Tensor | None:
    """Whole rows that one piece holds, one behind the other."""
    for piece in pieces:
        at = 0
        for start, stop in piece.runs.spans if piece.runs.axis == 0 else ():
            if start <= begin and end <= stop:
                return piece.rows(at + begin - start, end - begin)
            at += stop - start
    return None


def _lay(piece: Piece, first: int, block: Tensor) -> None:
    """Copy what ``piece`` has of the rows from ``first`` on to its place in ``block``."""
    columns = piece.runs.axis == 1
    taken = piece.rows(first, len(block)) if columns else None
    at = 0
    for start, stop in piece.runs.spans:
        if taken is not None:
            block[:, start:stop] = taken[:, at : at + stop - start]
        else:
            begin, end = max(start, first), min(stop, first + len(block))
            if begin < end:
                block[begin - first : end - first] = piece.rows(at + begin - start, end - begin)
        at += stop - start
