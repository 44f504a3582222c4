"""Records of data files, a few hundred at a time.

Text formats are read without guessing types: a column of digits or dates stays text, where the
original loses it.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.json_array import json_array

BATCH = 512  # records

Record = dict[str, Any]

_CSV_NULLS = frozenset([
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None",
    "n/a", "nan", "null",
])  # fmt: skip
"""What pandas, and so the original, reads as no value."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Records in the order of the file; None in place of one that can not be read.

    Attributes:
        columns: names seen so far.
        has_schema: ``columns`` is complete from the first batch on.
        done: the part of the file that is read, 0 to 1.
    """

    records: list[Record | None]
    columns: Collection[str]
    done: float
    has_schema: bool = False


def input_files(source: Path) -> list[Path]:
    """The file, or the files of a folder sorted by name.

    Raises:
        BadInput: nothing there, no supported format, or several formats in one folder.
    """
    if not source.exists():
        raise BadInput("no such file or folder", value=source, source="--input")
    candidates = sorted(source.iterdir()) if source.is_dir() else [source]
    files = [path for path in candidates if path.suffix in _READERS and path.is_file() and not path.name.startswith(".")]
    formats = sorted({path.suffix for path in files})
    if not files:
        raise BadInput("no data file of a known format", value=source, source="--input", remedy=f"Known: {' '.join(sorted(_READERS))}.")
    if len(formats) > 1:
        raise BadInput(
            "files of several formats in one folder", value=f"{source}: {' '.join(formats)}", source="--input",
            remedy="Keep one format in it, or name one file.",
        )  # fmt: skip
    return files


def read_batches(path: Path, *, wanted: Collection[str]) -> Iterator[Batch]:
    """The file's records; columnar formats read the ``wanted`` columns only.

    Raises:
        BadInput: the file is damaged, or is not what its name says.
    """
    if not path.stat().st_size:
        raise BadInput("the file is empty", value=path, source="--input")
    with _readable(path):
        yield from _READERS[path.suffix](path, wanted)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise BadInput("not valid UTF-8", value=f"{error.reason} at byte {error.start} of its part", source=path) from error
    except (csv.Error, PermissionError) as error:
        raise BadInput("the file can not be read", value=error, source=path) from error


def _parquet(path: Path, wanted: Collection[str]) -> Iterator[Batch]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            names = file.schema_arrow.names
            rows = 0
            for batch in file.iter_batches(batch_size=BATCH, columns=[name for name in names if name in wanted]):
                rows += batch.num_rows
                yield Batch(records=batch.to_pylist(), columns=names, done=rows / file.metadata.num_rows, has_schema=True)
    except (ArrowException, OSError) as error:  # a damaged page is an OSError there
        raise BadInput("the parquet file can not be read", value=error, source=path, remedy="Download it again.") from error


def _arrow(path: Path, wanted: Collection[str]) -> Iterator[Batch]:
    """Stream format, as Hugging Face writes it, or file format."""
    from pyarrow import ArrowException, ArrowInvalid, ipc, memory_map

    try:
        with memory_map(str(path)) as file:
            try:
                parts: Any = ipc.open_stream(file)
            except ArrowInvalid:
                reader = ipc.open_file(file)
                parts = (reader.get_batch(index) for index in range(reader.num_record_batches))
            for part in parts:
                kept = part.select([name for name in part.schema.names if name in wanted])
                for start in range(0, part.num_rows, BATCH):
                    records = kept.slice(start, BATCH).to_pylist()
                    yield Batch(records=records, columns=part.schema.names, done=file.tell() / file.size(), has_schema=True)
    except (ArrowException, OSError) as error:
        raise BadInput("the arrow file can not be read", value=error, source=path, remedy="Make or download it again.") from error


def _json(path: Path, wanted: Collection[str]) -> Iterator[Batch]:
    """One array of objects, or an object a line: the content decides, not the name."""
    with _text(path) as (text, done):
        first = text.read(4096).lstrip()[:1]
        if first == "[":
            text.seek(0)
            yield from _batched(json_array(text, path), done)
            return
    with path.open("rb") as lines:
        yield from _batched(_json_lines(lines), lambda: lines.tell() / path.stat().st_size)


def _json_lines(lines: Iterable[bytes]) -> Iterator[Record | None]:
    for number, line in enumerate(lines):
        text = line.decode("utf-8-sig" if number == 0 else "utf-8").strip()
        if not text:
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = None
        yield record if isinstance(record, dict) else None


def _csv(path: Path, wanted: Collection[str]) -> Iterator[Batch]:
    csv.field_size_limit(sys.maxsize)
    with _text(path, newline="") as (text, done):
        rows = csv.reader(text)
        names = next(rows, [])
        yield from _batched((_csv_record(names, row) for row in rows if row), done)


def _csv_record(names: list[str], row: list[str]) -> Record | None:
    if len(row) > len(names):
        return None
    padded = row + [""] * (len(names) - len(row))
    return {name: None if value in _CSV_NULLS else value for name, value in zip(names, padded, strict=True)}


def _txt(path: Path, wanted: Collection[str]) -> Iterator[Batch]:
    """A text a line; \\r, \\r\\n and \\n end one."""
    with _text(path) as (text, done):
        yield from _batched(({"text": line.rstrip("\n")} for line in text), done)


@contextmanager
def _text(path: Path, *, newline: str | None = None) -> Iterator[tuple[TextIO, Callable[[], float]]]:
    """The file as text, and a function that says which part of it is read."""
    size = path.stat().st_size
    with path.open("rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline=newline) as text:
        yield text, lambda: raw.tell() / size


def _batched(records: Iterable[Record | None], done: Callable[[], float]) -> Iterator[Batch]:
    columns: dict[str, None] = {}  # in the order seen
    batch: list[Record | None] = []
    for record in records:
        batch.append(record)
        columns.update(dict.fromkeys(record or ()))
        if len(batch) == BATCH:
            yield Batch(records=batch, columns=columns, done=done())
            batch = []
    if batch:
        yield Batch(records=batch, columns=columns, done=1.0)


_READERS: dict[str, Callable[[Path, Collection[str]], Iterator[Batch]]] = {
    ".parquet": _parquet, ".arrow": _arrow, ".json": _json, ".jsonl": _json, ".csv": _csv, ".txt": _txt,
}  # fmt: skip
