"""A small closed world, from which every sample of the twin is made: words, and what kind of thing each one names.

Every third word is held out: the pre-training text says what it is like any other word's, but in the
tuning records it is an option of no multiple-choice question. The MMLU test asks for those words
only, so it measures a skill that was learned on other words, not an answer key.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

LETTERS = "ABCD"


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word and the kind of thing it names, in English and in Chinese (``_zh``); ``subject`` is MMLU's."""

    text: str
    kind: str
    text_zh: str
    kind_zh: str
    subject: str
    held_out: bool

    @property
    def a_kind(self) -> str:
        return with_article(self.kind)


@dataclass(frozen=True, kw_only=True)
class MultipleChoice:
    """A question with four options; ``answer`` is the letter of the right one."""

    question: str
    options: tuple[str, ...]
    answer: str

    @property
    def stem(self) -> str:
        """Question and options, a line each."""
        return "\n".join([self.question, *(f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=True))])

    @property
    def row(self) -> list[str]:
        """As in MMLU's CSV files."""
        return [self.question, *self.options, self.answer]


@dataclass(frozen=True, kw_only=True)
class World:
    words: tuple[Word, ...]

    def choose(self, rng: random.Random, *, among: Sequence[Word]) -> tuple[list[Word], int]:
        """Four words of four kinds and the place of one of them, which is drawn from ``among``."""
        right = rng.choice(among)
        same_side = [word for word in self.words if word.held_out == right.held_out and word.kind != right.kind]
        kinds = rng.sample(sorted({word.kind for word in same_side}), len(LETTERS) - 1)
        options = [rng.choice([word for word in same_side if word.kind == kind]) for kind in kinds]
        place = rng.randrange(len(LETTERS))
        options.insert(place, right)
        return options, place

    def ask(self, rng: random.Random, *, among: Sequence[Word]) -> MultipleChoice:
        """Which of four words is of the kind that the right one, drawn from ``among``, is of?"""
        options, place = self.choose(rng, among=among)
        return MultipleChoice(
            question=f"Which of these is {options[place].a_kind}?",
            options=tuple(option.text for option in options),
            answer=LETTERS[place],
        )

    @property
    def taught(self) -> tuple[Word, ...]:
        return tuple(word for word in self.words if not word.held_out)

    @property
    def held_out(self) -> tuple[Word, ...]:
        return tuple(word for word in self.words if word.held_out)


def load_world() -> World:
    """The world that is shipped with the package, ``samples/world.json``."""
    text = resources.files("qwen3_ops.native.tiny").joinpath("samples/world.json").read_text(encoding="utf-8")
    return World(
        words=tuple(
            Word(text=text, kind=kind["name"], text_zh=text_zh, kind_zh=kind["zh"], subject=kind["subject"], held_out=number % 3 == 2)
            for kind in json.loads(text)["kinds"]
            for number, (text, text_zh) in enumerate(kind["words"])
        )
    )


def with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
