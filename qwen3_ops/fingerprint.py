"""Fingerprints of what a run reads from outside: weights, tokenizer, data, MMLU."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from qwen3_ops.artifacts import sha256_file, sha256_text
from qwen3_ops.native.checkpoint.tracker import TRACKER

_WHOLE = 64 * 1024 * 1024  # bytes; larger files are not read whole while a run is planned
_HEAD = 1024 * 1024

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors.index.json")


def fingerprint(files: Iterable[Path], *, base: Path) -> str:
    """Digest of relative names and contents.

    Of a file above 64 MiB it takes size, modification time and the first MiB (the header
    that names every tensor, for safetensors), so that planning a 30 GB model takes
    milliseconds. The conversion's certificate digests every tensor anyway.
    """
    entries = {str(path.relative_to(base)): _digest(path) for path in files}
    return sha256_text(json.dumps(entries, sort_keys=True))


def model_fingerprint(folder: Path) -> str:
    """Weights and configuration, tokenizer included: an export copies it."""
    files = {folder / name for name in (*_MODEL_FILES, *TOKENIZER_FILES)} | set(folder.glob("*.safetensors"))
    return fingerprint(sorted(file for file in files if file.is_file()), base=folder)


def tokenizer_fingerprint(folder: Path) -> str:
    return fingerprint(sorted(path for name in TOKENIZER_FILES if (path := folder / name).is_file()), base=folder)


def source_fingerprint(source: Path) -> str:
    """A data file, or the files of a data folder (not of folders below it)."""
    if source.is_dir():
        return fingerprint(sorted(path for path in source.iterdir() if path.is_file()), base=source)
    return fingerprint([source], base=source.parent)


def tasks_fingerprint(test_folder: Path) -> str:
    """MMLU's questions and, beside them, the examples of ``dev``."""
    root = test_folder.parent
    return fingerprint(sorted([*test_folder.glob("*.csv"), *(root / "dev").glob("*.csv")]), base=root)


def checkpoint_fingerprint(folder: Path) -> str:
    """A Megatron checkpoint: its tracker and every rank's files of the iteration that it names."""
    return fingerprint(sorted([folder / TRACKER, *folder.glob("*/mp_rank_*/*")]), base=folder)


def _digest(path: Path) -> str:
    stat = path.stat()
    if stat.st_size <= _WHOLE:
        return sha256_file(path)
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return sha256_text(f"{stat.st_size} {stat.st_mtime_ns} {head.hex()}")
