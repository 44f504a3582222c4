"""Room on the disk, asked for before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from qwen3_ops.errors import Infrastructure

_RESERVE = 64 << 20  # bytes, for pickles, certificates and the file system's own


def require_space(folder: Path, nbytes: int) -> None:
    """Raises Infrastructure when the file system of ``folder`` (which need not exist) has no room for ``nbytes``."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < nbytes + _RESERVE:
        value = f"{nbytes / 1e9:.3g} GB are needed, {free / 1e9:.3g} GB are free"
        raise Infrastructure("the disk is too small", value=value, source=folder, remedy="Free space there, or choose another disk.")
