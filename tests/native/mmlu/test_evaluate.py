"""MMLU equals the real tool's on its own inputs: prompts, letters, lines, table."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from qwen3_ops.errors import BadInput
from qwen3_ops.events import Events
from qwen3_ops.native.mmlu.flags import FLAGS
from qwen3_ops.native.mmlu.questions import read_subjects
from qwen3_ops.native.mmlu.scoring import read_answer
from qwen3_ops.native.mmlu.verb import run
from qwen3_ops.verbs import Context, Outcome


def evaluate(argv: list[str], folder: Path, *extra: str, output: Path | None = None) -> Outcome:
    command = [*argv, "--no-chat-template", "--task", "mmlu", "--max-new-tokens", "2", "--task-data-path", str(folder), *extra]
    flags, _ = FLAGS.parse(command)
    return run(flags, Context(events=Events(), output=output))


def write_dev(folder: Path, items: list[dict[str, Any]]) -> None:
    """The examples as ``*_dev.csv``, taken back from the recorded prompts."""
    folder.mkdir(parents=True)
    for prompt in {item["prompt"].split("\n\n")[0] for item in items}:
        header, _, examples = prompt.partition("\n")
        subject = header.split("about  ")[1].rstrip(".").replace(" ", "_")
        rows = re.findall(r"(.*?)\nA\. (.*)\nB\. (.*)\nC\. (.*)\nD\. (.*)\nAnswer: (.)(?:\n|$)", examples)
        assert len(rows) == 5
        with (folder / f"{subject}_dev.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)


@pytest.fixture
def tests_folder(golden: Path, tmp_path: Path) -> Path:
    case = json.loads((golden / "train" / "mmlu" / "mmlu.json").read_text(encoding="utf-8"))
    write_dev(tmp_path / "data" / "dev", case["items"])
    folder = tmp_path / "data" / "test"
    folder.symlink_to(golden / "train" / "mmlu" / "inputs" / "test")
    return folder


def test_equals_the_real_tool(
    tests_folder: Path, golden: Path, inference_argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = json.loads((golden / "train" / "mmlu" / "mmlu.json").read_text(encoding="utf-8"))

    outcome = evaluate(inference_argv, tests_folder, output=tmp_path)

    assert (outcome.metrics["correct"], outcome.metrics["questions"]) == (7, 30)
    ours = {(row["subject"], row["number"]): row for row in pyarrow.parquet.read_table(tmp_path / "results.parquet").to_pylist()}
    theirs = iter(case["items"])
    for subject in ("world_religions", "miscellaneous", "abstract_algebra"):  # the order of the real run
        for number in range(10):
            item, row = next(theirs), ours[subject, number]
            assert (row["prompt_tokens"], row["text"]) == (item["context_length"], item["text"])
    printed = capsys.readouterr().out
    for line in case["stderr_lines"]:
        text = line.split(":", 2)[2]
        if "Running Time" not in text:
            assert text in printed.splitlines()
    assert outcome.kind == "evaluation"
    assert json.loads((tmp_path / "summary.json").read_text())["per_subject"]["miscellaneous"]["correct"] == 1


def write_test(folder: Path, subject: str, rows: list[list[str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{subject}_test.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def test_text_that_pandas_takes_for_missing_stays_text(golden: Path) -> None:
    subjects = {subject.name: subject for subject in read_subjects(golden / "train" / "mmlu" / "inputs" / "edge")}
    assert subjects["world_religions"].questions[0].options == ("None", "4", "5", "9")
    assert subjects["world_religions"].questions[2].answer == "A"  # written " A"
    assert subjects["management"].questions[1].options == ("18", "17", "None", "12")
    assert "my_own_subject" in subjects


def test_a_prompt_that_is_too_long_loses_examples_only(
    inference_argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_test(tmp_path / "test", "management", [["What is 2 + 3?", "5", "4", "7", "9", "A"]])
    dev = write_test(tmp_path / "dev", "management", [["What is it? " * 30, "1", "2", "3", "4", "B"]] * 5)
    (dev / "management_test.csv").rename(dev / "management_dev.csv")
    argv = list(inference_argv)
    argv[argv.index("--max-position-embeddings") + 1] = "512"

    evaluate(argv, folder, output=tmp_path)

    (row,) = pyarrow.parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert 0 < row["shots"] < 5
    assert row["prompt_tokens"] <= 510
    assert "1 prompts would exceed" in capsys.readouterr().err


def test_a_subject_without_examples_is_asked_without(
    inference_argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_test(tmp_path, "virology", [["What is 2 + 3?", "5", "4", "7", "9", "A"]] * 3)
    outcome = evaluate(inference_argv, folder, "--max-eval-samples", "2")
    assert outcome.metrics["questions"] == 2
    assert "no examples" in capsys.readouterr().err


@pytest.mark.parametrize("row", [["What?", "1", "2", "3", "A"], ["What?", "1", "2", "3", "4", "E"], ["What?", "1", "2", "3", "4", "AB"]])
def test_a_row_that_is_no_question_is_named(row: list[str], inference_argv: list[str], tmp_path: Path) -> None:
    folder = write_test(tmp_path, "virology", [["What is 2 + 3?", "5", "4", "7", "9", "A"], row])
    with pytest.raises(BadInput, match=r"virology_test\.csv, row 2"):
        evaluate(inference_argv, folder)


def test_an_empty_folder_is_refused(inference_argv: list[str], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no \*_test.csv"):
        evaluate(inference_argv, tmp_path)


@pytest.mark.parametrize(
    ("text", "letter"),
    [(" B", "B"), ("C. because", "C"), ("I think D. or A. yes", "A"), ("b", None), ("", None), ("|", "|"), ("no\nA.", None)],
)
def test_letters_are_read_as_the_real_tool_reads_them(text: str, letter: str | None) -> None:
    assert read_answer(text) == letter


@pytest.mark.parametrize("name", ["09_mmlu_full", "15_mmlu_lora"])
def test_the_runbooks_flags_are_understood(name: str, golden: Path) -> None:
    command = json.loads((golden / "commands" / f"{name}.json").read_text(encoding="utf-8"))
    flags, _ = FLAGS.parse(command["argv"][command["argv"].index("evaluation.py") + 1 :])
    assert (flags.num_layers, flags.max_new_tokens, flags.params_dtype_name) == (40, 2, "bf16")


@pytest.mark.parametrize("extra", [["--prompt-type", "qwen"], ["--alternative-prompt"], ["--task", "ceval"]])
def test_other_protocols_are_refused(extra: list[str], inference_argv: list[str], tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        evaluate([*inference_argv], write_test(tmp_path, "virology", [["What is 2 + 3?", "5", "4", "7", "9", "A"]]), *extra)
