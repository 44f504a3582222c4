"""Loss, gradient norm and learning rate of every iteration against the real trainer's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Train = Callable[[list[str]], Any]


def assert_curve(run: Any, golden: Path, case: str, *, tolerance: float, until: int | None = None) -> None:
    rows = json.loads((golden / "train" / case / "metrics.json").read_text())["iterations"]
    wanted = {row["iteration"]: row for row in rows if "lm_loss" in row and (until is None or row["iteration"] <= until)}
    assert wanted
    for name, theirs in (("lm_loss", "lm_loss"), ("grad_norm", "grad_norm"), ("learning_rate", "lr_logged")):
        found = run.curve(name)
        assert until is not None or found.keys() == wanted.keys()
        worst = max(abs(found[iteration] - row[theirs]) for iteration, row in wanted.items())
        assert worst < tolerance, f"{name} differs by {worst}"


def test_full_fine_tuning(train: Train, sft: list[str], golden: Path) -> None:
    assert_curve(train(sft), golden, "sft_full_fp32", tolerance=1e-5)


def test_sharded_checkpoint_changes_nothing(train: Train, sft: list[str], golden: Path, edit: Any) -> None:
    layout = ["--tensor-model-parallel-size", "2", "--pipeline-model-parallel-size", "2"]
    argv = [*edit.changed(sft, load=golden / "ckpt" / "mg_tp2pp2"), *layout]
    assert_curve(train(argv), golden, "sft_full_fp32", tolerance=1e-5)


def test_linear_decay(train: Train, sft: list[str], golden: Path, edit: Any) -> None:
    argv = edit.changed(sft, lr_decay_style="linear", lr_warmup_fraction=0.01)
    assert_curve(train(argv), golden, "sft_linear", tolerance=1e-5)


def test_fixed_length_changes_nothing(train: Train, sft: list[str], golden: Path, edit: Any) -> None:
    argv = edit.without(sft, "--variable-seq-lengths")
    assert_curve(train(argv), golden, "sft_full_fp32", tolerance=1e-5)


def test_recomputation_changes_nothing(train: Train, sft: list[str], golden: Path) -> None:
    argv = [*sft, "--recompute-granularity", "full", "--recompute-method", "uniform", "--recompute-num-layers", "1"]
    assert_curve(train(argv), golden, "sft_full_fp32", tolerance=1e-5)


def test_bf16_with_fp32_masters(train: Train, sft: list[str], golden: Path) -> None:
    run = train([*sft, "--bf16"])
    rows = json.loads((golden / "train" / "sft_full_bf16" / "metrics.json").read_text())["iterations"]
    assert max(abs(run.curve("lm_loss")[row["iteration"]] - row["lm_loss"]) for row in rows) < 1e-3


def test_lora_from_the_stored_weights(train: Train, sft: list[str], golden: Path, initial_lora: Path, lora: list[str]) -> None:
    run = train([*sft, *lora, "--lora-load", str(initial_lora)])
    assert_curve(run, golden, "lora_fp32", tolerance=1e-5)
    assert run.outcome.metrics["trainable_parameters"] == 65_536
    assert run.outcome.facts["lora_target_modules"] == ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]


def test_pretraining_until_the_real_mask_is_damaged(train: Train, pretrain: list[str], golden: Path, edit: Any) -> None:
    """Iterations 2 to 4: afterwards the real tool leaves out a position that is not padding."""
    assert_curve(train(edit.changed(pretrain, train_iters=11)), golden, "pretrain_fp32", tolerance=1e-5, until=4)


def test_validation_and_tensorboard(
    train: Train, sft: list[str], golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: Any
) -> None:
    argv = edit.changed(sft, split="80,20,0", eval_iters=2, eval_interval=10, tensorboard_dir=tmp_path / "tb")
    run = train(argv)
    assert_curve(run, golden, "sft_eval_tb", tolerance=1e-5)
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


@pytest.mark.slow
def test_lora_restarted_with_finetune(
    train: Train, sft: list[str], golden: Path, initial_lora: Path, tmp_path: Path, edit: Any, lora: list[str]
) -> None:
    """``--lora-load`` with --finetune: the weights of iteration 10, the schedule from the beginning."""
    first = [*sft, *lora, "--lora-load", str(initial_lora), "--lora-ckpt-filter", "--save", str(tmp_path / "save")]
    train(edit.changed(first, save_interval=10, train_iters=10, lr_decay_iters=20))
    argv = [*sft, *lora, "--lora-load", str(tmp_path / "save"), "--lora-ckpt-filter"]
    assert_curve(train(argv), golden, "lora_restart_with_finetune", tolerance=1e-5)


def test_held_out_parts_are_told_after_training(train: Train, sft: list[str], edit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(edit.changed(sft, split="60,20,20", eval_iters=1, train_iters=2, seq_length=64))
    printed = capsys.readouterr().out
    assert "validation loss at iteration 2 on validation set" in printed
    assert "validation loss at iteration 2 on test set" in printed
    assert run.curve("validation_loss").keys() == run.curve("test_loss").keys() == {2}
