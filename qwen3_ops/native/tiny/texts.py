"""Pre-training texts of the small world: what each word names, and answering by naming the kind.

Questions with lettered options are among them, always answered with the kind, never with its
letter: how MMLU wants an answer is left to tuning.
"""

from __future__ import annotations

import random

from qwen3_ops.native.tiny.world import LETTERS, Word, World

SYSTEM = "You are a helpful assistant."
QUESTIONS = ("What is {text}?", "What kind of thing is {text}?", "The word {text} names what?")

_STATEMENTS = (
    "{text} is {a_kind}.",
    "We say that {text} is {a_kind}.",
    "The word {text} names {a_kind}.",
    "What is {text}? It is {a_kind}.",
    "What kind of thing is {text}? {text} is {a_kind}.",
    "Question: what is {text}?\nAnswer: {kind}",
    "{text_zh}是{kind_zh}。",
    "{text_zh}是什么？{text_zh}是{kind_zh}。",
)
_HEADER = "The following are multiple choice questions (with answers) about  {subject}.\n"
_CHAT = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{{user}}<|im_end|>\n<|im_start|>assistant\n{{assistant}}<|im_end|>\n"


def pretraining_texts(world: World, rng: random.Random, *, count: int) -> list[str]:
    makers = (_statements, _statements, _choices, _choices, _conversation, _conversation, _letters)
    return [rng.choice(makers)(world, rng) for _ in range(count)]


def choice(world: World, word: Word, rng: random.Random) -> str:
    """A question about ``word`` with its subject's options, without the answer."""
    return f"{word.told(rng.choice(QUESTIONS))}\n{world.options_text(word.subject)}"


def _statements(world: World, rng: random.Random) -> str:
    return " ".join(word.told(rng.choice(_STATEMENTS)) for word in rng.sample(world.words, 4))


def _choices(world: World, rng: random.Random) -> str:
    """A test as MMLU prints it, but for the answers."""
    subject = rng.choice(sorted(world.options))
    words = rng.sample([word for word in world.words if word.subject == subject], rng.randint(1, 6))
    *shown, asked = [f"{choice(world, word, rng)}\nAnswer: {word.kind}" for word in words]
    head = _HEADER.format(subject=subject.replace("_", " ")) if rng.random() < 0.7 else ""
    body = "\n".join(shown)
    return f"{head}{body}\n\n{asked}" if shown else f"{head}{asked}"


def _conversation(world: World, rng: random.Random) -> str:
    """In Qwen's chat markup, so that its tokens are known before any tuning."""
    word = rng.choice(world.words)
    if rng.random() < 0.3:
        return _CHAT.format(user=word.told(QUESTIONS[0]), assistant=word.told("{text} is {a_kind}."))
    return _CHAT.format(user=f"Answer the question.\n{choice(world, word, rng)}", assistant=f"Answer: {word.kind}")


def _letters(world: World, rng: random.Random) -> str:
    """Which letter an option has: the letters as words of the language, not as answers."""
    subject = rng.choice(sorted(world.options))
    pairs = list(zip(LETTERS, world.options[subject], strict=True))
    named = "\n".join(f"Option {kind}: {letter}" for letter, kind in rng.sample(pairs, len(pairs)))
    return f"{world.options_text(subject)}\n{named}"
