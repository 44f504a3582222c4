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
