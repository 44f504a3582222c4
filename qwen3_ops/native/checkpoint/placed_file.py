"""Output files whose every byte has its place before the first is written, so that threads may fill them in any order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from zlib_ng.zlib_ng import crc32

_STEP = 4 << 20  # bytes that are written, and then checksummed while the processor still has them
_CACHED = 16  # steps of a file that may lie in the page cache before the oldest, by then on the disk, gives way


class PlacedFile:
    """A new file that is written at given offsets.

    Raises:
        OSError: it can not be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._leaving: deque[tuple[int, int]] = deque()

    def write(self, offset: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:  # one call writes 2 GiB at most
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def let_go(self, offset: int, size: int) -> None:
        """Ask the kernel to bring a written range to the disk now, and to forget one written a while ago.

        `sync` finds little left to wait for then, and the pages are used over and over: fresh ones cost a virtual machine
        several times what it takes to fill them, and a large file would drive all others out of the cache.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        os.posix_fadvise(self._descriptor, offset, size, os.POSIX_FADV_DONTNEED)  # begins to write what is dirty, drops what is not
        self._leaving.append((offset, size))
        if len(self._leaving) > _CACHED:
            os.posix_fadvise(self._descriptor, *self._leaving.popleft(), os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Sink:
    """One tensor's place in a file; its bytes are added block by block, front to back."""

    def __init__(self, file: PlacedFile, offset: int, size: int, done: Callable[[int], None], *, checksum: bool = True) -> None:
        self._file, self._start, self._at, self._end, self._done = file, offset, offset, offset + size, done
        self._checksum, self._crc, self._kept = checksum, 0, offset

    def add(self, block: memoryview) -> None:
        for start in range(0, len(block), _STEP):
            step = block[start : start + _STEP]
            self._file.write(self._at, step)
            if self._checksum:
                self._crc = crc32(step, self._crc)
            self._at += len(step)
            if self._at - self._kept >= _STEP:
                self._let_go()

    def close(self) -> None:
        """Raises ValueError unless exactly the announced bytes were added."""
        if self._at != self._end:
            raise ValueError(f"{self._at - self._start} bytes were added where {self._end - self._start} were announced")
        self._let_go()
        self._done(self._crc)

    def _let_go(self) -> None:
        self._file.let_go(self._kept, self._at - self._kept)
        self._kept = self._at
