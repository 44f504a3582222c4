"""From generated text to a score, and the lines and the table that MindSpeed-LLM prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# The bar inside the brackets is the original's: an answer "|" is read as such, and is wrong.
_WITH_FULL_STOP = re.compile(r".*(?P<answer>[A|B|C|D])\..*")
_BARE = re.compile(r"(?P<answer>[A|B|C|D])")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One scored question; a row of results.parquet.

    Attributes:
        predicted: the letter read from ``text``; None when there is none.
        shots: examples that fitted into the prompt.
    """

    subject: str
    number: int
    question: str
    correct: str
    predicted: str | None
    text: str
    shots: int
    prompt_tokens: int

    @property
    def is_right(self) -> bool:
        return self.predicted == self.correct


@dataclass(frozen=True, kw_only=True)
class Score:
    correct: int
    questions: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.questions


def read_answer(text: str) -> str | None:
    """The last letter before a full stop in the first line, else the letter that the text begins with."""
    text = text.lstrip()
    found = _WITH_FULL_STOP.match(text) or _BARE.match(text)
    return found["answer"] if found else None


def score(answers: Sequence[Answer]) -> Score:
    return Score(correct=sum(answer.is_right for answer in answers), questions=len(answers))


def by_subject(answers: Sequence[Answer]) -> dict[str, Score]:
    names = dict.fromkeys(answer.subject for answer in answers)
    return {name: score([answer for answer in answers if answer.subject == name]) for name in names}


def answer_line(answer: Answer) -> str:
    if answer.predicted is None:
        return f"xx. AI answer: {answer.text.lstrip()}"
    return f"correct: {answer.correct}, AI: {answer.predicted}, rank: 0"


def subject_line(name: str, result: Score) -> str:
    return f"{name} has {result.correct} corrects in {result.questions} questions, with accuracy {result.accuracy}"


def total_line(total: Score) -> str:
    return f"mmlu acc = {total.correct}/{total.questions}={total.accuracy}"


def table(subjects: dict[str, Score], total: Score) -> str:
    """As pandas prints a frame of subject, question_n, acc: right-aligned, decimals as far as any row needs them."""
    scores = {**subjects, "total": total}
    rows = [("", "subject", "question_n", "acc")]
    accuracies = _decimals([result.accuracy for result in scores.values()])
    for number, ((name, result), accuracy) in enumerate(zip(scores.items(), accuracies, strict=True)):
        rows.append((str(number), name, str(result.questions), accuracy))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]) for row in rows
    )


def _decimals(values: Sequence[float]) -> list[str]:
    texts = [f"{value:.6f}" for value in values]
    while all(text.endswith("0") and not text.endswith(".0") for text in texts):
        texts = [text[:-1] for text in texts]
    return texts
