"""Runs of preprocess-data in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qwen3_ops.events import Events
from qwen3_ops.native.data.flags import FLAGS
from qwen3_ops.native.data.indexed import IndexedDataset
from qwen3_ops.native.data.verb import run
from qwen3_ops.verbs import Context, Outcome


@dataclass(frozen=True)
class Run:
    outcome: Outcome
    folder: Path

    def read(self, name: str) -> IndexedDataset:
        return IndexedDataset(self.folder / f"d_{name}_document")

    def ledger(self) -> dict[str, Any]:
        import json

        ledger: dict[str, Any] = json.loads((self.folder / "ledger.json").read_text(encoding="utf-8"))
        return ledger


Preprocess = Callable[[Sequence[str]], Run]


@pytest.fixture
def preprocess(tmp_path: Path, tokenizer_dir: Path) -> Preprocess:
    """preprocess-data with these flags, the small tokenizer unless another is named, into ``out/d``."""

    def start(argv: Sequence[str]) -> Run:
        given = list(argv)
        if "--tokenizer-name-or-path" not in given:
            given += ["--tokenizer-name-or-path", str(tokenizer_dir)]
        flags, _ = FLAGS.parse([*given, "--output-prefix", str(tmp_path / "out" / "d")])
        return Run(run(flags, Context(events=Events())), tmp_path / "out")

    return start


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A file below the test's folder from text or bytes."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write
