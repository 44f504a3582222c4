"""What is done otherwise than by MindSpeed-LLM's ``evaluation.py``, where its own way gives a wrong score or none."""

from __future__ import annotations

from collections.abc import Sequence

from qwen3_ops.native.mmlu.known import HALF_AN_EXAMPLE, has_the_real_examples, is_known
from qwen3_ops.native.mmlu.pandas_cells import as_pandas_writes
from qwen3_ops.native.mmlu.questions import SHOTS, Subject


def differences(subject: Subject, *, shots: Sequence[int]) -> list[str]:
    """One sentence for each way in which this subject is asked or scored otherwise.

    Args:
        shots: examples in the prompt of each question.
    """
    name = subject.name
    found = [f"{name}: {note}" for note in _of_the_examples(subject)]
    shortened = sum(number < len(subject.examples) for number in shots)
    if shortened:
        found.append(
            f"{name}: {shortened} prompts would exceed --max-position-embeddings and have fewer examples; "
            "the real tool loses this and all further subjects"
        )
    if rewritten := _rewritten(subject):
        found.append(
            f"{name}: cells stay as they are written in the questions {_numbered(rewritten)}; the real tool's table reader makes nan of "
            "None, NA and the like and rewrites a column of numbers (0.50 to 0.5, beside a nan 7 to 7.0) or of true and false"
        )
    spaced = [number for number, question in enumerate(subject.questions) if question.key != question.answer]
    if spaced:
        found.append(f"{name}: spaces around the key of the questions {_numbered(spaced)} do not count; in the real tool they never match")
    return found


def _of_the_examples(subject: Subject) -> list[str]:
    count = len(subject.examples)
    if not is_known(subject):
        return [f"asked with {count} examples; the real tool does not know this subject and skips it"]
    found = []
    if count < SHOTS:
        found.append(f"{count or 'no'} examples in ../dev; the real tool has {SHOTS} built in")
    elif not has_the_real_examples(subject):
        found.append("the examples in ../dev are not those of MMLU, which the real tool has built in")
    if subject.name == HALF_AN_EXAMPLE:
        found.append("the real tool's examples end with half of a sixth, the text of a question that it asks, too")
    return found


def _rewritten(subject: Subject) -> list[int]:
    """Numbers of the questions whose text or options the real tool asks with otherwise; a column's kind depends on the whole file."""
    rows = [(question.text, *question.options) for question in subject.in_file]
    read = zip(*map(as_pandas_writes, zip(*rows, strict=True)), strict=True)
    asked = range(len(subject.questions))
    return [number for number, row, other in zip(asked, rows, read, strict=False) if row != other]


def _numbered(numbers: Sequence[int]) -> str:
    return listed([str(number + 1) for number in numbers])


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
