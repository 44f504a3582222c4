"""A loss that is not a number, or far above the last ones: the policy decides, the records are named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from qwen3_ops.errors import QualityGate
from qwen3_ops.events import Events
from qwen3_ops.native.training import loop
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.policy import Policy
from qwen3_ops.native.training.spikes import SpikeWatch

Train = Callable[[list[str]], Any]


class Warnings(Events):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def warning(self, message: str, **fields: Any) -> None:
        self.said.append(message)


def policy(sft: list[str], *flags: str) -> tuple[Policy, Warnings]:
    events = Warnings()
    return Policy(flags=FLAGS.parse([*sft, *flags])[0], events=events, records_of=lambda numbers: [10 * n for n in numbers]), events


def look(one: Policy, *losses: float, iteration: int = 1) -> bool:
    return one.check_losses(torch.tensor(losses), iteration=iteration)


class TestSpikes:
    def test_noise_and_a_slow_rise_are_none(self) -> None:
        watch = SpikeWatch(6.0)
        generator = torch.Generator().manual_seed(0)
        for number in range(500):
            noise = float(torch.randn((), generator=generator)) * 0.1
            assert watch.look(2.0 + number / 500 + noise) is None

    def test_a_sudden_one_is(self) -> None:
        watch = SpikeWatch(6.0)
        assert all(watch.look(2.0 + 0.01 * (number % 3)) is None for number in range(20))
        spike = watch.look(4.0)
        assert spike is not None
        assert spike.usual == pytest.approx(2.01)
        assert watch.look(2.0) is None

    def test_the_first_losses_are_never_one(self) -> None:
        assert SpikeWatch(6.0).look(1e9) is None

    def test_a_new_level_becomes_usual(self) -> None:
        watch = SpikeWatch(6.0)
        for _ in range(64):
            watch.look(1.0)
        found = [watch.look(3.0) is not None for _ in range(64)]
        assert found[0]
        assert not found[-1]

    def test_the_guilty_micro_batch_is_named(self, sft: list[str]) -> None:
        one, events = policy(sft)
        assert all(look(one, 2.0, 2.1) for _ in range(20))
        assert look(one, 2.0, 9.0, iteration=21), "it goes on"
        assert events.said == ["the loss of iteration 21 is 5.5, the last ones were about 2.05: seen with the records 10"]

    def test_it_may_stop(self, sft: list[str]) -> None:
        one, _ = policy(sft, "--loss-spike-policy", "stop")
        assert all(look(one, 2.0, 2.1) for _ in range(20))
        with pytest.raises(QualityGate, match=r"iteration 21 is 5.5.*records 10"):
            look(one, 2.0, 9.0, iteration=21)

    def test_it_may_be_off(self, sft: list[str]) -> None:
        one, events = policy(sft, "--loss-spike-policy", "off")
        assert all(look(one, 2.0, 2.1) for _ in range(20))
        assert look(one, 2.0, 9e9)
        assert not events.said


class TestNotANumber:
    def test_it_stops(self, sft: list[str]) -> None:
        one, _ = policy(sft)
        with pytest.raises(QualityGate, match="the loss of iteration 1 is not a number: seen with the records 10"):
            look(one, 2.0, float("nan"))
        with pytest.raises(QualityGate, match="the gradient norm of iteration 3 is not a number: seen with the records 0, 10"):
            one.check_norm(torch.tensor(float("inf")), iteration=3)

    def test_or_the_step_is_left_out(
        self, train: Train, sft: list[str], edit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The weights stay, the schedule waits, the samples are gone."""
        real, calls = loop.compute_gradients, []

        def broken_once(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            made = real(*args, **kwargs)
            return dataclasses.replace(made, losses=made.losses * float("nan")) if len(calls) == 2 else made

        argv = edit.changed(sft, train_iters=4, seq_length=48, nan_policy="skip")
        whole = train(argv)
        monkeypatch.setattr(loop, "compute_gradients", broken_once)
        run = train(argv)
        assert any("iteration 2 is not a number, its step is left out" in message for message in run.events.messages)
        assert run.curve("grad_norm").keys() == {1, 3, 4}
        assert run.curve("learning_rate")[4] == whole.curve("learning_rate")[3]
        assert run.outcome.metrics["skipped_iterations"] == 1
        assert "number of nan iterations:   1" in capsys.readouterr().out
        assert run.outcome.metrics["last_loss"] > 0
