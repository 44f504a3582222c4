"""What is done otherwise than by MindSpeed-LLM's ``evaluation.py``, where its own way gives a wrong score or none."""

from __future__ import annotations

from collections.abc import Sequence

from qwen3_ops.native.mmlu.questions import SHOTS, Subject

_MISSING_TO_PANDAS = {
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
}


def differences(subject: Subject, *, shots: Sequence[int]) -> list[str]:
    """One sentence for each way in which this subject is asked or scored otherwise.

    Args:
        shots: examples in the prompt of each question.
    """
    name = subject.name
    found = []
    if not subject.examples:
        found.append(f"{name}: no examples in ../dev, asked without any; the real tool skips a subject that it does not know")
    elif len(subject.examples) < SHOTS:
        found.append(f"{name}: {len(subject.examples)} examples in ../dev; the real tool has {SHOTS} of each subject that it knows")
    shortened = sum(number < len(subject.examples) for number in shots)
    if shortened:
        found.append(
            f"{name}: {shortened} prompts would exceed --max-position-embeddings and have fewer examples; "
            "the real tool loses this and all further subjects"
        )
    text = [number + 1 for number, question in enumerate(subject.questions) if _MISSING_TO_PANDAS & {question.text, *question.options}]
    if text:
        found.append(
            f"{name}: None, NA and the like stay text in the questions {_listed(text)}; "
            "the real tool asks with nan and writes the numbers of that column with a decimal"
        )
    spaced = [number + 1 for number, question in enumerate(subject.questions) if question.key != question.answer]
    if spaced:
        found.append(f"{name}: spaces around the key of the questions {_listed(spaced)} do not count; in the real tool they never match")
    return found


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
