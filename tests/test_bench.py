"""``qwen3-ops bench``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from qwen3_ops.bench.corpus import alpaca, write_alpaca
from qwen3_ops.bench.data import Figures, Run, measure, print_figures
from qwen3_ops.bench.mmlu import measure as measure_mmlu
from qwen3_ops.bench.train import CASES, TWIN, Case, Row
from qwen3_ops.bench.train import Figures as TrainFigures
from qwen3_ops.bench.train import measure as measure_training
from qwen3_ops.bench.train import print_figures as print_training
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


@pytest.mark.slow
def test_questions_asked_in_three_ways_get_the_same_answers():
    figures = measure_mmlu(questions=5, seed=1, shape=TWIN)
    assert len(figures.wall) == len(figures.cpu) == 3


def test_training_steps_of_both_candidates_do_the_same():
    shape = {**CASES["tiny twin, 4 x 128 tokens"].shape, "num_hidden_layers": 1, "vocab_size": 128}
    case = Case(shape=shape, rows=2, length=16, learnt=0.5, steps=4, warm_up=1)
    figures = measure_training(repeat=1, seed=1, cases={"small": case})
    ours, theirs = (figures.rows["small"][candidate] for candidate in ("ours", "transformers"))
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-5)
    assert len(ours.losses) == 5
    assert ours.losses[-1] != ours.losses[0]
    assert min(ours.cpu_per_step, theirs.cpu_per_step, ours.peak_mb, theirs.peak_mb) > 0
    assert ours.utilisation is None  # not every token is learnt
    print_training(figures, {"small": case})


def test_a_device_that_is_not_there():
    with pytest.raises(BadInput, match=r"no such device|no torch_npu"):
        measure_training(repeat=1, seed=1, device="npu")
    with pytest.raises(BadInput, match="no such device"):
        measure_training(repeat=1, seed=1, device="abacus")


def test_slower_or_larger_steps_are_said(capsys):
    title = "the same, 1 x 4096 tokens"
    ours = Row(steps_per_second=2.0, cpu_per_step=1.0, tokens_per_second=8192, peak_mb=700, losses=[1.0], tflops=1.0, utilisation=0.5)
    theirs = ours.model_copy(update={"steps_per_second": 3.0, "cpu_per_step": 2.0, "peak_mb": 1000})
    rows = {title: {"ours": ours, "transformers": theirs}}
    print_training(TrainFigures(machine="m", device="cpu", dtype="fp32", rounds=1, peak_tflops=None, rows=rows))
    said = " ".join(capsys.readouterr().out.split())
    assert "steps a second over transformers': 0.67 (reach: 1) missed" in said
    assert "CPU seconds a step over transformers': 0.50 (reach: 1) reached" in said
    assert "peak memory over transformers': 0.70 (reach: 0.6) missed" in said
