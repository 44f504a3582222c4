"""fp16: Megatron's loss scale, and a run with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen3_ops.errors import QualityGate
from qwen3_ops.native.checkpoint.mcore import open_checkpoint
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.loss_scale import LossScale

Train = Callable[[list[str]], Any]


def scales(steps: str, **changes: Any) -> list[float]:
    """The scale after each step; ``x`` overflows."""
    scale = LossScale(**{"scale": 16.0, "dynamic": True, "minimum": 1.0, "window": 3, "hysteresis": 2, **changes})
    found = []
    for step in steps:
        if step == "x":
            scale.overflowed()
        else:
            scale.stepped()
        found.append(scale.scale)
    return found


def test_the_first_overflow_is_forgiven_the_next_are_not() -> None:
    assert scales("xxx") == [16, 8, 4]
    assert scales("x.x.") == [16, 16, 8, 8], "only growth brings patience back"


def test_it_grows_after_a_window_without_overflow() -> None:
    assert scales("......") == [16, 16, 32, 32, 32, 64]
    assert scales("..x...x") == [16, 16, 16, 16, 16, 32, 32]


def test_at_the_lower_bound_the_run_ends() -> None:
    with pytest.raises(QualityGate, match="lowest loss scale"):
        scales("xxxxx", scale=4.0, hysteresis=1)


def test_the_state_goes_round() -> None:
    one = LossScale(scale=16.0, dynamic=True, window=3)
    one.overflowed()
    one.stepped()
    other = LossScale(scale=2.0, dynamic=True, window=3)
    other.restore(one.state())
    assert other.state() == one.state()
    assert LossScale().state() is None


def test_flags(sft: list[str]) -> None:
    assert LossScale.of(FLAGS.parse(sft)[0]).scale == 1.0
    dynamic = LossScale.of(FLAGS.parse([*sft, "--fp16"])[0])
    assert (dynamic.scale, dynamic.dynamic, dynamic.hysteresis, dynamic.window) == (2.0**32, True, 2, 1000), "Megatron's defaults"
    constant = LossScale.of(FLAGS.parse([*sft, "--fp16", "--loss-scale", "128"])[0])
    assert (constant.scale, constant.dynamic) == (128.0, False)


@pytest.fixture
def short(sft: list[str], edit: Any) -> list[str]:
    return [*edit.changed(sft, train_iters=8, seq_length=48, initial_loss_scale=2.0**19), "--fp16"]


def test_a_run(train: Train, short: list[str], edit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps that overflow are left out, the schedule waits for them; the rest is near fp32. A resumed run keeps the scale."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run = train(edit.changed(short, save=whole, save_interval=100))
    lines = [line for line in capsys.readouterr().out.splitlines() if "consumed samples" in line]
    scale, skipped = run.curve("loss_scale"), run.outcome.metrics["skipped_iterations"]
    assert 1 < skipped < 6, scale
    assert scale[1] == 2.0**19, "hysteresis"
    assert scale[8] == 2.0 ** (20 - skipped)
    assert "number of skipped iterations:   1" in lines[0]
    assert "lm loss:" not in lines[0]
    assert "grad norm" not in lines[0]
    assert "loss scale: " + f"{scale[8]:.1f}" in lines[7]
    full = train(edit.changed(edit.without(short, "--fp16"), train_iters=8 - skipped, lr_decay_iters=8))
    assert run.curve("learning_rate")[8] == full.curve("learning_rate")[8 - skipped]
    norms = run.curve("grad_norm")
    assert len(norms) == 8 - skipped
    with pytest.raises(Exception, match="--exit-interval 3"):
        train(edit.changed(short, save=parts, save_interval=100, exit_interval=3))
    train(edit.resumed(short, save=parts, load=parts, save_interval=100))
    one, other = open_checkpoint(whole), open_checkpoint(parts)
    assert one.dtype.name == "float16"
    assert all(torch.equal(tensor, other.full_state_dict()[name]) for name, tensor in one.full_state_dict().items())


def test_it_is_near_fp32(train: Train, short: list[str], edit: Any) -> None:
    argv = edit.changed(short, initial_loss_scale=1024, train_iters=4)
    half, full = train(argv), train(edit.without(argv, "--fp16"))
    for name, tolerance in (("lm_loss", 5e-3), ("grad_norm", 2e-2)):
        for iteration, value in full.curve(name).items():
            assert half.curve(name)[iteration] == pytest.approx(value, abs=tolerance)


def test_small_gradients_survive() -> None:
    """Words that do not occur have gradients near fp16's least number; scaled they are kept."""
    from qwen3_ops.native.training.loss import token_losses_mean

    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(1, 64, 8, generator=generator)
    weight, labels = torch.randn(40_000, 8, generator=generator) * 0.01, torch.randint(0, 40_000, (1, 64), generator=generator)

    def gradient(dtype: torch.dtype, scale: float) -> torch.Tensor:
        parameter = weight.detach().clone().to(dtype).requires_grad_()
        (token_losses_mean(hidden.to(dtype), parameter, labels, gradient_scale=scale) * scale).backward()
        return parameter.grad.float() / scale

    never = torch.ones(len(weight), dtype=torch.bool).index_fill(0, labels.flatten(), False)
    wanted = gradient(torch.float32, 1.0)[never]
    lost, kept = ((gradient(torch.float16, scale)[never] - wanted).norm() / wanted.norm() for scale in (1.0, 4096.0))
    assert kept < 1e-3
    assert lost > 5e-2
