"""When lost records end a run, and where the ledger is then."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from qwen3_ops.errors import BadInput, QualityGate
from qwen3_ops.events import Events
from qwen3_ops.native.data.flags import FLAGS
from qwen3_ops.native.data.verb import run
from qwen3_ops.verbs import Context

ALPACA = ["--handler-name", "AlpacaStyleInstructionHandler", "--prompt-type", "qwen"]
GOOD = json.dumps({"instruction": "i", "input": "", "output": "o"}) + "\n"
LONG = json.dumps({"instruction": "i", "input": "", "output": "long " * 60}) + "\n"
BAD = "{broken\n"


@pytest.mark.parametrize("more", [[], ["--max-dropped-ratio", "0.05"]])
def test_more_than_a_twentieth_lost_of_a_hundred_records(preprocess, write, more):
    assert preprocess(["--input", str(write("a.jsonl", GOOD * 95 + BAD * 5)), *ALPACA, *more]).outcome.metrics["dropped"] == 5
    with pytest.raises(QualityGate, match=r"too many records are lost: 6 of 100 \(6\.0%, allowed are 5\.0%\)"):
        preprocess(["--input", str(write("b.jsonl", GOOD * 94 + BAD * 6)), *ALPACA, *more])


def test_a_handful_is_judged_when_the_share_is_given_and_warned_of_otherwise(preprocess, write):
    argv = ["--input", str(write("a.jsonl", GOOD * 9 + BAD)), *ALPACA]
    assert "10% of the records are lost" in preprocess(argv).ledger()["warnings"][0]
    with pytest.raises(QualityGate, match="1 of 10"):
        preprocess([*argv, "--max-dropped-ratio", "0.09"])


def test_records_dropped_on_demand_do_not_count(preprocess, write):
    argv = [
        "--input",
        str(write("a.jsonl", GOOD * 50 + LONG * 100)),
        *ALPACA,
        "--seq-length",
        "100",
        "--max-dropped-ratio",
        "0",
        "--strict",
    ]
    run = preprocess(argv)
    assert run.outcome.metrics["dropped"] == 100
    assert run.ledger()["dropped_by_reason"]["100 tokens or more"]["asked_for"] is True


def test_strict_names_the_first_lost_record(preprocess, write, tmp_path):
    with pytest.raises(BadInput, match=r"a record is lost: not readable as a record: row 2: \{broken \(from --strict\)"):
        preprocess(["--input", str(write("a.jsonl", GOOD * 2 + BAD + GOOD)), *ALPACA, "--strict"])
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(("text", "error"), [(GOOD * 50 + BAD * 50, QualityGate), (BAD * 3, BadInput)])
def test_the_ledger_of_a_refused_data_set_is_kept(write, tmp_path, tokenizer_dir, capsys, text, error):
    argv = ["--input", str(write("a.jsonl", text)), *ALPACA, "--tokenizer-name-or-path", str(tokenizer_dir)]
    (tmp_path / "side").mkdir()
    events = Events(tmp_path / "events.jsonl")
    with pytest.raises(error, match=r"side/ledger\.json"):
        run(FLAGS.parse([*argv, "--output-prefix", str(tmp_path / "out/d")])[0], Context(events=events, side=tmp_path / "side"))
    ledger = json.loads((tmp_path / "side/ledger.json").read_text())
    lost = text.count("broken")
    assert ledger["dropped_by_reason"]["not readable as a record"]["count"] == lost
    assert f"dropped: not readable as a record: {lost}" in capsys.readouterr().out
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    [event] = [event for event in told if event["event"] == "ledger"]
    assert event["records"] == ledger["records"]
    assert not list((tmp_path / "out").iterdir())


def test_the_exit_status_is_that_of_the_contract(write, tmp_path, tokenizer_dir):
    def status(text, *more):
        argv = ["--input", str(write("a.jsonl", text)), "--output-prefix", str(tmp_path / "set/d"), *ALPACA, *more]
        argv += ["--tokenizer-name-or-path", str(tokenizer_dir)]
        return subprocess.run([sys.executable, "-m", "qwen3_ops", "preprocess-data", *argv], capture_output=True, check=False).returncode

    assert status(GOOD * 50 + BAD * 50) == 3
    assert status(GOOD + BAD, "--strict") == 2
    assert not (tmp_path / "set").exists()
    assert not list(tmp_path.glob(".set*"))
    assert status(GOOD + BAD) == 0
