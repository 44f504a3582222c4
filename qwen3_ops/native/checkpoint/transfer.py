"""Moving whole tensors from a source into files: in parallel, each byte read, digested and written once, some rows at a time.

A tensor's digest is the list of the BLAKE3 digests of its blocks. Blocks are cut where the source or the
result is cut, so that both sides of a conversion consist of the same blocks in another order: one
digest serves both, and the certificate shows by equal digests which part went where.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import pairwise
from math import prod
from typing import NamedTuple, Protocol

from blake3 import blake3

from qwen3_ops.native.checkpoint.placed_file import Sink
from qwen3_ops.native.checkpoint.sharding import Runs
from qwen3_ops.native.checkpoint.state import Part, Source
from qwen3_ops.native.checkpoint.tensor_spec import Bits, as_bytes
from qwen3_ops.native.checkpoint.whole import Whole

_MAX_COMPUTING = 4  # threads; more only wait for the disk
_MAX_WRITING = 2  # threads that wait for the disk meanwhile
_STEP = 1 << 20  # bytes that go through everything while a processor's cache has them

Blocks = list[tuple[int, str]]
"""(rows, columns or elements; BLAKE3 of the block's bytes), in the tensor's order."""


class Job(NamedTuple):
    """Stored tensors of the result that are made of the same whole ones.

    Attributes:
        names: of the whole tensors: one, or a rank's experts for a grouped weight.
        parts: those stored tensors; ``slot`` is None, also for grouped ones.
        grouped: transposed and laid one behind the other.
    """

    names: tuple[str, ...]
    parts: tuple[Part, ...]
    grouped: bool = False


class Recorder(Protocol):
    """Takes down what was read and written; called from several threads."""

    def source(self, part: Part, axis: str, blocks: Blocks) -> None: ...

    def result(self, part: Part, axis: str, blocks: Blocks) -> None: ...

    def link(self, name: str, sources: Sequence[Part], results: Sequence[Part]) -> None: ...


def transfer(
    jobs: Sequence[Job],
    source: Source,
    *,
    open_sink: Callable[[Part], Sink] | None,
    recorder: Recorder | None = None,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Do all ``jobs``; the first error ends it and is raised.

    Args:
        open_sink: where a part is written; None: only digest.
        progress: called with the bytes of each whole tensor, in this thread.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(_MAX_COMPUTING, cores) + (0 if open_sink is None else _MAX_WRITING)
    with ThreadPoolExecutor(threads) as pool:
        pending: set[Future[int]] = set()
        try:
            for job in sorted(jobs, key=_size, reverse=True):  # the largest first: none of them is left to one thread at the end
                pending.add(pool.submit(_do, job, source, open_sink, recorder))
                if len(pending) > threads:
                    pending = _collect(pending, progress)
            while pending:
                pending = _collect(pending, progress)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _size(job: Job) -> int:
    return sum(part.spec.nbytes for part in job.parts)


def _collect(pending: set[Future[int]], progress: Callable[[int], None]) -> set[Future[int]]:
    done, rest = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        progress(future.result())
    return rest


def _do(job: Job, source: Source, open_sink: Callable[[Part], Sink] | None, recorder: Recorder | None) -> int:
    sinks = [] if open_sink is None else [open_sink(part) for part in job.parts]
    nbytes = 0
    for slot, name in enumerate(job.names):
        whole, sources = source.make(name), source.parts(name)
        results = [part._replace(slot=slot) if job.grouped else part for part in job.parts]
        before = _Digests(whole, [*sources, *results] if whole.moved else sources)
        after = before if whole.moved else _Digests(whole, results)
        for begin, end in _steps(whole, [*sources, *results]):
            rows = whole.rows(begin, end)
            original = _Block(rows.original, begin)
            result = original if whole.moved else _Block(rows.result, begin)
            for sink, part in zip(sinks, results, strict=False):
                for piece in result.pieces(part):
                    sink.add(piece)
            if recorder is not None:
                before.add(original)
                if not whole.moved:
                    after.add(result)
        if recorder is not None:
            for part in sources:
                recorder.source(part, *before.of(part))
            for part in results:
                recorder.result(part, *after.of(part))
            recorder.link(name, sources, results)
        nbytes += prod(whole.shape) * whole.dtype.itemsize
    for sink in sinks:
        sink.close()
    return nbytes


def _steps(whole: Whole, parts: Sequence[Part]) -> Iterator[tuple[int, int]]:
    """Rows to take at a time: few, and none from both sides of a cut. A grouped part is transposed, which takes all at once."""
    rows = whole.shape[0]
    if any(part.slot is not None for part in parts):
        yield 0, rows
        return
    cuts = {end for part in parts if part.runs.axis == 0 for span in part.runs.spans for end in span}
    size = max(1, _STEP // max(1, prod(whole.shape[1:]) * whole.dtype.itemsize))
    for begin, end in pairwise(sorted(cuts | {0, rows})):
        yield from ((start, min(start + size, end)) for start in range(begin, end, size))


class _Block:
    """Some rows of a whole tensor, from row ``first`` on, and the bytes of what parts have of them."""

    def __init__(self, rows: Bits, first: int) -> None:
        self.first, self.end, self._rows = first, first + len(rows), rows
        self._whole: memoryview | None = None
        self._columns: dict[Runs, memoryview] = {}

    def pieces(self, part: Part) -> Iterator[memoryview]:
        """Front to back."""
        if part.slot is not None:
            yield as_bytes(part.runs.take(self._rows).T)
        elif part.runs.axis == 1:
            yield self.columns(part.runs)
        else:
            for begin, end in part.runs.spans:
                if max(begin, self.first) < min(end, self.end):
                    yield self.rows(begin, end)

    def rows(self, begin: int, end: int) -> memoryview:
        """Those of the rows ``begin`` to ``end`` that are here."""
        if begin <= self.first and self.end <= end:
            if self._whole is None:
                self._whole = as_bytes(self._rows)
            return self._whole
        return as_bytes(self._rows[max(begin - self.first, 0) : end - self.first])

    def columns(self, runs: Runs) -> memoryview:
        """Copied once, for the file and for the digest."""
        if runs not in self._columns:
            self._columns[runs] = as_bytes(runs.take(self._rows))
        return self._columns[runs]


class _Digests:
    """Digests of the blocks that ``parts`` of a whole tensor consist of, added up as rows come by."""

    def __init__(self, whole: Whole, parts: Sequence[Part]) -> None:
        self._shape = whole.shape
        self._grouped = {part: blake3() for part in parts if part.slot is not None}
        plain = [part.runs for part in parts if part.slot is None]
        self._axis = max((runs.axis for runs in plain if runs.size < whole.shape[runs.axis]), default=0)
        ends = {end for runs in plain if runs.axis == self._axis for span in runs.spans for end in span}
        cuts = sorted(ends | {0, self._shape[self._axis]})
        self._blocks = {span: blake3() for span in pairwise(cuts)} if plain else {}
        self._left = deque(self._blocks)  # rows of which more may come

    def add(self, block: _Block) -> None:
        for part, digest in self._grouped.items():
            for piece in block.pieces(part):
                digest.update(piece)
        if self._axis:
            for span, digest in self._blocks.items():
                digest.update(block.columns(Runs(1, (span,))))
            return
        while self._left and self._left[0][0] < block.end:
            begin, end = self._left[0]
            self._blocks[begin, end].update(block.rows(begin, end))
            if end > block.end:
                return
            self._left.popleft()

    def of(self, part: Part) -> tuple[str, Blocks]:
        """The axis along which the part's blocks lie, and the blocks."""
        if part.slot is not None:
            return "elements", [(prod(part.runs.shape(self._shape)), self._grouped[part].hexdigest())]
        spans = part.runs.spans if part.runs.axis == self._axis else ((0, self._shape[self._axis]),)
        inside = [(begin, end) for start, stop in spans for begin, end in self._blocks if start <= begin and end <= stop]
        return "columns" if self._axis else "rows", [(end - begin, self._blocks[begin, end].hexdigest()) for begin, end in inside]


def digest(bits: Bits) -> str:
    """BLAKE3 of a tensor's bytes, in hexadecimal."""
    return blake3(as_bytes(bits)).hexdigest()
