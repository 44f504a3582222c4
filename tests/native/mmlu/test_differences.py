"""What is asked otherwise than by the real tool is told, and nothing else.

The expected cells are those in the prompts of MindSpeed-LLM 2.1.0's ``evaluation.py`` (pandas 2.3.3) over files with these columns.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qwen3_ops.native.mmlu.differences import differences
from qwen3_ops.native.mmlu.pandas_cells import as_pandas_writes
from qwen3_ops.native.mmlu.questions import Question, Subject


@pytest.mark.parametrize(
    ("column", "asked"),
    [
        (["0.30", "1.50", "7"], ["0.3", "1.5", "7.0"]),
        (["03", " 5", "7 ", "-0"], ["3", "5", "7", "0"]),
        (["1e3", "inf"], ["1000.0", "inf"]),
        (["TRUE", "false"], ["True", "False"]),
        (["TRUE", "7"], ["TRUE", "7"]),
        (["1,000", "2"], ["1,000", "2"]),
        (["3", "9999999999999999999"], ["3", "9999999999999999999"]),
        (["None", "7"], ["nan", "7.0"]),
        (["1e400", "2.50"], ["1e400", "2.50"]),
        (["NA", "blue"], ["nan", "blue"]),
        (["", ""], ["nan", "nan"]),
    ],
)
def test_cells_as_the_real_tool_asks_with_them(column: list[str], asked: list[str]) -> None:
    assert as_pandas_writes(column) == asked


def question(text: str = "What?", option: str = "x", key: str = "A") -> Question:
    return Question(text=text, options=(option, "2", "3", "4"), key=key)


def subject(*questions: Question, name: str = "anatomy", examples: tuple[Question, ...] = ()) -> Subject:
    return Subject(name=name, questions=questions, in_file=questions, examples=examples)


def test_a_columns_kind_depends_on_the_whole_file() -> None:
    numbers = subject(question(option="1.0"), question(option="1.50"), question(option="2.50"))
    (_, note) = differences(numbers, shots=[0] * 3)
    assert "in the questions 2, 3;" in note
    asked_one = replace(numbers, questions=numbers.questions[:1])
    assert len(differences(asked_one, shots=[0])) == 1
    with_text = replace(numbers, in_file=(*numbers.in_file, question(option="many")))
    assert len(differences(with_text, shots=[0] * 3)) == 1


def test_an_unknown_subject_is_told_of_even_with_examples() -> None:
    (note,) = differences(subject(question(), name="my_own", examples=(question(),) * 5), shots=[5])
    assert note == "my_own: asked with 5 examples; the real tool does not know this subject and skips it"


def test_the_half_example_of_the_real_tool_is_told_of() -> None:
    assert any("half of a sixth" in note for note in differences(subject(question(), name="nutrition"), shots=[0]))


def test_empty_lines_inside_of_examples_are_left_out() -> None:
    """As the real tool's examples of econometrics, high_school_statistics and nutrition have it; a question's own stay."""
    asked = subject(question("a\n\nb"), examples=(question("c\n\nd\n"),))
    beginning, rest = asked.prompt(asked.questions[0], shots=1).split("\n\n", 1)
    assert beginning.splitlines()[1:4] == ["c", "d", "A. x"]
    assert rest.startswith("a\n\nb\nA. x")


def test_the_real_examples_are_known(golden: Path) -> None:
    """Five recorded beginnings; an example of another order is told of."""
    from qwen3_ops.native.mmlu.known import _BEGINNINGS, has_the_real_examples

    assert len(_BEGINNINGS) == 57
    items = json.loads((golden / "train" / "mmlu" / "mmlu.json").read_text(encoding="utf-8"))["items"]
    for beginning in {item["prompt"].partition("\n\n")[0] for item in items}:
        name = beginning.partition(".\n")[0].split("about  ")[1].replace(" ", "_")
        recorded = type("Recorded", (), {"name": name, "beginning": lambda self, shots, text=beginning: text})()
        assert has_the_real_examples(recorded)
    assert not has_the_real_examples(subject(question(), examples=(question(),) * 5))
