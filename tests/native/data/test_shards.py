"""Parts made with --shard and joined by merge-data are the bytes and the ledger of one run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_ops.artifacts import require_artifact, sha256_file
from qwen3_ops.errors import BadInput, QualityGate
from qwen3_ops.events import Events
from qwen3_ops.execute import Provenance, run_verb
from qwen3_ops.verbs import VERBS

DATA = Path(__file__).parents[2] / "data" / "data"
TOKENIZER = ["--tokenizer-name-or-path", str(DATA / "tok512")]
ALPACA = ["--handler-name", "AlpacaStyleInstructionHandler", "--prompt-type", "qwen"]
PRETRAIN = ["--handler-name", "GeneralPretrainHandler"]
LINES = "".join(json.dumps({"instruction": f"question {n}", "input": "", "output": "answer " * n}) + "\n" for n in range(30))


def verb(name, *argv):
    return run_verb(VERBS[name], [str(part) for part in argv], events=Events(), provenance=Provenance(stage=name))


def files(folder):
    return {path.name: sha256_file(path) for path in folder.iterdir() if path.suffix in (".bin", ".idx")}


def both(folder, argv, count, merge=()):
    """One run and ``count`` merged parts of the same flags: (files, ledger) of each."""
    verb("preprocess-data", *argv, *TOKENIZER, "--output-prefix", folder / "one/d")
    parts = [folder / f"parts/{index}" for index in range(count)]
    for index, part in reversed(list(enumerate(parts))):
        verb("preprocess-data", *argv, *TOKENIZER, "--shard", f"{index}/{count}", "--output-prefix", part / "d")
    verb("merge-data", "--input", *reversed(parts), "--output-prefix", folder / "merged/d", *merge)
    return [(files(folder / name), json.loads((folder / name / "ledger.json").read_text())) for name in ("one", "merged")]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    "flags",
    [[], ["--seq-length", "60"], ["--pack", "--seq-length", "128"], ["--pack", "--neat-pack", "--seq-length", "64"]],
    ids=["plain", "cut", "pack", "neat"],
)
def test_lines(tmp_path, flags, count):
    (tmp_path / "a.jsonl").write_text("\ufeff" + LINES + "{broken\n")
    one, merged = both(tmp_path, ["--input", tmp_path / "a.jsonl", *ALPACA, *flags], count)
    assert one == merged


def test_row_groups_of_several_parquet_files(tmp_path):
    (tmp_path / "in").mkdir()
    for name, rows in (("b", 40), ("a", 17), ("c", 3)):
        table = pa.table({"text": [f"{name} {row} " * (row % 7) for row in range(rows)]})
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet", row_group_size=5)
    one, merged = both(tmp_path, ["--input", tmp_path / "in", *PRETRAIN, "--append-eod"], 4)
    assert one == merged
    assert one[1]["records"] == 60


@pytest.mark.parametrize(("name", "content"), [("a.csv", "text\n" + "line\n" * 20), ("a.json", json.dumps([{"text": "t"}] * 20))])
def test_a_file_that_can_not_be_cut_is_in_one_part(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    one, merged = both(tmp_path, ["--input", tmp_path / name, *PRETRAIN], 3)
    assert one == merged


def test_lines_of_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\rthree\n\nfour\r\n\r\nfive")
    one, merged = both(tmp_path, ["--input", tmp_path / "a.txt", *PRETRAIN], 4)
    assert one == merged
    assert one[1]["written"] == 5


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=12),
    count=st.integers(1, 6),
    pack=st.booleans(),
)
def test_random_conversations(texts, count, pack):
    with TemporaryDirectory() as name:
        folder = Path(name)
        records = [{"instruction": text, "input": "", "output": text[::-1]} for text in texts]
        (folder / "a.jsonl").write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
        flags = ["--pack", "--seq-length", "256"] if pack else []
        one, merged = both(folder, ["--input", folder / "a.jsonl", *ALPACA, *flags], count)
        assert one == merged


@pytest.fixture
def parts(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    argv = ["--input", tmp_path / "a.jsonl", *ALPACA, *TOKENIZER]
    for index in range(3):
        verb("preprocess-data", *argv, "--shard", f"{index}/3", "--output-prefix", tmp_path / f"parts/{index}/d")
    return tmp_path / "parts"


def test_one_folder_of_all_parts(parts, tmp_path):
    manifest = verb("merge-data", "--input", parts, "--output-prefix", tmp_path / "out/d")
    assert (manifest.kind, manifest.metrics["written"]) == ("dataset", 30)


def test_a_part_is_no_data_set(parts):
    with pytest.raises(BadInput, match="a dataset_part, not a dataset"):
        require_artifact(parts / "0", ("dataset",))


def test_missing_double_and_foreign_parts(parts, tmp_path):
    def merge(*given):
        with pytest.raises(BadInput) as caught:
            verb("merge-data", "--input", *given, "--output-prefix", tmp_path / "out/d")
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    assert "not every part is there exactly once: 0/3 2/3" in merge(parts / "0", parts / "2")
    assert "not every part is there exactly once" in merge(parts / "0", parts / "0", parts / "1", parts / "2")
    assert "no finished artifact" in merge(tmp_path)
    argv = ["--input", tmp_path / "a.jsonl", *ALPACA, *TOKENIZER, "--append-eod"]
    shutil.rmtree(parts / "1")
    verb("preprocess-data", *argv, "--shard", "1/3", "--output-prefix", parts / "1/d")
    assert "they differ in their recipe" in merge(parts)
    (parts / "1/part.json").write_text("{}")
    assert "description is damaged" in merge(parts)


def test_the_gate_waits_for_the_merge(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES + "{broken\n" * 10)
    argv = ["--input", tmp_path / "a.jsonl", *ALPACA]
    with pytest.raises(QualityGate, match="10 of 40"):
        both(tmp_path, argv, 2, ["--max-dropped-ratio", "0.2"])
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("shard", ["2/2", "1", "-1/2", "a/b", "0/0"])
def test_no_such_shard(shard):
    with pytest.raises(BadInput, match="--shard: not I/N"):
        verb("preprocess-data", "--input", "i", *TOKENIZER, "--output-prefix", "o", *ALPACA, "--shard", shard)


def test_from_the_command_line(parts, tmp_path):
    argv = [sys.executable, "-m", "qwen3_ops", "merge-data", "--input", str(parts), "--output-prefix", str(tmp_path / "out/d")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, "sequences" in done.stdout) == (0, True), done.stderr
