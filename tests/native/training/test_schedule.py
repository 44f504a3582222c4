"""The learning rate at hand-computed points."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.schedule import Schedule, schedule_of


def schedule(**changes: object) -> Schedule:
    values: dict[str, object] = {
        "style": "cosine", "max_lr": 1.0, "min_lr": 0.1, "init_lr": 0.0, "warmup_steps": 10.0, "decay_steps": 110,
        "wsd_style": "exponential", "wsd_decay_steps": 20,
    }  # fmt: skip
    return Schedule(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("style", "samples", "lr"),
    [
        ("cosine", 0, 0.0),
        ("cosine", 5, 0.5),
        ("cosine", 10, 1.0),
        ("cosine", 60, 0.55),
        ("cosine", 110, 0.1),
        ("cosine", 111, 0.1),
        ("linear", 35, 0.775),
        ("linear", 110, 0.1),
        ("constant", 5, 0.5),
        ("constant", 1000, 1.0),
        ("inverse-square-root", 40, 0.5),
        ("inverse-square-root", 1_000, 0.1),
        ("WSD", 90, 1.0),
        ("WSD", 100, 0.1 + 0.9 * (2 * 0.5**0.5 - 1)),
        ("WSD", 110, 0.1),
        ("WSD", 111, 0.1),
    ],
)
def test_values(style: str, samples: int, lr: float) -> None:
    assert math.isclose(schedule(style=style).lr(samples), lr, abs_tol=1e-12)


def test_warm_up_is_not_rounded() -> None:
    assert schedule(warmup_steps=0.8).lr(0) == 0.0
    assert schedule(warmup_steps=4.4).lr(4) == pytest.approx(4 / 4.4)


def test_a_warm_up_over_the_whole_run() -> None:
    assert schedule(warmup_steps=110.0).lr(110) == 1.0
    assert schedule(warmup_steps=110.0).lr(111) == 0.1


SHAPES = st.fixed_dictionaries(
    {
        "style": st.sampled_from(["constant", "linear", "cosine", "inverse-square-root", "WSD"]),
        "warmup_steps": st.floats(0, 109, allow_nan=False),
        "init_lr": st.sampled_from([0.0, 0.05]),
        "wsd_style": st.sampled_from(["exponential", "linear", "cosine"]),
        "wsd_decay_steps": st.integers(1, 60),
    }
)


@settings(deadline=None)  # the first example imports megatron-core
@given(SHAPES, st.integers(0, 300))
def test_it_is_megatrons(shape: dict[str, Any], samples: int) -> None:
    """Against the class itself, of megatron-core."""
    reference = pytest.importorskip("megatron.core.optimizer_param_scheduler", reason="pip install 'qwen3-ops[mcore]' (Python 3.11)")
    group: dict[str, Any] = {}
    theirs = reference.OptimizerParamScheduler(
        SimpleNamespace(param_groups=[group]), init_lr=shape["init_lr"], max_lr=1.0, min_lr=0.1, lr_warmup_steps=shape["warmup_steps"],
        lr_decay_steps=110, lr_decay_style=shape["style"], start_wd=0.1, end_wd=0.1, wd_incr_steps=110, wd_incr_style="constant",
        wsd_decay_steps=shape["wsd_decay_steps"], lr_wsd_decay_style=shape["wsd_style"],
    )  # fmt: skip
    theirs.step(samples)
    assert schedule(**shape).lr(samples) == pytest.approx(group["lr"], abs=1e-12)


@pytest.mark.parametrize(
    ("by_iterations", "by_samples"),
    [
        ({"lr_warmup_iters": 2}, {"lr_warmup_samples": 8}),
        ({"lr_warmup_fraction": 0.1, "lr_decay_iters": 15}, {"lr_warmup_fraction": 0.1, "lr_decay_samples": 60}),
        ({"lr_wsd_decay_iters": 5}, {"lr_wsd_decay_samples": 20}),
    ],
)
def test_counted_in_samples(sft: list[str], edit: Any, by_iterations: dict[str, Any], by_samples: dict[str, Any]) -> None:
    """``--train-samples 80`` of batches of 4 is ``--train-iters 20``."""

    def parsed(length: str, count: int, flags: dict[str, Any]) -> FLAGS:
        argv = sft[:]
        for flag in ("--train-iters", "--lr-warmup-fraction"):
            at = argv.index(flag)
            del argv[at : at + 2]
        wsd = {"lr_wsd_decay_iters": 3} if length == "train_iters" else {"lr_wsd_decay_samples": 12}
        return FLAGS.parse(edit.changed(argv, lr_decay_style="WSD", **{**wsd, length: count, **flags}))[0]

    one, other = parsed("train_iters", 20, by_iterations), parsed("train_samples", 81, by_samples)
    assert one.iterations == other.iterations == 20
    if "lr_decay_samples" not in by_samples:
        other = other.model_copy(update={"lr_decay_samples": 80})
    assert schedule_of(one) == schedule_of(other)


@given(
    style=st.sampled_from(["constant", "linear", "cosine", "inverse-square-root", "WSD"]),
    warmup=st.floats(0, 110),
    samples=st.integers(0, 500),
)
def test_it_stays_between_its_bounds(style: str, warmup: float, samples: int) -> None:
    lr = schedule(style=style, warmup_steps=warmup).lr(samples)
    assert 0.0 <= lr <= 1.0 + 1e-9
    if samples > warmup:
        assert lr >= 0.1 - 1e-9
