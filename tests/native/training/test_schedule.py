"""The learning rate at hand-computed points."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_ops.native.training.schedule import Schedule


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
