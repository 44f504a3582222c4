"""Megatron's .bin/.idx."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.indexed import IndexedDataset
from qwen3_ops.native.data.writer import IndexedDatasetWriter


def test_what_is_read_is_written_again_byte_for_byte(golden, tmp_path):
    prefix = golden / "data" / "outputs" / "pretrain_parquet" / "d_text_document"
    read = IndexedDataset(prefix)
    with IndexedDatasetWriter(tmp_path / "again") as writer:
        for sequence in read:
            writer.add_document(sequence)
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"again{suffix}").read_bytes() == prefix.with_name(prefix.name + suffix).read_bytes()


def test_documents_without_and_with_several_sequences(tmp_path):
    with IndexedDatasetWriter(tmp_path / "a.b") as writer:  # a dot in the prefix is no suffix
        writer.end_document()
        writer.add_sequence([1, 2, 3])
        writer.add_sequence([-100])
        writer.end_document()
    data = IndexedDataset(tmp_path / "a.b")
    assert data.document_indices.tolist() == [0, 0, 2]
    assert data.sequence_lengths.tolist() == [3, 1]
    assert (data[1].tolist(), data[1].dtype, len(data)) == ([-100], np.int32, 2)
    assert data.get(0, offset=1, length=2).tolist() == [2, 3]
    with pytest.raises(IndexError):
        data[2]


def test_nothing_is_left_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), IndexedDatasetWriter(tmp_path / "x") as writer:
        writer.add_document([1])
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_empty(tmp_path):
    with IndexedDatasetWriter(tmp_path / "x"):
        pass
    assert len(IndexedDataset(tmp_path / "x")) == 0


@pytest.mark.parametrize(
    ("suffix", "damage", "message"),
    [
        (".idx", lambda data: data[:20], "cut off"),
        (".idx", lambda data: data[:-8], "cut off"),
        (".idx", lambda data: b"", "cut off"),
        (".idx", lambda data: b"x" + data[1:], "not a Megatron index"),
        (".idx", lambda data: data[:17] + b"\x09" + data[18:], "not a Megatron index"),
        (".bin", lambda data: data[:-4], "shorter than its index"),
    ],
)
def test_damage(golden, tmp_path, suffix, damage, message):
    for file in (golden / "data" / "outputs" / "pretrain_parquet").iterdir():
        shutil.copy(file, tmp_path / file.name)
    path = tmp_path / f"d_text_document{suffix}"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match=message):
        IndexedDataset(tmp_path / "d_text_document")


def test_missing(tmp_path):
    with pytest.raises(BadInput, match="no such data set file"):
        IndexedDataset(tmp_path / "x")
