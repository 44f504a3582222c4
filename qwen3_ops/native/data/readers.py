"""Records of data files, a few hundred at a time.

Text formats are read without guessing types: a column of digits or dates stays text, where the
original loses it.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.inputs import Span
from qwen3_ops.native.data.text_readers import Line, Record, Unreadable, csv_rows, json_records, text_lines

BATCH = 512  # records
_BATCH_BYTES = 4 << 20  # of text, as far as it can be told before: long texts come in smaller batches


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Records in the order of the file.

    Attributes:
        columns: names seen so far.
        has_schema: ``columns`` is complete from the first batch on.
        done: the part of the span that is read, 0 to 1.
    """

    records: list[Record | Unreadable]
    columns: Collection[str]
    done: float
    has_schema: bool = False


def read_batches(span: Span, *, wanted: Collection[str]) -> Iterator[Batch]:
    """The span's records; columnar formats read the ``wanted`` columns only.

    Raises:
        BadInput: the file is damaged, or is not what its name says.
    """
    with _readable(span.path):
        yield from _READERS[span.path.suffix](span, wanted)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise BadInput("not valid UTF-8", value=f"{error.reason} at byte {error.start} of its part", source=path) from error
    except (csv.Error, PermissionError) as error:
        raise BadInput("the file can not be read", value=error, source=path) from error


def _parquet(span: Span, wanted: Collection[str]) -> Iterator[Batch]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(span.path) as file:
            names = file.schema_arrow.names
            groups = _row_groups(file.num_row_groups, span)
            described = [file.metadata.row_group(group) for group in groups]
            total, size = sum(group.num_rows for group in described), sum(group.total_byte_size for group in described)
            rows = 0
            columns = [name for name in names if name in wanted]
            for batch in file.iter_batches(batch_size=_batch_rows(total, size), row_groups=groups, columns=columns):
                rows += batch.num_rows
                yield Batch(records=batch.to_pylist(), columns=names, done=rows / total, has_schema=True)
    except (ArrowException, OSError) as error:  # a damaged page is an OSError there
        raise BadInput("the parquet file can not be read", value=error, source=span.path, remedy="Download it again.") from error


def _row_groups(count: int, span: Span) -> list[int]:
    """Groups are laid out evenly over the file's bytes: which group a span has depends on sizes alone."""
    size = span.path.stat().st_size
    return [group for group in range(count) if span.start <= size * group // count < span.stop]


def _batch_rows(rows: int, size: int) -> int:
    return max(1, min(BATCH, _BATCH_BYTES * rows // max(size, 1)))


def _arrow(span: Span, wanted: Collection[str]) -> Iterator[Batch]:
    """Stream format, as Hugging Face writes it, or file format."""
    from pyarrow import ArrowException, ArrowInvalid, ipc, memory_map

    if not span.has_beginning:
        return
    try:
        with memory_map(str(span.path)) as file:
            try:
                parts: Any = ipc.open_stream(file)
            except ArrowInvalid:
                reader = ipc.open_file(file)
                parts = (reader.get_batch(index) for index in range(reader.num_record_batches))
            for part in parts:
                kept = part.select([name for name in part.schema.names if name in wanted])
                step = _batch_rows(part.num_rows, part.nbytes)
                for start in range(0, part.num_rows, step):
                    records = kept.slice(start, step).to_pylist()
                    yield Batch(records=records, columns=part.schema.names, done=file.tell() / file.size(), has_schema=True)
    except (ArrowException, OSError) as error:
        raise BadInput("the arrow file can not be read", value=error, source=span.path, remedy="Make or download it again.") from error


def _text(read: Callable[[Span], Iterable[Line]]) -> Callable[[Span, Collection[str]], Iterator[Batch]]:
    def batches(span: Span, wanted: Collection[str]) -> Iterator[Batch]:
        columns: dict[str, None] = {}  # in the order seen
        batch: list[Record | Unreadable] = []
        size, position = 0, span.start
        for record, end in read(span):
            batch.append(record)
            if isinstance(record, dict):
                columns.update(dict.fromkeys(record))
            size, position = size + end - position, end
            if len(batch) == BATCH or size >= _BATCH_BYTES:
                yield Batch(records=batch, columns=columns, done=min(1.0, (end - span.start) / (span.stop - span.start)))
                batch, size = [], 0
        if batch:
            yield Batch(records=batch, columns=columns, done=1.0)

    return batches


_READERS: dict[str, Callable[[Span, Collection[str]], Iterator[Batch]]] = {
    ".parquet": _parquet, ".arrow": _arrow, ".json": _text(json_records), ".jsonl": _text(json_records),
    ".csv": _text(csv_rows), ".txt": _text(text_lines),
}  # fmt: skip
