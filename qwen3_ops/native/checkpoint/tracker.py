"""``latest_checkpointed_iteration.txt``: what makes a folder of iterations a checkpoint."""

from __future__ import annotations

from pathlib import Path

from qwen3_ops.artifacts import sync, write_atomically
from qwen3_ops.errors import BadInput

TRACKER = "latest_checkpointed_iteration.txt"
_DIGITS = 18  # of an iteration; Python refuses to read thousands of them


def read_tracker(folder: Path) -> int | None:
    """The newest complete iteration; 0 for ``release``, as Megatron counts it; None without a tracker.

    Raises:
        BadInput: its text is neither a positive number nor ``release``.
    """
    path = folder / TRACKER
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("the checkpoint's tracker can not be read", value=error, source=path) from error
    if text == "release":
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text) > 0):
        raise BadInput("the checkpoint's tracker holds no iteration", value=repr(text[:40]), source=path)
    return int(text)


def write_tracker(folder: Path, iteration: int) -> None:
    """Publish ``iteration``; call it when everything else is on the disk."""
    sync(folder)  # the iteration's own folder was put there by a rename
    write_atomically(folder / TRACKER, str(iteration))
    sync(folder)


def iteration_folder(folder: Path, iteration: int) -> Path:
    return folder / (f"iter_{iteration:07d}" if iteration else "release")
