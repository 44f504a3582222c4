"""Which files are read, and which part of them a shard reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from qwen3_ops.errors import BadInput

FORMATS = (".arrow", ".csv", ".json", ".jsonl", ".parquet", ".txt")


@dataclass(frozen=True, kw_only=True)
class Span:
    """A part of a file: what begins at byte ``start`` or later and before ``stop``.

    Lines of .jsonl and .txt and row groups of .parquet can lie in different spans of a file; a file
    of another format is read whole by the span with its first byte.
    """

    path: Path
    start: int
    stop: int

    @property
    def has_beginning(self) -> bool:
        return self.start == 0 < self.stop


def input_files(source: Path) -> list[Path]:
    """The file, or the files of a folder sorted by name.

    Raises:
        BadInput: nothing there, no supported format, several formats in one folder, or an empty file.
    """
    if not source.exists():
        raise BadInput("no such file or folder", value=source, source="--input")
    candidates = sorted(source.iterdir()) if source.is_dir() else [source]
    files = [path for path in candidates if path.suffix in FORMATS and path.is_file() and not path.name.startswith(".")]
    formats = sorted({path.suffix for path in files})
    if not files:
        raise BadInput("no data file of a known format", value=source, source="--input", remedy=f"Known: {' '.join(FORMATS)}.")
    if len(formats) > 1:
        raise BadInput(
            "files of several formats in one folder", value=f"{source}: {' '.join(formats)}", source="--input",
            remedy="Keep one format in it, or name one file.",
        )  # fmt: skip
    for path in files:
        if not path.stat().st_size:
            raise BadInput("the file is empty", value=path, source="--input")
    return files


def spans(files: Sequence[Path], *, shard: tuple[int, int] = (0, 1)) -> list[Span]:
    """What shard ``i`` of ``n`` reads: the i-th of n parts of equal size of all files laid end to end.

    Every byte is in exactly one shard, so that all shards together are the whole, in its order.
    """
    index, count = shard
    sizes = [path.stat().st_size for path in files]
    first, last = (sum(sizes) * border // count for border in (index, index + 1))
    found = []
    for path, size, end in zip(files, sizes, accumulate(sizes), strict=True):
        start, stop = (min(max(border - (end - size), 0), size) for border in (first, last))
        if start < stop:
            found.append(Span(path=path, start=start, stop=stop))
    return found


def size_of(parts: Iterable[Span]) -> int:
    """Bytes."""
    return sum(span.stop - span.start for span in parts)
