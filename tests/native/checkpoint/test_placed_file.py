"""Files that are written step by step, and whose pages are let go while they grow."""

from __future__ import annotations

import random
import zlib
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from qwen3_ops.native.checkpoint import placed_file
from qwen3_ops.native.checkpoint.placed_file import PlacedFile, Sink


@pytest.mark.parametrize("step", [1000, 4096, 10_000])
def test_many_steps_give_the_bytes_and_their_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(placed_file, "_STEP", step)
    monkeypatch.setattr(placed_file, "_CACHED", 2)  # most of the file has left the cache before it is read again
    data = random.Random(0).randbytes(300_000)
    ends = [0, 64, 64, 90_001, 90_002, 200_000, len(data)]
    crcs: dict[int, int] = {}
    file = PlacedFile(tmp_path / "file")
    for begin, end in reversed(list(pairwise(ends))):
        sink = Sink(file, begin, end - begin, partial(crcs.__setitem__, begin))
        middle = begin + (end - begin) // 3
        sink.add(memoryview(data)[begin:middle])
        sink.add(memoryview(data)[middle:end])
        sink.close()
        assert crcs[begin] == zlib.crc32(data[begin:end])
    file.sync()
    file.close()
    assert (tmp_path / "file").read_bytes() == data


def test_missing_bytes_are_noticed(tmp_path: Path) -> None:
    file = PlacedFile(tmp_path / "file")
    sink = Sink(file, 0, 3, lambda crc: None)
    sink.add(memoryview(b"ab"))
    with pytest.raises(ValueError, match="2 bytes were added where 3 were announced"):
        sink.close()
    file.close()
