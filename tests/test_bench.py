"""``qwen3-ops bench``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from qwen3_ops.bench.corpus import alpaca, write_alpaca
from qwen3_ops.bench.data import Figures, Run, measure, print_figures
from qwen3_ops.cli import app
from qwen3_ops.errors import BadInput


def test_the_records_are_the_same_for_the_same_seed(tmp_path):
    for name in ("a", "b"):
        write_alpaca(tmp_path / name, records=200, seed=5)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert list(alpaca(records=3, seed=5)) != list(alpaca(records=3, seed=6))
    assert 0.4 < sum(not record["input"] for record in alpaca(records=500, seed=5)) / 500 < 0.8


@pytest.mark.slow
def test_figures_of_a_small_run(tokenizer_dir):
    argv = [sys.executable, "-m", "qwen3_ops", "bench", "data", "--records", "1000", "--repeat", "1", "--json"]
    done = subprocess.run([*argv, "--tokenizer", str(tokenizer_dir)], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert (figures["prepared"]["records"], figures["doubled"]["records"]) == (1000, 2000)
    assert figures["prepared"]["tokens"] < figures["doubled"]["tokens"]
    assert figures["bare_wall"] > 0
    assert figures["prepared"]["cpu"] > 0
    assert figures["prepared"]["peak_mb"] > 10


def test_a_missed_mark_is_said(capsys):
    run = Run(records=10, tokens=1000, wall=2.0, cpu=2.0, peak_mb=100)
    doubled = run.model_copy(update={"wall": 4.0, "peak_mb": 800})
    print_figures(
        Figures(
            machine="m",
            tokenizer="t",
            prepared=run,
            doubled=doubled,
            start_up=run,
            plain=doubled,
            bare_load=0.1,
            bare_wall=1.9,
            bare_cpu=1.9,
        )
    )
    said = capsys.readouterr().out
    assert "wall time over the bare tokenizer's: 1.05 (reach: 1.3) reached" in said
    assert "peak memory, MB: 800.00 (reach: 700.0) missed" in said
    assert "start-up, s: 2.00 (reach: 1.5) missed" in said


def test_a_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        measure(tmp_path, records=1000, repeat=1, seed=1)


def test_the_reading_of_logs_is_measured():
    result = CliRunner().invoke(app, ["bench", "log", "--lines", "1000", "--repeat", "1", "--json"])
    figures = json.loads(result.output)
    assert figures["training_lines_per_second"] > 0 and figures["other_lines_per_second"] > 0
