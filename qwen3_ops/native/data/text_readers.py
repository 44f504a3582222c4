"""Records of the text formats, one by one, with the file's position behind each."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from qwen3_ops.native.data.inputs import Span
from qwen3_ops.native.data.json_array import json_array

Record = dict[str, Any]


class Unreadable(str):
    """The text of what is no record."""

    __slots__ = ()


Line = tuple[Record | Unreadable, int]
"""A record, and the byte behind it (of what is read ahead, where the format needs that)."""

_BUFFER = 1 << 20  # bytes; each read gives way to the other threads
_BOM = b"\xef\xbb\xbf"
_CSV_NULLS = frozenset([
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None",
    "n/a", "nan", "null",
])  # fmt: skip
"""What pandas, and so the original, reads as no value."""


def json_records(span: Span) -> Iterator[Line]:
    """One array of objects, or an object a line: the content decides, not the name."""
    with _text(span.path) as (text, raw):
        is_array = text.read(4096).lstrip()[:1] == "["
        text.seek(0)
        if is_array:
            for element in json_array(text, span.path) if span.has_beginning else ():
                yield element if isinstance(element, dict) else Unreadable(json.dumps(element)), raw.tell()
            return
    for line, end in _lines(span):
        text_line = line.decode().strip()
        if text_line:
            yield _json_object(text_line), end


def _json_object(text: str) -> Record | Unreadable:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return Unreadable(text)
    return record if isinstance(record, dict) else Unreadable(text)


def csv_rows(span: Span) -> Iterator[Line]:
    if not span.has_beginning:
        return
    csv.field_size_limit(sys.maxsize)
    with _text(span.path, newline="") as (text, raw):
        rows = csv.reader(text)
        names = next(rows, [])
        for row in rows:
            if row:
                yield _csv_record(names, row), raw.tell()


def _csv_record(names: list[str], row: list[str]) -> Record | Unreadable:
    if len(row) > len(names):
        return Unreadable(",".join(row))
    padded = row + [""] * (len(names) - len(row))
    return {name: None if value in _CSV_NULLS else value for name, value in zip(names, padded, strict=True)}


def text_lines(span: Span) -> Iterator[Line]:
    """A text a line; \\r, \\r\\n and \\n end one."""
    for line, end in _lines(span):
        text = line.decode()
        for piece in text.removesuffix("\n").removesuffix("\r").split("\r"):
            yield {"text": piece}, end


def _lines(span: Span) -> Iterator[tuple[bytes, int]]:
    """The lines that begin in the span, and the byte behind each; only \\n ends one."""
    with span.path.open("rb", buffering=_BUFFER) as file:
        if span.start:
            file.seek(span.start - 1)
            file.readline()  # the end of a line that began earlier
        position = file.tell()
        while position < span.stop and (line := file.readline()):
            text = line if position else line.removeprefix(_BOM)
            position += len(line)
            yield text, position


@contextmanager
def _text(path: Path, *, newline: str | None = None) -> Iterator[tuple[TextIO, BinaryIO]]:
    """The file as text, and the same file as bytes: its position tells how far it is read."""
    with path.open("rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline=newline) as text:
        yield text, raw
