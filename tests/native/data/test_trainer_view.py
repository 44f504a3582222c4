"""What training sees, against the real training side's own batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.trainer_view import (
    IGNORE_INDEX,
    InstructionDataset,
    PretrainDataset,
    collate,
    cut_turns,
    fit_turn,
    pretrain_split_bounds,
    shuffled_order,
    split_bounds,
)
from qwen3_ops.native.data.writer import IndexedDatasetWriter

PAD = 507


@pytest.fixture(scope="module")
def view(golden):
    return json.loads((golden / "data" / "trainer" / "trainer_view.json").read_text())


@pytest.fixture(scope="module")
def records(golden):
    return InstructionDataset(golden / "data" / "outputs" / "alpaca_mapkeys" / "d", 512)


def test_split(view):
    for key, bounds in view["split_examples"].items():
        split, size = key.split("|")
        parts = split_bounds(split, int(size))
        assert [parts[0].start, *(part.stop for part in parts)] == bounds


def test_pretraining_rounds_the_running_total():
    assert [len(part) for part in split_bounds("1,1,1", 10)] != [len(part) for part in pretrain_split_bounds("1,1,1", 10)]
    assert pretrain_split_bounds("1,1,1", 10) == [range(0, 3), range(3, 7), range(7, 10)]


@pytest.mark.parametrize("split", ["", "a,b", "0,0,0", "-1,2", "1,1,1,1"])
def test_no_split(split):
    with pytest.raises(BadInput, match="not a split"):
        split_bounds(split, 10)


def test_shuffled_order(view):
    wanted = view["shuffle"]
    assert shuffled_order(wanted["documents"], wanted["num_samples"], wanted["seed"]).tolist() == wanted["index"]


def test_long_records_are_cut_turn_by_turn(view, records):
    for sample in view["truncation_seq_length_512"]:
        made = records[sample["doc"]]
        assert made["input_ids"].tolist() == sample["input_ids"]
        assert made["labels"].tolist() == sample["labels"]


@pytest.mark.parametrize(
    ("source", "target", "limit", "fitted"),
    [(10, 10, 100, (10, 10)), (2227, 84, 512, (428, 84)), (62, 2924, 512, (62, 450)), (496, 217, 218, (152, 66)), (22, 76, 14, (4, 10))],
)
def test_fit_turn(source, target, limit, fitted):
    assert fit_turn(source, target, limit) == fitted


def test_cut_record_that_begins_with_an_answer():
    labels = np.array([1, 2, 3, IGNORE_INDEX, IGNORE_INDEX, 4])
    assert cut_turns(labels, 3).tolist() == [True, True, True, False, False, False]


def test_collation(view, records):
    for batch in view["batches_mbs2_seq512"]:
        fixed = None if batch["variable_seq_lengths"] else 512
        made = collate([records[doc] for doc in batch["docs"]], pad_token_id=PAD, pad_to_multiple_of=8, fixed_length=fixed)
        assert {name: array.tolist() for name, array in made.items()} == {name: batch[name] for name in made}


def test_all_micro_batches_of_a_real_run(golden, records):
    real = load_file(golden / "train" / "sft_full_fp32" / "first_batches.safetensors")
    order = shuffled_order(len(records), 80, 42)
    for number in range(40):
        samples = [records[doc] for doc in order[2 * number : 2 * number + 2]]
        made = collate(samples, pad_token_id=PAD, pad_to_multiple_of=8, fixed_length=None)
        assert np.array_equal(made["input_ids"], real[f"mb{number}.tokens"])
        assert np.array_equal(made["labels"], real[f"mb{number}.labels"])


def test_pretraining_of_a_real_run(golden):
    folder = golden / "train" / "pretrain_fp32"
    texts = PretrainDataset(golden / "data" / "outputs" / "pretrain_parquet" / "d_text_document", 512, 44, 42, pad_token_id=PAD)
    order = json.loads((folder / "batch_order.json").read_text())
    assert texts.document_index.tolist() == order["document_index"]
    assert texts.shuffle_index.tolist() == order["shuffle_index"]
    real = load_file(folder / "first_batches.safetensors")
    for number in range(20):
        for row in range(2):
            made = texts[4 + 2 * number + row]
            assert np.array_equal(made["input_ids"], real[f"mb{number}.tokens"][row])
            labels = np.where(made["labels"] == IGNORE_INDEX, 0, made["labels"])
            assert np.array_equal(labels, real[f"mb{number}.labels"][row])


def test_pretraining_on_a_part_of_the_texts(tmp_path):
    prefix = tmp_path / "d_text_document"
    with IndexedDatasetWriter(prefix) as writer:
        for start in range(0, 100, 10):
            writer.add_document(list(range(start, start + 10)))
    part = PretrainDataset(prefix, 7, 20, 1, documents=range(0, 4))
    seen = {int(token) for index in range(len(part)) for token in part[index]["input_ids"]}
    assert seen <= set(range(40))
    assert len(part) >= 20


def test_fields_of_different_lengths(tmp_path):
    for name, length in (("input_ids", 3), ("labels", 4)):
        with IndexedDatasetWriter(tmp_path / f"d_packed_{name}_document") as writer:
            writer.add_document([1] * length)
    with pytest.raises(BadInput, match="differ in their lengths"):
        InstructionDataset(tmp_path / "d", 8)


def test_missing_data_set(tmp_path):
    with pytest.raises(BadInput, match="no such data set file"):
        InstructionDataset(Path(tmp_path / "nothing"), 8)


def test_epochs_of_whole_batches():
    order = shuffled_order(10, 30, 42, multiple_of=4)
    assert len(order) == 36
    for epoch in order.reshape(3, 12):
        assert sorted(epoch.tolist()) == sorted([*range(10), 0, 1])


def test_the_records_own_order():
    assert shuffled_order(3, 5, 42, shuffle=False).tolist() == [0, 1, 2, 0, 1, 2]
