"""A small closed world, from which every sample of the twin is made: words, and what kind of thing each names.

A subject has four kinds, and its questions' options stand in one order, as in MMLU's moral_scenarios.
Every third word is held out: the pre-training text says what it is like any other's, but no tuning
record asks for it by letter. The MMLU test asks for those words only, so it measures knowledge of
the base, brought into the answer's form by tuning on other words, not an answer key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

LETTERS = "ABCD"


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word and the kind of thing it names, in English and in Chinese (``_zh``); ``letter`` of its kind in ``subject``."""

    text: str
    kind: str
    text_zh: str
    kind_zh: str
    subject: str
    letter: str
    held_out: bool

    @property
    def a_kind(self) -> str:
        return with_article(self.kind)

    def told(self, template: str) -> str:
        """``template`` with this word's ``{text}``, ``{kind}``, ``{a_kind}``, ``{text_zh}``, ``{kind_zh}``."""
        return template.format(text=self.text, kind=self.kind, a_kind=self.a_kind, text_zh=self.text_zh, kind_zh=self.kind_zh)


@dataclass(frozen=True, kw_only=True)
class World:
    """All words, and each subject's kinds in the order of the letters."""

    words: tuple[Word, ...]
    options: Mapping[str, tuple[str, ...]]

    def options_text(self, subject: str) -> str:
        """The four options, a line each."""
        return "\n".join(f"{letter}. {kind}" for letter, kind in zip(LETTERS, self.options[subject], strict=True))

    def words_of(self, subject: str, *, held_out: bool) -> list[Word]:
        return [word for word in self.words if word.subject == subject and word.held_out == held_out]

    @property
    def taught(self) -> tuple[Word, ...]:
        return tuple(word for word in self.words if not word.held_out)


def load_world() -> World:
    """The world that is shipped with the package, ``samples/world.json``."""
    text = resources.files("qwen3_ops.native.tiny").joinpath("samples/world.json").read_text(encoding="utf-8")
    subjects = json.loads(text)["subjects"]
    return World(
        options={subject["name"]: tuple(kind["name"] for kind in subject["kinds"]) for subject in subjects},
        words=tuple(
            Word(
                text=word, kind=kind["name"], text_zh=word_zh, kind_zh=kind["zh"],
                subject=subject["name"], letter=letter, held_out=number % 3 == 2,
            )
            for subject in subjects
            for letter, kind in zip(LETTERS, subject["kinds"], strict=True)
            for number, (word, word_zh) in enumerate(kind["words"])
        ),
    )  # fmt: skip


def with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
