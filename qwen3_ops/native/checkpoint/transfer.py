"""Moving whole tensors from a source into files: in parallel, each byte read, digested and written once.

A tensor's digest is the list of the SHA-256 of its blocks. Blocks are cut where the source or the
result is cut, so that both sides of a conversion consist of the same blocks in another order: one
digest serves both, and the certificate shows by equal digests which part went where.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import NamedTuple, Protocol

from torch import Tensor

from qwen3_ops.native.checkpoint.placed_file import Sink
from qwen3_ops.native.checkpoint.sharding import Runs
from qwen3_ops.native.checkpoint.state import Made, Part, Source
from qwen3_ops.native.checkpoint.tensor_spec import as_bytes

_MAX_THREADS = 4  # each holds a whole tensor; more only wait for the disk

Blocks = list[tuple[int, str]]
"""(rows, columns or elements; SHA-256 of the block's bytes), in the tensor's order."""


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
    threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        pending: set[Future[int]] = set()
        try:
            for job in jobs:
                pending.add(pool.submit(_do, job, source, open_sink, recorder))
                if len(pending) > threads:
                    pending = _collect(pending, progress)
            while pending:
                pending = _collect(pending, progress)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _collect(pending: set[Future[int]], progress: Callable[[int], None]) -> set[Future[int]]:
    done, rest = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        progress(future.result())
    return rest


def _do(job: Job, source: Source, open_sink: Callable[[Part], Sink] | None, recorder: Recorder | None) -> int:
    sinks = [] if open_sink is None else [open_sink(part) for part in job.parts]
    nbytes = 0
    for slot, name in enumerate(job.names):
        made = source.make(name)
        pieces = _Pieces(made.result)
        for sink, part in zip(sinks, job.parts, strict=False):
            if job.grouped:
                sink.add(as_bytes(part.runs.take(made.result).t()))
            else:
                for span in part.runs.spans:
                    sink.add(as_bytes(pieces[part.runs.axis, span]))
        if recorder is not None:
            _record(name, made, pieces, source.parts(name), _at_slot(job, slot), recorder)
        nbytes += made.result.numel() * made.result.element_size()
    for sink in sinks:
        sink.close()
    return nbytes


def _at_slot(job: Job, slot: int) -> list[Part]:
    return [part._replace(slot=slot) if job.grouped else part for part in job.parts]


class _Pieces:
    """Contiguous pieces of one tensor, each made and digested once."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._copies: dict[tuple[int, tuple[int, int]], Tensor] = {}
        self._digests: dict[tuple[int, tuple[int, int]], str] = {}

    def __getitem__(self, key: tuple[int, tuple[int, int]]) -> Tensor:
        axis, (begin, end) = key
        piece = self.tensor.narrow(axis, begin, end - begin)
        if piece.is_contiguous():
            return piece
        return self._copies.setdefault(key, piece.contiguous())

    def digest(self, key: tuple[int, tuple[int, int]]) -> str:
        if key not in self._digests:
            self._digests[key] = sha256(self[key])
        return self._digests[key]


def sha256(tensor: Tensor) -> str:
    return hashlib.sha256(as_bytes(tensor)).hexdigest()


def _record(name: str, made: Made, pieces: _Pieces, sources: list[Part], results: list[Part], recorder: Recorder) -> None:
    """Both sides' digests; from the same blocks where no value changed."""
    sides = ((sources, recorder.source), (results, recorder.result))
    plain = [part for parts, _ in sides for part in parts if part.slot is None]
    for parts, record in sides:
        changed = parts is sources and made.original is not made.result
        own = _Pieces(made.original) if changed else pieces
        common = [part for part in plain if made.original is made.result or part in parts]
        axis, cuts = _cuts([part.runs for part in common], own.tensor)
        for part in parts:
            if part.slot is not None:
                flat = part.runs.take(own.tensor).t()
                record(part, "elements", [(flat.numel(), sha256(flat))])
            else:
                spans = _refined(part.runs, axis, cuts, own.tensor)
                record(part, "columns" if axis else "rows", [(end - begin, own.digest((axis, (begin, end)))) for begin, end in spans])
    recorder.link(name, sources, results)


def _cuts(runs: Sequence[Runs], whole: Tensor) -> tuple[int, list[int]]:
    """The axis that any of them cuts, and every place where one begins or ends."""
    axis = max((item.axis for item in runs if item.size < whole.shape[item.axis]), default=0)
    ends = {end for item in runs if item.axis == axis for span in item.spans for end in span}
    return axis, sorted(ends | {0, whole.shape[axis]})


def _refined(runs: Runs, axis: int, cuts: Sequence[int], whole: Tensor) -> list[tuple[int, int]]:
    spans = runs.spans if runs.axis == axis else ((0, whole.shape[axis]),)
    pairs = list(pairwise(cuts))
    return [(begin, end) for start, stop in spans for begin, end in pairs if start <= begin and end <= stop]
