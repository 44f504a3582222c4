"""MMLU's folders: ``<subject>_test.csv`` with the questions, ``../dev/<subject>_dev.csv`` with the examples.

No header; columns question, A, B, C, D, answer. Text is kept as it stands: an option ``None``
or ``NA`` is an option, not a missing value.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen3_ops.errors import BadInput

LETTERS = "ABCD"
SHOTS = 5
_TEST, _DEV = "_test.csv", "_dev.csv"


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row.

    Attributes:
        key: the last column as it stands, perhaps with spaces around the letter.
    """

    text: str
    options: tuple[str, str, str, str]
    key: str

    @property
    def answer(self) -> str:
        return self.key.strip()

    def prompt(self) -> str:
        """Up to and with ``Answer:``."""
        return "\n".join([self.text, *(f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=True)), "Answer:"])


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One file of questions and its examples, which may be none.

    Attributes:
        questions: those to ask.
        in_file: all of the file; ``questions`` are the first of them.
    """

    name: str
    questions: tuple[Question, ...]
    in_file: tuple[Question, ...]
    examples: tuple[Question, ...]

    def prompt(self, question: Question, *, shots: int) -> str:
        """The runbook's direct prompt: the beginning, an empty line, the question."""
        return f"{self.beginning(shots=shots)}\n\n{question.prompt()}"

    def beginning(self, *, shots: int) -> str:
        """Header with two spaces, examples one line break apart.

        Some of MMLU's examples have empty lines. The real tool's have not: the first empty line is the one before the question.
        """
        header = f"The following are multiple choice questions (with answers) about  {self.name.replace('_', ' ')}."
        examples = [f"{example.prompt()} {example.answer}" for example in self.examples[:shots]]
        return re.sub("\n{2,}", "\n", "\n".join([header, *examples]))


def read_subjects(folder: Path, *, limit: int | None = None) -> list[Subject]:
    """Every subject of ``folder``, by name; of each at most ``limit`` questions.

    Raises:
        BadInput: no ``*_test.csv``, or a row that is not a question.
    """
    files = sorted(file for file in folder.glob(f"*{_TEST}") if not _is_hidden(file))
    if not files:
        raise BadInput(
            "no *_test.csv here", value=folder, source="--task-data-path", remedy="Give the folder data/test of the unpacked MMLU archive."
        )
    subjects = []
    for file in files:
        name = file.name.removesuffix(_TEST)
        dev = folder.parent / "dev" / f"{name}{_DEV}"
        questions = tuple(_read(file))
        if not questions:
            raise BadInput("a subject without questions", value=file, remedy="Remove the file or fill it.")
        examples = tuple(_read(dev)[:SHOTS]) if dev.is_file() else ()
        subjects.append(Subject(name=name, questions=questions[:limit], in_file=questions, examples=examples))
    return subjects


def other_files(folder: Path) -> list[str]:
    """Names of further tables in ``folder``, which are not read."""
    tables = [file for file in folder.iterdir() if file.suffix.lower() == ".csv"]
    return sorted(file.name for file in tables if _is_hidden(file) or not file.name.endswith(_TEST))


def _is_hidden(file: Path) -> bool:
    """As macOS leaves beside every file of an archive."""
    return file.name.startswith(".")


def _read(path: Path) -> list[Question]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows: Sequence[list[str]] = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise BadInput("the questions can not be read", value=error, source=path) from error
    return [_question(row, path, number) for number, row in enumerate(rows, start=1) if any(row)]


def _question(row: list[str], path: Path, number: int) -> Question:
    answer = row[-1].strip()
    if len(row) != 6 or len(answer) != 1 or answer not in LETTERS:
        raise BadInput(
            "a row is not question,A,B,C,D,answer with an answer of A to D",
            value=row,
            source=f"{path}, row {number}",
            remedy="MMLU's files have no header and no index; commas and line breaks inside a cell need quotes around it.",
        )
    text, a, b, c, d, key = row
    return Question(text=text, options=(a, b, c, d), key=key)
