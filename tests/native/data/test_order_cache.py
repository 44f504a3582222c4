"""The order of samples, kept or not, is the data set's as it is now."""

from __future__ import annotations

import numpy as np
import pytest

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.indexed import IndexedDataset
from qwen3_ops.native.data.order_cache import OrderCache
from qwen3_ops.native.data.trainer_view import PretrainDataset, shuffled_order
from qwen3_ops.native.data.writer import IndexedDatasetWriter


@pytest.fixture
def prefix(tmp_path):
    return tmp_path / "data" / "d_text_document"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "below"


def build(prefix, texts, length=3):
    prefix.parent.mkdir(exist_ok=True)
    with IndexedDatasetWriter(prefix) as writer:
        for number in range(texts):
            writer.add_document([number] * length)


def ordered(prefix, folder):
    texts = len(IndexedDataset(prefix))
    return OrderCache(folder, prefix).get("shuffled", lambda: shuffled_order(texts, 20, 42), samples=20, seed=42)


def test_a_rebuilt_data_set_never_meets_a_stale_order(prefix, folder):
    build(prefix, 20)
    first = ordered(prefix, folder)
    assert sorted(first) == list(range(20))
    build(prefix, 5)
    assert set(ordered(prefix, folder)) == set(range(5))
    build(prefix, 20)
    assert np.array_equal(ordered(prefix, folder), first)
    assert len(list(folder.iterdir())) == 2
    assert len(list(prefix.parent.iterdir())) == 2  # nothing beside the data


def test_a_kept_order_is_not_made_again(prefix, folder):
    build(prefix, 4)
    cache = OrderCache(folder, prefix)
    kept = cache.get("shuffled", lambda: np.array([3, 1, 2, 0]), seed=1)
    again = cache.get("shuffled", lambda: pytest.fail("made again"), seed=1)
    assert kept.tolist() == again.tolist() == [3, 1, 2, 0]
    assert isinstance(again, np.memmap)
    assert cache.get("shuffled", lambda: np.array([9]), seed=2).tolist() == [9]
    (name,) = [path.name for path in folder.iterdir() if "seed=1" in path.name]
    assert name == f"shuffled-{cache._digest}-seed=1.npy"


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"no array at all"])
def test_a_damaged_file_is_made_anew(prefix, folder, damage):
    build(prefix, 4)
    order = ordered(prefix, folder).tolist()
    (path,) = folder.iterdir()
    path.write_bytes(damage or path.read_bytes()[:-8])
    assert ordered(prefix, folder).tolist() == order
    assert ordered(prefix, folder).tolist() == order
    assert list(folder.iterdir()) == [path]


def test_without_a_folder_nothing_is_written(prefix, tmp_path):
    build(prefix, 4)
    assert len(ordered(prefix, None)) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_can_not_be_made(prefix, tmp_path):
    build(prefix, 4)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="can not be written"):
        ordered(prefix, tmp_path / "file" / "cache")


def test_pretraining_samples_are_the_same_from_the_cache(prefix, folder):
    build(prefix, 30, length=11)

    def samples(**where):
        made = PretrainDataset(prefix, 8, 60, 7, documents=range(2, 25), **where)
        return made.document_index.tolist(), made.shuffle_index.tolist(), [made[n]["input_ids"].tolist() for n in range(len(made))]

    fresh = samples()
    assert samples(cache=OrderCache(folder, prefix)) == fresh
    changed = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert samples(cache=OrderCache(folder, prefix)) == fresh
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == changed


def test_another_split_has_an_order_of_its_own(prefix, folder):
    build(prefix, 30)
    for documents in (range(30), range(10)):
        seen = PretrainDataset(prefix, 2, 20, 7, documents=documents, cache=OrderCache(folder, prefix)).document_index
        assert set(seen) == set(documents)
    assert len(list(folder.iterdir())) == 2
