"""Where samples go: straight into the data set, or packed into sequences of one length."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qwen3_ops.artifacts import writing
from qwen3_ops.native.data.indexed import IndexedDataset, IndexedDatasetWriter
from qwen3_ops.native.data.packing import knapsacks
from qwen3_ops.native.data.trainer_view import IGNORE_INDEX

IDS, MASK, LABELS = "packed_input_ids", "packed_attention_mask", "packed_labels"

Ids = Sequence[int] | NDArray[np.int32]


class Sink(Protocol):
    """Takes samples in order. As a context manager: after an exception nothing is left on disk."""

    def add(self, ids: Mapping[str, Ids]) -> str | None:
        """Take one record's tokens by output file. Returns why it was dropped, or None."""

    def finish(self) -> int:
        """Write what is still to be written. Returns the number of sequences of the first output."""

    def __enter__(self) -> Sink: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class PlainSink:
    """One sequence and one document a record, in ``<prefix>_<output>_document``."""

    def __init__(self, prefix: Path, outputs: Sequence[str], *, seq_length: int | None) -> None:
        self._prefix, self._outputs, self._seq_length = prefix, outputs, seq_length
        self._stack = ExitStack()
        self._writers: dict[str, IndexedDatasetWriter] = {}

    def add(self, ids: Mapping[str, Ids]) -> str | None:
        """A record of ``seq_length`` tokens or more leaves an empty document behind: the original's index."""
        too_long = self._seq_length is not None and max(map(len, ids.values())) >= self._seq_length
        for name, sequence in ids.items():
            if not too_long:
                self._writers[name].add_sequence(sequence)
            self._writers[name].end_document()
        return f"{self._seq_length} tokens or more" if too_long else None

    def finish(self) -> int:
        return self._writers[self._outputs[0]].sequences

    def __enter__(self) -> PlainSink:
        with self._stack:
            for name in self._outputs:
                self._writers[name] = self._stack.enter_context(_writer(self._prefix, name))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)


class PackingSink:
    """Sequences of exactly ``seq_length`` tokens, each several whole records and padding.

    The records are kept on disk until all lengths are known.

    Args:
        neat: the mask numbers a sequence's records from 1, padding is 0; else it is all ones.
    """

    def __init__(self, prefix: Path, *, seq_length: int, pad_token_id: int, neat: bool) -> None:
        self._prefix, self._size, self._pad, self._neat = prefix, seq_length, pad_token_id, neat

    def add(self, ids: Mapping[str, Ids]) -> str | None:
        if len(ids[IDS]) > self._size:
            return f"more than {self._size} tokens"
        for name, writer in self._unpacked.items():
            writer.add_document(ids[name])
        return None

    def finish(self) -> int:
        for writer in self._unpacked.values():
            writer.close()
        ids, labels = (IndexedDataset(writer.prefix) for writer in self._unpacked.values())
        packs = knapsacks(ids.sequence_lengths.tolist(), self._size)
        with ExitStack() as stack:
            writers = {name: stack.enter_context(_writer(self._prefix, name)) for name in (IDS, MASK, LABELS)}
            for pack in packs:
                numbers = [np.full(ids.sequence_lengths[record], place) for place, record in enumerate(pack, start=1)]
                writers[IDS].add_document(self._filled([ids[record] for record in pack], self._pad))
                writers[MASK].add_document(self._filled(numbers, 0) if self._neat else np.ones(self._size, dtype=np.int32))
                writers[LABELS].add_document(self._filled([labels[record] for record in pack], IGNORE_INDEX))
        return len(packs)

    def _filled(self, pieces: Sequence[NDArray[np.int32]], padding: int) -> NDArray[np.int32]:
        filled = np.full(self._size, padding, dtype=np.int32)
        joined = np.concatenate(pieces)
        filled[: len(joined)] = joined
        return filled

    def __enter__(self) -> PackingSink:
        with writing(self._prefix):
            self._folder = Path(mkdtemp(dir=self._prefix.parent, prefix=".unpacked."))
        self._unpacked = {name: IndexedDatasetWriter(self._folder / name) for name in (IDS, LABELS)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for writer in self._unpacked.values():
            writer.discard()
        shutil.rmtree(self._folder, ignore_errors=True)


def _writer(prefix: Path, output: str) -> IndexedDatasetWriter:
    return IndexedDatasetWriter(prefix.with_name(f"{prefix.name}_{output}_document"))
