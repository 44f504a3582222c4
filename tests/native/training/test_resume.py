"""Going on after any end: the same final weights, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen3_ops.errors import BadInput, ExitCode
from qwen3_ops.native.checkpoint.mcore import open_checkpoint, read_tracker

Train = Callable[[list[str]], Any]

_CHILD = """
import sys
from qwen3_ops.errors import OpsError
from qwen3_ops.events import Events
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.verb import run
from qwen3_ops.verbs import Context
try:
    run(FLAGS.parse(sys.argv[1:])[0], Context(events=Events()))
except OpsError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


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


def start(argv: list[str]) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for(child: subprocess.Popen[str], text: str) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if text in line:
            return
    raise AssertionError(f"{text!r} never came: {child.stderr.read() if child.stderr else ''}")


@pytest.mark.parametrize("moment", ["saving checkpoint at iteration       4", "iteration        5/"])
def test_killed_at_once(train: Train, short: list[str], edit: Any, tmp_path: Path, moment: str) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(edit.changed(short, save=whole))
    child = start(edit.changed(short, save=parts))
    wait_for(child, moment)
    child.kill()
    child.wait()
    assert read_tracker(parts) in (2, 4)
    (parts / ".iter_0000004.abcd.tmp" / "mp_rank_00").mkdir(parents=True)  # as a save that is killed leaves it
    train(edit.resumed(short, save=parts, load=parts))
    assert_identical(whole, parts)
    assert not list(parts.glob(".*")), "leftovers of the killed save are removed"


def test_sigterm_saves_and_says_interrupted(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(edit.changed(short, save=whole, save_interval=100))
    child = start(edit.changed(short, save=parts, save_interval=100))
    wait_for(child, "iteration        3/")
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate()
    assert child.returncode == ExitCode.INTERRUPTED, errors
    assert "stopped by SIGTERM after iteration" in errors
    assert read_tracker(parts) in (3, 4, 5)
    train(edit.resumed(short, save=parts, load=parts, save_interval=100))
    assert_identical(whole, parts)
