"""Files that are written in any order, in whole blocks past the page cache and in parts of blocks through it."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import zlib
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from qwen3_ops.native.checkpoint import placed_file
from qwen3_ops.native.checkpoint.placed_file import Buffers, PlacedFile, Sink

BLOCK = placed_file._BLOCK
ENDS = [0, 64, 64, 90_001, 90_002, 90_002 + BLOCK, 200_000, 200_000 + BLOCK - 1, 600_000]


def write(path: Path, data: bytes) -> None:
    """Each range between ``ENDS`` in two unequal steps, the last range first."""
    crcs: dict[int, int] = {}
    file = PlacedFile(path, Buffers())
    file.reserve(len(data) - 100)
    for begin, end in reversed(list(pairwise(ENDS))):
        sink = Sink(file, begin, end - begin, partial(crcs.__setitem__, begin))
        middle = begin + (end - begin) // 3
        sink.add(memoryview(data)[begin:middle])
        sink.add(memoryview(data)[middle:end])
        sink.close()
        assert crcs[begin] == zlib.crc32(data[begin:end])
    file.sync()
    file.close()


@pytest.fixture
def data() -> bytes:
    return random.Random(0).randbytes(ENDS[-1])


@pytest.mark.parametrize("blocks", [1, 2, 16, 1024])
def test_many_steps_give_the_bytes_and_their_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, blocks: int) -> None:
    monkeypatch.setattr(placed_file, "_BUFFER", blocks * BLOCK)
    write(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("most", [1, 100, 1 << 20])
def test_small_writes_wait_for_others_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, most: int) -> None:
    monkeypatch.setattr(placed_file, "_MOST_KEPT", most)
    write(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


def test_a_file_system_without_direct_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    write(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


def test_a_file_system_that_refuses_our_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Every other direct write is refused, the others write a part only."""
    real, calls = os.pwrite, []

    def pwrite(descriptor: int, view: memoryview, offset: int) -> int:
        if descriptor != direct[-1]:
            return real(descriptor, view, offset)
        calls.append(offset)
        if len(calls) % 2:
            raise OSError(errno.EINVAL, "not these blocks")
        return real(descriptor, view[:BLOCK], offset)

    opened, direct = placed_file._open_direct, []
    monkeypatch.setattr(placed_file, "_open_direct", lambda path: direct.append(opened(path)) or direct[-1])
    monkeypatch.setattr(placed_file.os, "pwrite", pwrite)
    monkeypatch.setattr(placed_file, "_BUFFER", 4 * BLOCK)
    write(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data
    assert direct == [None] or len(calls) > 10


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    def full(descriptor: int, view: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(placed_file.os, "pwrite", full)
    with pytest.raises(OSError, match="full"):
        write(tmp_path / "file", data)


@pytest.mark.parametrize(("reason", "told"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EOPNOTSUPP, False)])
def test_blocks_that_can_not_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int, told: bool) -> None:
    """Nothing is taken here: an attempt at more than there is would fill the disk for a moment."""

    def fallocate(*_: object) -> int:
        ctypes.set_errno(reason)
        return -1

    monkeypatch.setattr(placed_file.ctypes, "CDLL", lambda *args, **options: SimpleNamespace(fallocate=fallocate))
    file = PlacedFile(tmp_path / "file", Buffers())
    with pytest.raises(OSError, match="no room") if told else nullcontext():
        file.reserve(1000)
    file.close()
    assert (tmp_path / "file").stat().st_size == 1000


def test_missing_bytes_are_noticed(tmp_path: Path) -> None:
    file = PlacedFile(tmp_path / "file", Buffers())
    sink = Sink(file, 0, 3, lambda crc: None)
    sink.add(memoryview(b"ab"))
    with pytest.raises(ValueError, match="2 bytes were added where 3 were announced"):
        sink.close()
    file.close()
