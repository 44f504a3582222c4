"""Batches to sequences on several cores, in order and with a bounded number under way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from qwen3_ops.errors import Infrastructure
from qwen3_ops.native.data.blocks import Encoded, Rows
from qwen3_ops.native.data.flags import PreprocessFlags
from qwen3_ops.native.data.samples import Encoder, make_encoder, open_tokenizer

WORTH_A_PROCESS = 32 << 20  # bytes of input: about five times the work that it costs to start one
_CORES_A_PROCESS = 2
_THREADS = 3  # while the tokenizer, outside the interpreter's lock, works on one batch, the next one waits and a third is rendered


def processes(flags: PreprocessFlags, *, size: int) -> int:
    """How many are worth starting for an input of ``size`` bytes; 1 = none, the tokenizer's own threads do the work.

    A single process keeps two cores busy; on two, a second one only costs its own start.
    """
    return max(1, min(flags.workers, cores() // _CORES_A_PROCESS, size // WORTH_A_PROCESS))


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encode_all(
    batches: Iterable[Rows], flags: PreprocessFlags, encoder: Encoder, *, count: int, size: int
) -> Generator[Encoded, None, None]:
    """What becomes of each batch, in order; the same for any ``count`` of processes. To be closed after use.

    Raises:
        Infrastructure: a worker process died.
    """
    executor: Executor = ThreadPoolExecutor(_THREADS) if count == 1 else _processes(flags, count, size)
    encode = encoder.encode if count == 1 else _encode
    under_way: deque[Future[Encoded]] = deque()
    try:
        for rows in batches:
            under_way.append(executor.submit(encode, rows))
            if len(under_way) > 2 * max(count, _THREADS):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BrokenProcessPool as error:
        raise Infrastructure(
            "a worker process died", value=error, source="--workers", remedy="Most often memory ran out: use fewer workers."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _processes(flags: PreprocessFlags, count: int, size: int) -> Executor:
    # A forked copy of a process with threads may never wake up, hence new interpreters.
    context = multiprocessing.get_context("spawn")
    threads = max(1, cores() // count)
    return ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(flags, size, threads))


_encoder: Encoder
"""Of this worker process."""


def _start(flags: PreprocessFlags, size: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # read by the tokenizer library when it first needs threads
    global _encoder  # noqa: PLW0603
    tokenizer, _ = open_tokenizer(flags, size=size)
    _encoder = make_encoder(flags, tokenizer)


def _encode(rows: Rows) -> Encoded:
    return _encoder.encode(rows)


def _end_with_parent() -> None:
    """A parent that was killed can not end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
