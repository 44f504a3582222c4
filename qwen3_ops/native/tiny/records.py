"""Tuning records of the small world in the three formats of the runbook, and MMLU's questions.

By letter only taught words are asked for; the held-out ones are left to MMLU's test.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from qwen3_ops.native.tiny.texts import QUESTIONS, SYSTEM, choice
from qwen3_ops.native.tiny.world import Word, World

Record = dict[str, Any]

_EXAMPLES = 5  # of a subject, as in MMLU
_LOOK_UP = {
    "name": "look_up",
    "description": "Looks up what kind of thing a word names.",
    "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
}


def alpaca_records(world: World, rng: random.Random, *, count: int) -> list[Record]:
    """instruction, input, output; four in five are multiple choice."""
    makers = (_choice, _choice, _choice, _choice, _plain)
    return [rng.choice(makers)(world, rng) for _ in range(count)]


def _choice(world: World, rng: random.Random) -> Record:
    word = rng.choice(world.taught)
    return {"instruction": "Answer with a letter.", "input": choice(world, word, rng), "output": f"Answer: {word.letter}"}


def _plain(world: World, rng: random.Random) -> Record:
    word = rng.choice(world.words)
    if rng.random() < 0.3:
        return {"instruction": word.told("{text_zh}是什么？"), "input": "", "output": word.told("{text_zh}是{kind_zh}。")}
    return {"instruction": word.told(QUESTIONS[0]), "input": "", "output": word.told("{text} is {a_kind}.")}


def sharegpt_records(world: World, rng: random.Random, *, count: int) -> list[Record]:
    """conversations, system, tools; every other one calls a function."""
    return [(_with_tool if number % 2 else _without_tool)(world, rng) for number in range(count)]


def _without_tool(world: World, rng: random.Random) -> Record:
    turns = []
    for word in rng.sample(world.words, 2):
        turns += [_turn("human", f"What is {word.text}?"), _turn("gpt", f"It is {word.a_kind}.")]
    return {"conversations": turns, "system": SYSTEM, "tools": ""}


def _with_tool(world: World, rng: random.Random) -> Record:
    word = rng.choice(world.words)
    call = {"name": _LOOK_UP["name"], "arguments": {"word": word.text}}
    turns = [
        _turn("human", f"Look up {word.text}."),
        _turn("function_call", json.dumps(call)),
        _turn("observation", json.dumps({"kind": word.kind})),
        _turn("gpt", f"It is {word.a_kind}."),
    ]
    return {"conversations": turns, "system": SYSTEM, "tools": json.dumps([_LOOK_UP])}


def _turn(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


def openai_records(world: World, rng: random.Random, *, count: int) -> list[Record]:
    """messages with role and content."""
    records = []
    for _ in range(count):
        messages = [{"role": "system", "content": SYSTEM}]
        for word in rng.sample(world.words, rng.randint(1, 3)):
            messages += [{"role": "user", "content": f"What is {word.text}?"}, {"role": "assistant", "content": f"It is {word.a_kind}."}]
        records.append({"messages": messages})
    return records


def mmlu_rows(world: World, rng: random.Random) -> Mapping[str, Mapping[str, list[list[str]]]]:
    """``dev`` and ``test`` -> subject -> rows of question, A, B, C, D, answer."""
    rows: dict[str, dict[str, list[list[str]]]] = {"dev": {}, "test": {}}
    for subject in world.options:
        taught, held_out = world.words_of(subject, held_out=False), world.words_of(subject, held_out=True)
        rows["dev"][subject] = [_row(world, word, rng.choice(QUESTIONS)) for word in rng.sample(taught, _EXAMPLES)]
        test = [_row(world, word, question) for word in held_out for question in QUESTIONS]
        rows["test"][subject] = rng.sample(test, len(test))
    return rows


def _row(world: World, word: Word, question: str) -> list[str]:
    return [word.told(question), *world.options[word.subject], word.letter]
