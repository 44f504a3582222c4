"""``--keep-last``: which checkpoints stay, whatever happens while one is written."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from qwen3_ops.errors import BadInput, Infrastructure
from qwen3_ops.native.checkpoint.mcore import read_tracker
from qwen3_ops.native.checkpoint.rank_writer import RankFileWriter
from qwen3_ops.native.training import checkpointing, retention
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.loop import Trainer

Train = Callable[[list[str]], Any]


@pytest.fixture
def short(sft: list[str], edit: Any, tmp_path: Path) -> list[str]:
    return edit.changed(sft, train_iters=5, seq_length=32, save_interval=1, save=tmp_path / "save")  # type: ignore[no-any-return]


def kept(save: Path) -> list[str]:
    return sorted(path.name for path in save.iterdir() if path.is_dir())


@pytest.mark.parametrize(("keep", "first"), [(1, 5), (2, 4), (9, 1)])
def test_the_newest_stay(train: Train, short: list[str], edit: Any, tmp_path: Path, keep: int, first: int) -> None:
    train(edit.changed(short, keep_last=keep))
    assert kept(tmp_path / "save") == [f"iter_{number:07d}" for number in range(first, 6)]
    assert read_tracker(tmp_path / "save") == 5


def test_what_another_tool_wrote_stays(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    foreign = tmp_path / "save" / "iter_0000002" / "mp_rank_00"
    foreign.mkdir(parents=True)
    retention.delete_older(tmp_path / "save", newest=3, keep_last=1)
    assert foreign.is_dir()


def test_a_run_that_went_back_keeps_what_it_saves(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    """Iterations after the tracker's were given up; they count for nothing."""
    save = tmp_path / "save"
    train(short)
    (save / "latest_checkpointed_iteration.txt").write_text("2")
    with pytest.raises(Exception, match="--exit-interval 3"):
        train(edit.resumed(edit.changed(short, keep_last=1, exit_interval=3), load=save))
    assert read_tracker(save) == 3
    assert kept(save) == ["iter_0000003", "iter_0000004", "iter_0000005"]


def test_a_full_disk_keeps_the_previous_one(
    train: Train, short: list[str], edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one checkpoint kept, there is still one when the next can not be written; the run goes on from it."""
    save, real, calls = tmp_path / "save", checkpointing.save_file, []

    def full_from_the_fifth_on(tensors: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) > 4:
            path.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        real(tensors, path)

    monkeypatch.setattr(checkpointing, "save_file", full_from_the_fifth_on)
    argv = edit.changed(short, keep_last=1)
    with pytest.raises(Infrastructure, match="disk full"):
        train(argv)
    assert (read_tracker(save), kept(save)) == (2, ["iter_0000002"])
    monkeypatch.undo()
    assert train(edit.resumed(argv, load=save)).outcome.metrics["iterations"] == 5
    assert kept(save) == ["iter_0000005"]


def test_a_full_disk_while_the_weights_are_written(
    train: Train, short: list[str], edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, real, calls = tmp_path / "save", RankFileWriter.finish, []

    def full_at_the_third(writer: RankFileWriter) -> None:
        calls.append(writer)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(writer)

    monkeypatch.setattr(RankFileWriter, "finish", full_at_the_third)
    with pytest.raises(Infrastructure, match="disk is full"):
        train(short)
    assert (read_tracker(save), kept(save)) == (2, ["iter_0000001", "iter_0000002"])
    assert train(edit.resumed(short, load=save)).outcome.metrics["iterations"] == 5


@pytest.mark.parametrize(
    ("losses", "best", "stay"),
    [([3, 1, 2, 4, 5], 2, [2, 5]), ([5, 4, 3, 2, 1], 5, [5]), ([1, 1, 1, 1, 1], 5, [5]), ([1, 2, 3, 4, 5], 1, [1, 5])],
)
def test_the_best_stays_as_well(
    train: Train,
    short: list[str],
    edit: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    losses: list[float],
    best: int,
    stay: list[int],
) -> None:
    """By its validation loss; the run is stopped and resumed on the way."""
    measured = iter([*losses, 9.0])
    monkeypatch.setattr(Trainer, "_mean_loss", lambda *args, **kwargs: float(next(measured)))
    argv = [*edit.changed(short, keep_last=1, split="80,20,0", eval_interval=1, eval_iters=1), "--keep-best"]
    with pytest.raises(Exception, match="--exit-interval 3"):
        train(edit.changed(argv, exit_interval=3))
    metrics = train(edit.resumed(argv, load=tmp_path / "save")).outcome.metrics
    assert kept(tmp_path / "save") == [f"iter_{number:07d}" for number in stay]
    assert (metrics["best_iteration"], metrics["best_validation_loss"]) == (best, min(losses))


def test_nothing_is_deleted_before_the_tracker_names_the_new_one(
    train: Train, short: list[str], edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[int] = []

    def delete_older(save: Path, *, newest: int, keep_last: int, keep_best: bool) -> None:
        assert newest == read_tracker(save)
        named.append(newest)

    monkeypatch.setattr(checkpointing, "delete_older", delete_older)
    train(edit.changed(short, keep_last=1))
    assert named == [1, 2, 3, 4, 5]


def test_a_deletion_that_was_killed_is_finished_by_the_next_run(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    save = tmp_path / "save"
    train(edit.changed(short, train_iters=2, lr_decay_iters=5))
    (save / "iter_0000001").rename(save / ".iter_0000001.old")
    train(edit.resumed(edit.changed(short, keep_last=1, lr_decay_iters=5), load=save))
    assert kept(save) == ["iter_0000005"]


def test_it_needs_a_folder(sft: list[str]) -> None:
    with pytest.raises(BadInput, match="--keep-last needs --save"):
        FLAGS.parse([*sft, "--keep-last", "2"])
