"""Several processes train what one trains: data parallel and FSDP2, over gloo."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from qwen3_ops.artifacts import read_manifest
from qwen3_ops.errors import ExitCode
from qwen3_ops.events import read_events
from qwen3_ops.native.checkpoint.mcore import open_checkpoint, read_tracker
from qwen3_ops.native.checkpoint.tracker import TRACKER
from qwen3_ops.native.training.flags import FLAGS
from ranks import Ended, Moment, train_together

Train = Callable[[list[str]], Any]
FP32 = 1e-5

FSDP = ["--use-torch-fsdp2"]
needs_fsdp2 = pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="FSDP2 of torch 2.6 fails on the CPU")


@pytest.fixture
def short(sft: list[str], edit: Any) -> list[str]:
    """Four iterations of few tokens, saved after every second."""
    return edit.changed(sft, train_iters=4, seq_length=64, save_interval=2)  # type: ignore[no-any-return]


def ended_well(ranks: list[Ended]) -> Ended:
    assert [rank.code for rank in ranks] == [0] * len(ranks), ranks[-1].said + ranks[0].said
    assert not any(rank.metrics for rank in ranks[1:]), "the first process alone tells"
    assert not any("iteration" in rank.said for rank in ranks[1:])
    return ranks[0]


def optimizer_state(save: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted(save.glob("iter_*"))[-1] / "optimizer.safetensors")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], *, tolerance: float) -> None:
    assert one.keys() == other.keys()
    worst = max(float((one[name].float() - other[name].float()).abs().max()) for name in one)
    assert worst <= tolerance, worst


def assert_same_checkpoint(one: Path, other: Path, *, tolerance: float = 0.0) -> None:
    """Files, weights and optimizer: the layout on the disk does not tell how many processes made it."""
    assert [path.relative_to(one) for path in sorted(one.rglob("*"))] == [path.relative_to(other) for path in sorted(other.rglob("*"))]
    assert_same(open_checkpoint(one).full_state_dict(), open_checkpoint(other).full_state_dict(), tolerance=tolerance)
    assert_same(optimizer_state(one), optimizer_state(other), tolerance=tolerance)


def test_data_parallel_is_the_stored_run(sft: list[str], tmp_path: Path, assert_curve: Callable[..., None]) -> None:
    """``sft_dp2_fp32``: two processes there, two here."""
    assert_curve(ended_well(train_together(sft, size=2, folder=tmp_path)), "sft_dp2_fp32", tolerance=FP32)


@needs_fsdp2
def test_fsdp_is_the_stored_run(sft: list[str], tmp_path: Path, assert_curve: Callable[..., None]) -> None:
    recompute = ["--recompute-granularity", "full", "--recompute-method", "uniform", "--recompute-num-layers", "2"]
    first = ended_well(train_together([*sft, *FSDP, *recompute], size=2, folder=tmp_path))
    assert_curve(first, "sft_dp2_fp32", tolerance=FP32)
    parameters = FLAGS.parse(sft)[0].model_spec().num_parameters
    assert f"held by the first process: {parameters // 2:,}" in first.said


@pytest.mark.parametrize("how", [pytest.param([], id="data-parallel"), pytest.param(FSDP, id="fsdp2", marks=needs_fsdp2)])
@pytest.mark.parametrize("kind", ["full", "full_bf16", "lora_bf16"])
def test_checkpoints_are_those_of_one_process(
    train: Train, short: list[str], lora: list[str], edit: Any, tmp_path: Path, how: list[str], kind: str
) -> None:
    """Whole run, and one whose parts were trained by one process and by two."""
    argv = [*short, *{"full": [], "full_bf16": ["--bf16"], "lora_bf16": [*lora, "--lora-ckpt-filter", "--bf16"]}[kind]]
    alone = train(edit.changed(argv, save=tmp_path / "alone"))
    pair = ended_well(train_together([*edit.changed(argv, save=tmp_path / "pair"), *how], size=2, folder=tmp_path / "out"))
    tolerance = 1e-2 if "bf16" in argv[-1] else 1e-5
    for iteration, loss in alone.curve("lm_loss").items():
        assert pair.curve("lm_loss")[iteration] == pytest.approx(loss, abs=tolerance)
    assert_same_checkpoint(tmp_path / "alone", tmp_path / "pair", tolerance=tolerance)
    assert pair.outcome["metrics"]["tokens"] == alone.outcome.metrics["tokens"]


@needs_fsdp2
def test_going_on_is_bit_identical_and_by_any_number_of_processes(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    """With a validation before each save."""
    whole, parts, alone = tmp_path / "whole", tmp_path / "parts", tmp_path / "alone"
    short = edit.changed(short, split="80,20,0", eval_interval=2, eval_iters=1)
    ended_well(train_together([*edit.changed(short, save=whole), *FSDP], size=2, folder=tmp_path / "out"))
    stopped = train_together([*edit.changed(short, save=parts, exit_interval=2), *FSDP], size=2, folder=tmp_path / "out")
    assert [rank.code for rank in stopped] == [ExitCode.INTERRUPTED] * 2, stopped[0].said
    shutil.copytree(parts, alone)
    ended_well(train_together([*edit.resumed(short, load=parts, save=parts), *FSDP], size=2, folder=tmp_path / "out"))
    assert_same_checkpoint(whole, parts)
    train(edit.resumed(short, load=alone, save=alone))
    assert_same_checkpoint(whole, alone, tolerance=1e-5)


def test_sigterm_to_one_process_stops_all(short: list[str], edit: Any, tmp_path: Path) -> None:
    save = tmp_path / "save"
    asked = Moment(module="qwen3_ops.native.training.loop", function="compute_gradients", number=1, signal=signal.SIGTERM)
    ranks = train_together(edit.changed(short, save=save), size=2, folder=tmp_path / "out", moment=asked)
    assert [rank.code for rank in ranks] == [ExitCode.INTERRUPTED] * 2, ranks[0].said
    assert read_tracker(save) == 1


def test_all_refuse_to_write_over_a_run(short: list[str], edit: Any, tmp_path: Path) -> None:
    save = tmp_path / "save"
    save.mkdir()
    (save / TRACKER).write_text("2")
    ranks = train_together(edit.changed(short, save=save), size=2, folder=tmp_path / "out")
    assert [rank.code for rank in ranks] == [ExitCode.BAD_INPUT] * 2, ranks[1].said


def test_a_save_that_fails_ends_all(short: list[str], edit: Any, tmp_path: Path) -> None:
    save = tmp_path / "save"
    save.write_text("in the way")
    ranks = train_together(edit.changed(short, save=save), size=2, folder=tmp_path / "out")
    assert [rank.code for rank in ranks] == [ExitCode.BAD_INPUT, ExitCode.INFRASTRUCTURE], ranks[0].said + ranks[1].said


def test_torchrun(short: list[str], edit: Any, tmp_path: Path) -> None:
    """The command line: one manifest, one list of events, one log."""
    save, events = tmp_path / "save", tmp_path / "events.jsonl"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "qwen3_ops", "train"]
    environment = {**os.environ, "QWEN3_OPS_EVENTS": str(events), "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([*launcher, *edit.changed(short, save=save)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(save)
    assert manifest is not None
    assert manifest.metrics["iterations"] == 4
    steps = [event["step"] for event in read_events(events) if event["event"] == "metric"]
    assert steps == [1, 2, 3, 4]
    assert done.stdout.count("iteration        4/") == 1
