"""Files to records, and what damaged files do."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data import json_array as json_array_module
from qwen3_ops.native.data.inputs import input_files, spans
from qwen3_ops.native.data.readers import BATCH, read_batches
from qwen3_ops.native.data.text_readers import Unreadable


def _records(path, wanted=("text",)):
    return [
        None if isinstance(record, Unreadable) else record
        for span in spans(input_files(path))
        for batch in read_batches(span, wanted=wanted)
        for record in batch.records
    ]


def test_batches_are_bounded_and_columns_chosen(tmp_path):
    rows = 2 * BATCH + 1
    pq.write_table(pa.table({"text": [str(i) for i in range(rows)], "other": [0] * rows}), tmp_path / "a.parquet")
    batches = list(read_batches(*spans([tmp_path / "a.parquet"]), wanted=["text"]))
    assert [len(batch.records) for batch in batches] == [BATCH, BATCH, 1]
    assert batches[0].records[0] == {"text": "0"}
    assert list(batches[0].columns) == ["text", "other"]
    assert batches[-1].done == 1.0


@pytest.mark.parametrize("writer", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow_stream_and_file(tmp_path, writer):
    table = pa.table({"text": ["a", "b"], "other": [1, 2]})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, writer(sink, table.schema) as out:
        out.write_table(table)
    assert _records(tmp_path / "a.arrow") == [{"text": "a"}, {"text": "b"}]


def test_json_array_larger_than_the_window(write, monkeypatch):
    monkeypatch.setattr(json_array_module, "_CHUNK", 7)
    wanted = [{"text": "x" * length + "] , [é"} for length in range(30)]
    assert _records(write("a.json", json.dumps(wanted, ensure_ascii=False, indent=1))) == wanted
    assert _records(write("b.json", '  [ {"text": "a"} , 5 ]  ')) == [{"text": "a"}, None]
    assert _records(write("c.json", "[ ]")) == []


def test_json_lines_under_either_name(write):
    for name in ("a.json", "a.jsonl"):
        assert _records(write(name, '\ufeff{"text": "a"}\n\n{"text": \n[1]\n{"text": "b"}')) == [{"text": "a"}, None, None, {"text": "b"}]


@pytest.mark.parametrize("text", ['[{"text": "a"}', '[{"text": "a"} {}]', '[{"text": "a"}] x', '[{"text": }]', "["])
def test_broken_json_array(write, text):
    with pytest.raises(BadInput, match="JSON array"):
        _records(write("a.json", text))


def test_csv_keeps_digits_and_quotes(write):
    path = write("a.csv", 'text,n\r\n"say ""hi"",\nthere",007\r\nNA,\r\n\r\nshort\r\none,2,3\r\n')
    assert _records(path) == [
        {"text": 'say "hi",\nthere', "n": "007"}, {"text": None, "n": None}, {"text": "short", "n": None}, None,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_invalid_utf8(write, name):
    with pytest.raises(BadInput, match="not valid UTF-8"):
        _records(write(name, b'{"text": "\xff\xfe"}\n'))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_no_such_format_inside(write, name):
    with pytest.raises(BadInput, match="can not be read"):
        _records(write(name, b"PAR1 this is not one"))


def test_parquet_damaged_in_the_middle(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {i} {i * 7919}" for i in range(5000)]}), path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[200:4000] = b"\xff" * 3800
    path.write_bytes(data)
    with pytest.raises(BadInput, match="can not be read"):
        _records(path)


def test_empty_file(write):
    with pytest.raises(BadInput, match="the file is empty"):
        _records(write("a.jsonl", ""))


def test_folder_is_sorted_and_of_one_format(tmp_path, write):
    for name in ("b.jsonl", "a.jsonl", "README.md", ".hidden.csv"):
        write(name, "x")
    assert [path.name for path in input_files(tmp_path)] == ["a.jsonl", "b.jsonl"]
    write("c.csv", "x")
    with pytest.raises(BadInput, match=r"several formats.*\.csv \.jsonl"):
        input_files(tmp_path)


def test_nothing_to_read(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        input_files(tmp_path / "x")
    with pytest.raises(BadInput, match="no data file of a known format"):
        input_files(tmp_path)
