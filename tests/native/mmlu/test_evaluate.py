"""MMLU equals the real tool's on its own inputs: prompts, letters, lines, table."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from qwen3_ops.errors import BadInput
from qwen3_ops.events import Events
from qwen3_ops.native.mmlu.flags import FLAGS
from qwen3_ops.native.mmlu.verb import run
from qwen3_ops.verbs import Context, Outcome


def evaluate(argv: list[str], folder: Path, *extra: str, output: Path | None = None) -> Outcome:
    command = [*argv, "--no-chat-template", "--task", "mmlu", "--max-new-tokens", "2", "--task-data-path", str(folder), *extra]
    flags, _ = FLAGS.parse(command)
    return run(flags, Context(events=Events(), output=output))


def write_dev(folder: Path, items: list[dict[str, Any]]) -> None:
    """The examples as ``*_dev.csv``, taken back from the recorded prompts."""
    folder.mkdir(parents=True)
    for item in items:
        header, _, block = item["prompt"].split("\n\n")[0].partition("\n")
        subject = header.split("about  ")[1].rstrip(".").replace(" ", "_")
        with (folder / f"{subject}_dev.csv").open("w", encoding="utf-8", newline="") as file:
            for example in block.split("\nAnswer: ")[0:-1]:
                lines = example.split("\n")
                lines = lines if "A. " not in lines[0] else lines[1:]
                options = [line[3:] for line in lines[-4:]]
                rest = block.split(example + "\nAnswer: ", 1)[1]
                question = "\n".join(lines[:-4])
                csv.writer(file).writerow([question[2:] if question[1:2] == "\n" else question, *options, rest[0]])


@pytest.fixture
def tests_folder(golden: Path, tmp_path: Path) -> Path:
    case = json.loads((golden / "train" / "mmlu" / "mmlu.json").read_text(encoding="utf-8"))
    write_dev(tmp_path / "data" / "dev", case["items"])
    folder = tmp_path / "data" / "test"
    folder.symlink_to(golden / "train" / "mmlu" / "inputs" / "test")
    return folder


def test_equals_the_real_tool(tests_folder: Path, golden: Path, inference_argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
