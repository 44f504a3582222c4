"""Orders of samples kept on disk between runs, for ``--data-cache-path``.

A file's name holds the digest of the index that the order was made for, and everything else that the order depends on: data made again
under the same prefix, or split otherwise, never meets an order of before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from qwen3_ops.artifacts import sha256_file, writing
from qwen3_ops.native.data.indexed_format import with_suffix

_DIGITS = 16  # of the digest, in a name


class OrderCache:
    """The orders of one data set's samples.

    Args:
        folder: where they are kept, made when it is not there; None: nowhere, each is made anew.
        prefix: of the .bin/.idx pair whose documents are put in order.
    """

    def __init__(self, folder: Path | None, prefix: Path) -> None:
        self._folder = folder
        self._digest = "" if folder is None else sha256_file(with_suffix(prefix, ".idx"))[:_DIGITS]

    def get(self, what: str, make: Callable[[], NDArray[np.int64]], **depends_on: object) -> NDArray[np.int64]:
        """The order ``what``, mapped from its file; made and written first where there is none or a damaged one.

        Args:
            depends_on: all that ``make`` takes besides the data set's index; short enough for a file's name.

        Raises:
            BadInput: the folder can not be written.
            Infrastructure: the disk is full.
        """
        if self._folder is None:
            return make()
        values = "-".join(f"{name}={value}" for name, value in depends_on.items())
        path = self._folder / f"{what}-{self._digest}-{values}.npy"
        with writing(self._folder):
            order = _read(path)
            if order is None:
                order = make()
                _write(path, order)
        return order


def _read(path: Path) -> NDArray[np.int64] | None:
    try:
        order = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):  # the last two: cut off, or no array
        return None
    return order if order.dtype == np.int64 and order.ndim == 1 else None


def _write(path: Path, order: NDArray[np.int64]) -> None:
    """Processes that write the same order at once each rename a whole file of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{uuid4().hex}.npy")
    try:
        np.save(beside, order)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
