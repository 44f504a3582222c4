"""The twin's samples: learnable, honest, the same for the same seed."""

from __future__ import annotations

import random
import re

import pytest

from qwen3_ops.native.tiny.records import alpaca_records, mmlu_rows, openai_records, sharegpt_records
from qwen3_ops.native.tiny.texts import pretraining_texts
from qwen3_ops.native.tiny.world import LETTERS, World, load_world


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def test_words_are_distinct_and_every_kind_has_held_out_ones(world: World) -> None:
    texts = [word.text for word in world.words]
    assert len(texts) == len(set(texts))
    for kind in {word.kind for word in world.words}:
        assert sum(word.kind == kind and word.held_out for word in world.words) >= 2


def test_every_subject_has_four_options_and_each_is_right_for_some_word(world: World) -> None:
    for subject, kinds in world.options.items():
        assert len(set(kinds)) == len(LETTERS)
        for word in world.words_of(subject, held_out=True):
            assert kinds[LETTERS.index(word.letter)] == word.kind
        assert {word.letter for word in world.words_of(subject, held_out=True)} == set(LETTERS)


def test_no_tuning_record_asks_for_a_word_of_the_test_by_letter(world: World) -> None:
    records = [record for record in alpaca_records(world, random.Random(0), count=2000) if record["output"].startswith("Answer: ")]
    assert len(records) > 1000
    for record in records:
        asked = set(re.findall(r"\w+", f"{record['instruction']}\n{record['input']}"))
        assert not asked & {word.text for word in world.words if word.held_out}
        assert asked & {word.text for word in world.taught}


def test_the_test_asks_for_held_out_words_only_and_spreads_its_answers(world: World) -> None:
    rows = mmlu_rows(world, random.Random(0))
    test = [row for questions in rows["test"].values() for row in questions]
    taught = {word.text for word in world.taught}
    assert not any(set(re.findall(r"\w+", row[0])) & taught for row in test)
    for letter in LETTERS:
        assert 0.2 <= sum(row[5] == letter for row in test) / len(test) <= 0.3
    assert set(rows["dev"]) == set(rows["test"])
    assert all(len(examples) == 5 for examples in rows["dev"].values())
    assert len({tuple(row) for row in test}) == len(test)


def test_the_pretraining_text_tells_every_word_but_answers_no_question_by_letter(world: World) -> None:
    text = "\n".join(pretraining_texts(world, random.Random(0), count=6000))
    assert all(f"{word.text} is {word.a_kind}" in text for word in world.words)
    assert not re.search(rf"Answer: [{LETTERS}]\b", text)


def test_records_are_the_same_for_the_same_seed(world: World) -> None:
    for make in (alpaca_records, sharegpt_records, openai_records):
        assert make(world, random.Random(3), count=20) == make(world, random.Random(3), count=20)
        assert make(world, random.Random(3), count=20) != make(world, random.Random(4), count=20)


def test_records_have_the_formats_columns(world: World) -> None:
    rng = random.Random(0)
    assert {"instruction", "input", "output"} <= set(alpaca_records(world, rng, count=1)[0])
    sharegpt = sharegpt_records(world, rng, count=10)
    assert {turn["from"] for record in sharegpt for turn in record["conversations"]} == {"human", "gpt", "function_call", "observation"}
    assert any(record["tools"] for record in sharegpt)
    roles = {message["role"] for record in openai_records(world, rng, count=10) for message in record["messages"]}
    assert roles == {"system", "user", "assistant"}


def test_there_is_chinese(world: World) -> None:
    assert any("是" in record["output"] for record in alpaca_records(world, random.Random(0), count=100))
