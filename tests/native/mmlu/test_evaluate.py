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


REAL_ORDER = ("world_religions", "miscellaneous", "abstract_algebra")  # os.listdir's; here it is alphabetical


def rows_of(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["subject"], row["number"]): row for row in pyarrow.parquet.read_table(folder / "results.parquet").to_pylist()}


def told(lines: list[str]) -> list[str]:
    """The real tool's lines without the logger's name and the time it took."""
    return [text for text in (line.split(":", 2)[2] for line in lines) if "Running Time" not in text]


def base_model(argv: list[str], golden: Path) -> list[str]:
    changed = list(argv)
    for flag, value in (
        ("--load", str(golden / "ckpt" / "mg_tp1pp1")),
        ("--tensor-model-parallel-size", "1"),
        ("--pipeline-model-parallel-size", "1"),
    ):
        changed[changed.index(flag) + 1] = value
    return changed


@pytest.mark.parametrize(
    ("case", "extra"),
    [
        ("mmlu", ["--no-chat-template"]),
        ("mmlu_kv", ["--no-chat-template", "--use-kv-cache"]),
        ("mmlu_b4", ["--no-chat-template", "--evaluation-batch-size", "4"]),
        ("mmlu_base", ["--no-chat-template"]),
        ("mmlu_bf16", ["--no-chat-template", "--bf16"]),
        ("mmlu_chattpl", []),
    ],
)
def test_equals_the_real_tool(
    case: str, extra: list[str], tests_folder: Path, golden: Path, inference_argv: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Prompt lengths, generated text, lines and scores of every question."""
    stored = json.loads((golden / "train" / "mmlu" / f"{case}.json").read_text(encoding="utf-8"))
    argv = base_model(inference_argv, golden) if case == "mmlu_base" else inference_argv
    flags, _ = FLAGS.parse([*argv, "--task", "mmlu", "--max-new-tokens", "2", "--task-data-path", str(tests_folder), *extra])

    outcome = run(flags, Context(events=Events(), output=tmp_path))

    ours = rows_of(tmp_path)
    theirs = iter(stored["items"])
    for subject in REAL_ORDER:
        for number in range(10):
            item, row = next(theirs), ours[subject, number]
            assert (row["prompt_tokens"], row["text"]) == (item["context_length"], item["text"])
    lines = told(stored["stderr_lines"])
    printed = capsys.readouterr().out.splitlines()
    assert sorted(lines) == sorted(line for line in printed if line in set(lines))
    scores = {row.split()[1]: float(row.split()[3]) for row in stored["table"].splitlines()[1:]}
    assert {name: score["accuracy"] for name, score in outcome.metrics["per_subject"].items()} == {
        name: pytest.approx(scores[name]) for name in REAL_ORDER
    }
    assert outcome.metrics["accuracy"] == pytest.approx(scores["total"], abs=1e-6)
    assert outcome.metrics["questions"] == 30
    assert outcome.kind == "evaluation"


def test_equals_the_real_tool_over_three_processes(
    tests_folder: Path, golden: Path, inference_argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first rank tells of every third part, and the scores of the whole."""
    stored = json.loads((golden / "train" / "mmlu" / "mmlu_dp3.json").read_text(encoding="utf-8"))
    evaluate(inference_argv, tests_folder)
    printed = capsys.readouterr().out.splitlines()
    assert set(told(stored["stderr_lines_of_ranks"][0])) <= set(printed)


def test_prompts_are_the_real_tools_word_for_word(golden: Path, tests_folder: Path) -> None:
    stored = json.loads((golden / "train" / "mmlu" / "mmlu.json").read_text(encoding="utf-8"))
    subjects = {subject.name: subject for subject in read_subjects(tests_folder)}
    ours = [subjects[name].prompt(question, shots=5) for name in REAL_ORDER for question in subjects[name].questions]
    assert ours == [item["prompt"] for item in stored["items"]]


def test_edge_inputs_are_asked_right_and_each_difference_is_told(golden: Path, inference_argv: list[str], tmp_path: Path) -> None:
    stored = json.loads((golden / "train" / "mmlu" / "mmlu_edge.json").read_text(encoding="utf-8"))
    write_dev(tmp_path / "data" / "dev", stored["items"])
    folder = tmp_path / "data" / "test"
    folder.symlink_to(golden / "train" / "mmlu" / "inputs" / "edge")
    outcome = evaluate(inference_argv, folder, output=tmp_path)

    subjects = {subject.name: subject for subject in read_subjects(folder)}
    theirs = iter(stored["items"])
    as_pandas_reads = {"None": "nan", "N/A": "nan", "NA": "nan"}
    different = []
    for name in ("management", "world_religions"):
        for number, question in enumerate(subjects[name].questions):
            ours, real = subjects[name].prompt(question, shots=5), next(theirs)["prompt"]
            if ours == real:
                continue
            different.append((name, number))
            for mine, other in zip(ours.splitlines(), real.splitlines(), strict=True):
                letter, _, option = mine.partition(". ")
                assert other in (mine, f"{letter}. {as_pandas_reads.get(option, option)}", f"{mine}.0")
    assert different

    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    told_of = [note.partition(":")[0] for note in summary["differences_from_the_real_tool"]]
    assert told_of == ["management", "my_own_subject", "my_own_subject", "world_religions", "world_religions"]
    assert "skips it" in summary["differences_from_the_real_tool"][1]
    assert "spaces around the key of the questions 3" in summary["differences_from_the_real_tool"][-1]
    assert outcome.metrics["questions"] == 7 + len(subjects["my_own_subject"].questions)
    assert rows_of(tmp_path)["world_religions", 2]["correct"] == "A"


def test_an_over_long_subject_costs_nothing_but_examples(golden: Path, inference_argv: list[str], tmp_path: Path) -> None:
    """The real tool ends after the first subject, without a table and with exit code 0."""
    stored = json.loads((golden / "train" / "mmlu" / "mmlu_long.json").read_text(encoding="utf-8"))
    assert stored["table"] is None
    assert len(stored["items"]) == 10
    complete = json.loads((golden / "train" / "mmlu" / "mmlu.json").read_text(encoding="utf-8"))
    write_dev(tmp_path / "data" / "dev", complete["items"])
    long = [[f"The source says: {'a long story ' * 200}?", "1", "2", "3", "4", "B"]] * 5
    write_test(tmp_path, "high_school_european_history", long).joinpath("high_school_european_history_test.csv").rename(
        tmp_path / "data" / "dev" / "high_school_european_history_dev.csv"
    )
    folder = tmp_path / "data" / "test"
    folder.symlink_to(golden / "train" / "mmlu" / "inputs" / "long")

    outcome = evaluate(inference_argv, folder, output=tmp_path)

    rows = rows_of(tmp_path)
    for number, item in enumerate(stored["items"]):
        row = rows["abstract_algebra", number]
        assert (row["prompt_tokens"], row["text"], row["shots"]) == (item["context_length"], item["text"], 5)
    history = [row for (subject, _), row in rows.items() if subject == "high_school_european_history"]
    assert history
    assert all(0 < row["shots"] < 5 and row["prompt_tokens"] <= 4096 - 2 for row in history)
    assert outcome.metrics["questions"] == 10 + len(history)
    notes = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["differences_from_the_real_tool"]
    assert "the examples in ../dev are not those of MMLU" in notes[0]
    (note,) = notes[1:]
    assert "loses this and all further subjects" in note


def test_every_question_has_its_row(tests_folder: Path, inference_argv: list[str], tmp_path: Path) -> None:
    evaluate(inference_argv, tests_folder, "--max-eval-samples", "2", output=tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / "results.parquet")
    assert table.column_names == [
        "subject", "number", "question", "correct", "predicted", "text", "shots", "prompt_tokens", "is_right"
    ]  # fmt: skip
    assert table.num_rows == 6
    assert all(row["is_right"] == (row["predicted"] == row["correct"]) for row in table.to_pylist())


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


def test_a_subject_without_examples_is_asked_without(inference_argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_test(tmp_path, "virology", [["What is 2 + 3?", "5", "4", "7", "9", "A"]] * 3)
    outcome = evaluate(inference_argv, folder, "--max-eval-samples", "2")
    assert outcome.metrics["questions"] == 2
    assert "virology: no examples in ../dev" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("raw", "questions"),
    [
        ("\ufeffWhat?,1,2,3,4,A\r\n", [("What?", "1", "4", "A")]),
        ('\ufeff"What, now?",1,2,3,4,A', [("What, now?", "1", "4", "A")]),
        ('\n"a ""b""\r\nc",None,"x,y",NA, 4 , B \n\n,,,,,\n', [('a "b"\r\nc', "None", " 4 ", "B")]),
        ("What?,,2,3,,A\rWho?,1,2,3,4,D\r", [("What?", "", "", "A"), ("Who?", "1", "4", "D")]),
    ],
)
def test_tables_as_programs_write_them(raw: str, questions: list[tuple[str, str, str, str]], tmp_path: Path) -> None:
    (tmp_path / "virology_test.csv").write_bytes(raw.encode())
    (subject,) = read_subjects(tmp_path)
    assert [(item.text, item.options[0], item.options[3], item.answer) for item in subject.questions] == questions


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "a subject without questions"),
        ("\ufeff\r\n".encode(), "a subject without questions"),
        (b"question,A,B,C,D,answer\nWhat?,1,2,3,4,A\n", "row 1.* no header"),
        (b"0,What?,1,2,3,4,A\n", "row 1.* no index"),
        (b'"What?,1,2,3,4,A\nWho?,1,2,3,4,B\n', "need quotes"),
        ("O\u00f9?,1,2,3,4,A\n".encode("latin-1"), "can not be read"),
    ],
)
def test_a_table_that_is_none_is_refused_before_the_model_is_loaded(raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "virology_test.csv").write_bytes(raw)
    with pytest.raises(BadInput, match=message):
        read_subjects(tmp_path)


def test_five_examples_are_taken_and_fewer_are_told(inference_argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = ["What is 2 + 3?", "5", "4", "7", "9", "A"]
    for subject, count in (("virology", 8), ("anatomy", 2)):
        folder = write_test(tmp_path / "test", subject, [row])
        write_test(tmp_path / "dev", subject, [row] * count).joinpath(f"{subject}_test.csv").rename(tmp_path / "dev" / f"{subject}_dev.csv")
    (folder / "notes.csv").write_text("a,b\n", encoding="utf-8")
    (folder / "._virology_test.csv").write_bytes(b"\x00\x05\x16\x07\xff")
    evaluate(inference_argv, folder, output=tmp_path)
    assert {name: rows_of(tmp_path)[name, 0]["shots"] for name in ("virology", "anatomy")} == {"virology": 5, "anatomy": 2}
    said = capsys.readouterr().err
    assert "anatomy: 2 examples in ../dev" in said
    assert "virology: the examples in ../dev are not those of MMLU" in said
    note = "not read, the names do not end in _test.csv: ._virology_test.csv, notes.csv; the real tool reads every file"
    assert note in said
    assert note in json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["differences_from_the_real_tool"]
