"""What a run tells beside its curve: validation, test, TensorBoard; and that recomputation changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Train = Callable[[list[str]], Any]


def test_recomputation_changes_nothing(train: Train, sft: list[str], assert_curve: Callable[..., None]) -> None:
    argv = [*sft, "--recompute-granularity", "full", "--recompute-method", "uniform", "--recompute-num-layers", "1"]
    assert_curve(train(argv), "sft_full_fp32", tolerance=1e-5)


def test_validation_and_tensorboard(
    train: Train, sft: list[str], golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: Any,
    assert_curve: Callable[..., None],
) -> None:  # fmt: skip
    argv = edit.changed(sft, split="80,20,0", eval_iters=2, eval_interval=10, tensorboard_dir=tmp_path / "tb")
    run = train(argv)
    assert_curve(run, "sft_eval_tb", tolerance=1e-5)
    stored = (golden / "train" / "sft_eval_tb" / "log_lines.txt").read_text().splitlines()
    printed = capsys.readouterr().out.splitlines()

    def parts(lines: list[str]) -> list[tuple[str, float]]:
        return [(line.split(":")[0], float(line.split("|")[1].split(":")[1])) for line in lines if line.startswith(" validation loss")]

    for (mine, my_loss), (theirs, their_loss) in zip(parts(printed), parts(stored), strict=True):
        assert mine == theirs
        assert my_loss == pytest.approx(their_loss, abs=1e-5)
    assert_scalars(tmp_path / "tb", json.loads((golden / "train" / "sft_eval_tb" / "tensorboard_scalars.json").read_text()))


def assert_scalars(folder: Path, wanted: dict[str, list[list[float]]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) == set(wanted)
    for name, points in wanted.items():
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in points]
        assert all(math.isclose(mine, theirs, abs_tol=1e-5) for (_, mine), (_, theirs) in zip(found, points, strict=True)), name


def test_held_out_parts_are_told_after_training(train: Train, sft: list[str], edit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(edit.changed(sft, split="60,20,20", eval_iters=1, train_iters=2, seq_length=64))
    printed = capsys.readouterr().out
    assert "validation loss at iteration 2 on validation set" in printed
    assert "validation loss at iteration 2 on test set" in printed
    assert run.curve("validation_loss").keys() == run.curve("test_loss").keys() == {2}


def test_what_an_event_tells(train: Train, sft: list[str], edit: Any) -> None:
    run = train(edit.changed(sft, train_iters=3, seq_length=64))
    told = run.events.metrics[-1]
    assert told.keys() == {
        "iteration", "lm_loss", "grad_norm", "learning_rate", "seconds", "tokens_per_second", "memory_bytes", "eta_seconds",
    }  # fmt: skip
    assert told["eta_seconds"] == 0
    assert 50e6 < told["memory_bytes"] < 50e9
    assert run.events.metrics[0]["eta_seconds"] == pytest.approx(2 * run.events.metrics[0]["seconds"], abs=0.2)
    seconds = sum(row["seconds"] for row in run.events.metrics)
    assert sum(row["tokens_per_second"] * row["seconds"] for row in run.events.metrics) == pytest.approx(
        run.outcome.metrics["tokens"], rel=0.01
    )
    assert run.outcome.metrics["seconds"] == pytest.approx(seconds, abs=0.01)


def test_further_scalars_on_request(train: Train, sft: list[str], edit: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    argv = edit.changed(
        edit.without(sft, "--variable-seq-lengths"), train_iters=4, seq_length=32, split="80,20,0", eval_iters=1, eval_interval=4,
        tensorboard_dir=tmp_path, tensorboard_log_interval=2,
    )  # fmt: skip
    more = ["--log-timers-to-tensorboard", "--log-memory-to-tensorboard", "--log-batch-size-to-tensorboard", "--log-throughput"]
    train([*argv, *more, "--log-validation-ppl-to-tensorboard"])
    events = EventAccumulator(str(tmp_path)).Reload()
    names = {name for name in events.Tags()["scalars"] if not name.endswith(" vs samples")}
    assert names == {
        "learning-rate", "lm loss", "loss-scale", "grad-norm", "batch-size", "iteration-time", "throughput", "mem-max-allocated-bytes",
        "lm loss validation", "lm loss validation ppl",
    }  # fmt: skip
    assert [event.step for event in events.Scalars("lm loss")] == [2, 4]
    assert events.Scalars("batch-size")[0].value == 4
    loss, perplexity = (events.Scalars(name)[0].value for name in ("lm loss validation", "lm loss validation ppl"))
    assert perplexity == pytest.approx(math.exp(loss), rel=1e-5)
