"""Going on after any end: the same final weights, bit for bit."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen3_ops.errors import BadInput, ExitCode
from qwen3_ops.native.checkpoint.mcore import open_checkpoint, read_tracker
from qwen3_ops.native.checkpoint.tracker import TRACKER
from ranks import Moment, train_apart

Train = Callable[[list[str]], Any]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return open_checkpoint(folder).full_state_dict()


def assert_identical(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def short(sft: list[str], edit: Any) -> list[str]:
    """Six iterations of few tokens, saved after every second."""
    return edit.changed(sft, train_iters=6, seq_length=64, save_interval=2)


@pytest.mark.parametrize("precision", [[], ["--bf16"]])
def test_full_run(train: Train, short: list[str], edit: Any, tmp_path: Path, precision: list[str]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    complete = train([*edit.changed(short, save=whole), *precision])
    with pytest.raises(Exception, match="--exit-interval 4"):
        train([*edit.changed(short, save=parts, exit_interval=4), *precision])
    rest = train([*edit.resumed(short, save=parts, load=parts), *precision])
    assert_identical(whole, parts)
    assert rest.curve("lm_loss") == {number: loss for number, loss in complete.curve("lm_loss").items() if number > 4}
    timeless = {"first_loss", "last_loss", "iterations", "tokens"}
    assert {name: rest.outcome.metrics[name] for name in timeless} == {name: complete.outcome.metrics[name] for name in timeless}
    assert complete.outcome.metrics["iterations"] == 6
    assert complete.outcome.metrics["first_loss"] == complete.curve("lm_loss")[1]
    assert complete.outcome.metrics["last_loss"] == complete.curve("lm_loss")[6]


def test_lora_over_the_base(train: Train, short: list[str], lora: list[str], edit: Any, tmp_path: Path) -> None:
    argv = [*short, *lora, "--lora-ckpt-filter"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(edit.changed(argv, save=whole))
    with pytest.raises(Exception, match="stopped"):
        train(edit.changed(argv, save=parts, exit_interval=2))
    train(edit.resumed(argv, save=parts, lora_load=parts))
    assert_identical(whole, parts)
    assert all("lora" in name for name in weights(parts))


def test_lora_with_the_base_in_one_file(train: Train, short: list[str], lora: list[str], edit: Any, tmp_path: Path) -> None:
    argv = [*short, *lora]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(edit.changed(argv, save=whole))
    with pytest.raises(Exception, match="stopped"):
        train(edit.changed(argv, save=parts, exit_interval=2))
    train(edit.resumed(argv, save=parts, load=parts))
    assert_identical(whole, parts)
    assert "embedding.word_embeddings.weight" in weights(parts)


def test_killed_after_the_last_save(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    """Nothing is left to train, and the outcome is still that of the whole run."""
    save = tmp_path / "save"
    first = train(edit.changed(short, save=save))
    again = train(edit.resumed(short, save=save, load=save))
    assert not again.curve("lm_loss")
    assert again.outcome == first.outcome


def test_a_state_of_an_older_version_tells_of_the_rest_only(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    save = tmp_path / "save"
    with pytest.raises(Exception, match="stopped"):
        train(edit.changed(short, save=save, exit_interval=4))
    path = save / "iter_0000004" / "trainer_state.json"
    state = json.loads(path.read_text())
    del state["totals"]
    path.write_text(json.dumps(state))
    assert train(edit.resumed(short, save=save, load=save)).outcome.metrics["iterations"] == 2


def test_another_schedule_is_refused_unless_asked_for(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    save = tmp_path / "save"
    train(edit.changed(short, save=save))
    longer = edit.resumed(short, save=save, load=save, train_iters=8)
    with pytest.raises(BadInput, match="decay_steps: 24 -> 32"):
        train(longer)
    assert train([*longer, "--override-opt-param-scheduler"]).outcome.facts["iteration"] == 8


def test_without_the_optimizer_state_it_is_refused(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    save = tmp_path / "save"
    train([*edit.changed(short, save=save, train_iters=2), "--no-save-optim"])
    with pytest.raises(BadInput, match="no optimizer state"):
        train(edit.resumed(short, save=save, load=save, train_iters=4))


WRITER, LOOP = "qwen3_ops.native.checkpoint.mcore_writer", "qwen3_ops.native.training.loop"
SAVER = "qwen3_ops.native.training.checkpointing"


@pytest.mark.parametrize(
    ("moment", "saved"),
    [
        pytest.param(Moment(module=LOOP, function="compute_gradients", number=4), 2, id="in a step"),
        pytest.param(Moment(module=WRITER, function="RankFileWriter.finish", number=2), 2, id="weights half written"),
        pytest.param(Moment(module=SAVER, function="_save_tensors", number=3), 2, id="before the optimizer's state"),
        pytest.param(Moment(module=SAVER, function="_save_tensors", number=3, after=True), 2, id="after the optimizer's state"),
        pytest.param(Moment(module=WRITER, function="_replace", number=2), 2, id="before the folder is there"),
        pytest.param(Moment(module=WRITER, function="write_tracker", number=2), 2, id="before the tracker names it"),
        pytest.param(Moment(module=SAVER, function="delete_older", number=2), 4, id="before the older one is deleted"),
        pytest.param(Moment(module=SAVER, function="delete_older", number=2, after=True), 4, id="after it is deleted"),
    ],
)
def test_killed_at_any_moment(train: Train, short: list[str], edit: Any, tmp_path: Path, moment: Moment, saved: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    argv = edit.changed(short, keep_last=1)
    train(edit.changed(argv, save=whole))
    assert train_apart(edit.changed(argv, save=parts), folder=tmp_path / "out", moment=moment).code == -signal.SIGKILL
    assert read_tracker(parts) == saved
    train(edit.resumed(argv, save=parts, load=parts))
    assert_identical(whole, parts)
    assert sorted(path.name for path in parts.iterdir()) == ["iter_0000006", TRACKER], "no leftovers, hidden ones included"


def test_sigterm_saves_and_says_interrupted(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(edit.changed(short, save=whole, save_interval=100))
    asked = Moment(module=LOOP, function="compute_gradients", number=3, signal=signal.SIGTERM)
    child = train_apart(edit.changed(short, save=parts, save_interval=100), folder=tmp_path / "out", moment=asked)
    assert child.code == ExitCode.INTERRUPTED, child.said
    assert "stopped by SIGTERM after iteration 3 of 6" in child.said
    assert read_tracker(parts) == 3
    train(edit.resumed(short, save=parts, load=parts, save_interval=100))
    assert_identical(whole, parts)
