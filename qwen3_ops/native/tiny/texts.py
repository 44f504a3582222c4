"""Pre-training texts of the small world: what each word names, and looking things up in a list.

A text is a list of pieces; only those that can be known from what stands before them are
learned (which four words a list holds can not). The pieces joined are the plain text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qwen3_ops.native.tiny.world import LETTERS, Word, World

SYSTEM = "You are a helpful assistant."
_PER_TEXT = 4  # statements of one text
_LISTS = 0.65  # part of the texts
_PACE = 3  # all kinds are looked for after this fraction of the texts, 1 / 3


@dataclass(frozen=True, kw_only=True)
class Piece:
    text: str
    learned: bool


Text = list[Piece]


def pretraining_texts(world: World, rng: random.Random, *, count: int) -> list[Text]:
    """``count`` texts, to be read in order: two lists in three, the others statements, questions, conversations, some in Chinese.

    The first lists all look for one kind of thing; the others join one by one. A small model finds
    out how to point at a place in a list far sooner when it need not compare at first.
    """
    kinds = list(dict.fromkeys(word.kind for word in world.words))
    others = (_statements, _questions, _conversation, _statements_zh)
    texts = []
    for number in range(count):
        known = set(kinds[: 1 + number * _PACE * len(kinds) // count])
        if rng.random() < _LISTS:
            texts.append(_lists([word for word in world.words if word.kind in known], world, rng))
        else:
            texts.append(rng.choice(others)(world, rng))
    return texts


def joined(text: Text) -> str:
    return "".join(piece.text for piece in text)


def _lists(among: Sequence[Word], world: World, rng: random.Random) -> Text:
    """A thing of some kind is looked for in a list, twice. Not how MMLU asks: no question, no ``Answer:``."""
    text: Text = []
    for _ in range(2):
        words, place = world.choose(rng, among=among)
        items = "".join(f"{letter}. {word.text}\n" for letter, word in zip(LETTERS, words, strict=True))
        text += [
            Piece(text=f"Look for {words[place].a_kind}.\n{items}Found at", learned=False),
            Piece(text=f" {LETTERS[place]}", learned=True),
            Piece(text=".\n", learned=False),
        ]
    return text


def _statements(world: World, rng: random.Random) -> Text:
    return _each(world, rng, lambda word: (f"We say that {word.text}", f" is {word.a_kind}. "))


def _statements_zh(world: World, rng: random.Random) -> Text:
    return _each(world, rng, lambda word: (word.text_zh, f"是一种{word.kind_zh}。"))


def _questions(world: World, rng: random.Random) -> Text:
    return _each(world, rng, lambda word: (f"What is {word.text}?\n", f"Answer: It is {word.a_kind}.\n"))


def _conversation(world: World, rng: random.Random) -> Text:
    """In Qwen's chat markup, so that its tokens are known before any tuning."""
    opening = Piece(text=f"<|im_start|>system\n{SYSTEM}<|im_end|>\n", learned=False)
    turns = _each(world, rng, lambda word: (_user(f"What is {word.text}?"), f"It is {word.a_kind}.<|im_end|>\n"))
    return [opening, *turns]


def _user(question: str) -> str:
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def _each(world: World, rng: random.Random, tell: Callable[[Word], tuple[str, str]]) -> Text:
    """A few words, each told in two parts; now and then the first is learned too, so that every word is also written."""
    told = [tell(word) for word in rng.sample(world.words, _PER_TEXT)]
    whole = rng.random() < 0.3
    return [Piece(text=part, learned=learned) for pair in told for part, learned in zip(pair, (whole, True), strict=True)]
