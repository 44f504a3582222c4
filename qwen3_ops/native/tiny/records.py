"""Tuning records of the small world in the three formats of the runbook, and MMLU's questions.

Multiple-choice questions are asked about taught words only; the held-out ones are left to MMLU's test.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from qwen3_ops.native.tiny.texts import SYSTEM
from qwen3_ops.native.tiny.world import World

Record = dict[str, Any]

_GIVE_LETTER = "Give the letter of the right answer."
_EXAMPLES = 5  # of a subject, as in MMLU
_ASKED = 6  # times that the test asks for each held-out word, with other options
_LOOK_UP = {
    "name": "look_up",
    "description": "Looks up what kind of thing a word names.",
    "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
}


def alpaca_records(world: World, rng: random.Random, *, count: int) -> list[Record]:
    """instruction, input, output, system, history; two in three are multiple choice."""
    makers = (_exam, _dialogue, _plain, _plain_zh)
    return [{"system": "", "history": [], **rng.choices(makers, weights=(3, 3, 2, 1))[0](world, rng)} for _ in range(count)]


def _exam(world: World, rng: random.Random) -> Record:
    """A question to answer, below some that are solved, written as in MMLU."""
    *solved, last = [world.ask(rng, among=world.taught) for _ in range(rng.randint(1, 1 + _EXAMPLES))]
    lines = [*(f"{question.stem}\nAnswer: {question.answer}" for question in solved), last.stem]
    return {"instruction": _GIVE_LETTER, "input": "\n".join(lines), "output": f"Answer: {last.answer}"}


def _dialogue(world: World, rng: random.Random) -> Record:
    """Question after question, the earlier ones in the history."""
    turns = [[question.stem, f"Answer: {question.answer}"] for question in (world.ask(rng, among=world.taught) for _ in range(rng.randint(1, 4)))]
    *history, (stem, answer) = turns
    return {"instruction": stem, "input": "", "output": answer, "history": history}


def _plain(world: World, rng: random.Random) -> Record:
    word = rng.choice(world.words)
    return {"instruction": f"What is {word.text}?", "input": "", "output": f"It is {word.a_kind}."}


def _plain_zh(world: World, rng: random.Random) -> Record:
    word = rng.choice(world.words)
    return {"instruction": f"{word.text_zh}是什么？", "input": "", "output": f"{word.text_zh}是一种{word.kind_zh}。"}


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
    subjects = sorted({word.subject for word in world.words})
    dev = {
        subject: [world.ask(rng, among=[word for word in world.taught if word.subject == subject]).row for _ in range(_EXAMPLES)]
        for subject in subjects
    }
    test = {
        subject: [world.ask(rng, among=[word]).row for word in world.held_out if word.subject == subject for _ in range(_ASKED)]
        for subject in subjects
    }
    return {"dev": dev, "test": test}
