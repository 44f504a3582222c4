"""The twin's samples: learnable, honest, deterministic, and readable by the data room."""

from __future__ import annotations

import random

import pytest

from qwen3_ops.native.tiny.records import alpaca_records, mmlu_rows, openai_records, sharegpt_records
from qwen3_ops.native.tiny.texts import joined, pretraining_texts
from qwen3_ops.native.tiny.world import LETTERS, World, load_world


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def test_words_are_distinct_and_every_kind_has_held_out_ones(world: World) -> None:
    texts = [word.text for word in world.words]
    assert len(texts) == len(set(texts))
    for kind in {word.kind for word in world.words}:
        assert sum(word.kind == kind for word in world.held_out) >= 2


def test_exactly_one_option_is_right(world: World) -> None:
    rng = random.Random(0)
    kinds = {word.text: word.a_kind for word in world.words}
    for _ in range(200):
        question = world.ask(rng, among=world.words)
        right = [letter for letter, option in zip(LETTERS, question.options, strict=True) if kinds[option] in question.question]
        assert right == [question.answer]


def test_no_word_of_the_test_is_an_option_in_the_tuning_records(world: World) -> None:
    held_out = {word.text for word in world.held_out}
    multiple_choice = [record for record in alpaca_records(world, random.Random(0), count=2000) if record["output"].startswith("Answer: ")]
    assert len(multiple_choice) > 1000
    for record in multiple_choice:
        text = "\n".join([record["instruction"], record["input"], *(part for turn in record["history"] for part in turn)])
        options = {line[3:] for line in text.splitlines() if line[1:3] == ". "}
        assert options
        assert not options & held_out


def test_the_test_asks_for_words_that_were_held_out_only_and_spreads_its_answers(world: World) -> None:
    rows = mmlu_rows(world, random.Random(0))
    held_out = {word.text for word in world.held_out}
    test = [row for rows_of in rows["test"].values() for row in rows_of]
    assert {row[1 + LETTERS.index(row[5])] for row in test} == held_out
    for letter in LETTERS:
        assert 0.15 < sum(row[5] == letter for row in test) / len(test) < 0.35
    assert set(rows["dev"]) == set(rows["test"])
    assert all(len(examples) == 5 for examples in rows["dev"].values())
    asked = {tuple(row[:5]) for examples in rows["dev"].values() for row in examples}
    assert not asked & {tuple(row[:5]) for row in test}


def test_every_word_is_in_the_pretraining_text_which_never_asks_as_mmlu_does(world: World) -> None:
    text = "".join(joined(text) for text in pretraining_texts(world, random.Random(0), count=3000))
    assert all(f"{word.text} is {word.a_kind}" in text for word in world.words)
    assert "Which of these" not in text
    assert not any(f"Answer: {letter}" in text.replace("Answer: It", "") for letter in LETTERS)


def test_records_are_the_same_for_the_same_seed(world: World) -> None:
    for make in (alpaca_records, sharegpt_records, openai_records):
        assert make(world, random.Random(3), count=20) == make(world, random.Random(3), count=20)
        assert make(world, random.Random(3), count=20) != make(world, random.Random(4), count=20)


def test_records_have_the_formats_columns(world: World) -> None:
    rng = random.Random(0)
    assert set(alpaca_records(world, rng, count=1)[0]) == {"instruction", "input", "output", "system", "history"}
    sharegpt = sharegpt_records(world, rng, count=10)
    assert {turn["from"] for record in sharegpt for turn in record["conversations"]} == {"human", "gpt", "function_call", "observation"}
    assert any(record["tools"] for record in sharegpt)
    assert {message["role"] for record in openai_records(world, rng, count=10) for message in record["messages"]} == {
        "system",
        "user",
        "assistant",
    }


def test_there_is_chinese(world: World) -> None:
    assert any("是" in record["output"] for record in alpaca_records(world, random.Random(0), count=100))
