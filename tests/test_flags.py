from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from qwen3_ops.errors import BadInput
from qwen3_ops.flags import Flags, get_flag, replace_flag


class Sample(Flags):
    INERT = {"--use-flash-attn": 0, "--spec": 2, "--names": -1}
    REFUSED = {"--fp16": "use --bf16"}

    load_dir: Path
    lr: float = 0.1
    style: Literal["linear", "cosine"] = "linear"
    bf16: bool = False
    targets: tuple[str, ...] = ()
    prefix: str | None = Field(default=None)


def test_values_switches_lists_and_equals_signs_are_read():
    flags, inert = Sample.parse(["--load-dir=/a", "--lr", "-1e-3", "--bf16", "--targets", "x", "y", "--spec", "a", "b", "--use-flash-attn"])
    assert flags == Sample(load_dir=Path("/a"), lr=-1e-3, bf16=True, targets=("x", "y"))
    assert inert == ["--spec", "--use-flash-attn"]


def test_a_flag_given_twice_alike_is_harmless():
    assert Sample.parse(["--load-dir", "/a", "--bf16", "--bf16", "--lr", "1", "--lr", "1"])[0].lr == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--load-dir", "/a", "--lrr", "1"], "--lrr: unknown flag (did you mean --lr?)"),
        (["--load-dir", "/a", "--fp16"], "--fp16: not supported by this engine: use --bf16"),
        ([], "--load-dir: required"),
        (["--load-dir"], "takes exactly one value, given 0"),
        (["--load-dir", "/a", "/b"], "takes exactly one value, given 2"),
        (["--load-dir", "/a", "--bf16", "yes"], "--bf16: takes no value"),
        (["--load-dir", "/a", "--lr", "fast"], "--lr: Input should be a valid number"),
        (["--load-dir", "/a", "--style", "steps"], "'linear' or 'cosine'"),
        (["--load-dir", "/a", "--lr", "1", "--lr", "2"], "given twice with different values: '1' and '2'"),
        (["--load-dir", "/a", "--targets"], "takes at least one value"),
        (["--load-dir", "/a", "--spec", "one"], "takes 2 values"),
        (["stray", "--load-dir", "/a"], "'stray': a value without a flag"),
    ],
)
def test_what_can_not_be_accepted_is_said(argv, said):
    with pytest.raises(BadInput) as error:
        Sample.parse(argv)
    assert said in str(error.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(BadInput) as error:
        Sample.parse(["--lr", "fast", "--fp16", "--nonsense"])
    assert all(text in str(error.value) for text in ("--lr:", "--fp16:", "--nonsense:", "--load-dir: required"))


def test_a_rendered_argv_can_be_read_and_changed():
    argv = ["--load", "/a", "--bf16"]
    assert get_flag(argv, "--load") == "/a"
    assert get_flag(argv, "--save") is None
    assert replace_flag(argv, "--load", "/b") == ["--load", "/b", "--bf16"]
