"""A script of MindSpeed-LLM as text: which flags it is given, in which order, with what in the blanks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qwen3_ops.config import RunConfig
from qwen3_ops.model import ModelSpec
from qwen3_ops.stages.paths import Paths

Flag = tuple[str, ...]
"""A flag's name and its values."""

_BLANK = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a rendering knows."""

    run: RunConfig
    model: ModelSpec
    paths: Paths


@dataclass(frozen=True, kw_only=True)
class Habit:
    """A field for which the runbook's script has a value of its own.

    Attributes:
        flag: or environment variable that the field ends in.
        value: what the script has; runbook fidelity starts from it.
        why: the recipes have another.
    """

    flag: str
    field: str
    value: Any
    why: str


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A known fault of a script and its mend.

    Attributes:
        values: what must follow ``flag``; None: the flag must go.
        applies: whether the fault can be there.
        told: list the mend even where nothing in the argv had to change for it.
    """

    flag: str
    why: str
    values: Callable[[Site], Sequence[str] | None]
    applies: Callable[[Site], bool] = lambda site: True
    told: bool = False


@dataclass(frozen=True, kw_only=True)
class Script:
    """One script.

    Attributes:
        name: which one it is, in every version.
        program: file below MindSpeed-LLM's folder.
        flags: as in the runbook's shell script; ``{blank}`` stands for the values that ``blanks.py`` knows under that name.
        env: variables of a script that runs without devices.
        native: flags of ours that the native engine wants besides.
    """

    name: str
    program: str
    flags: str
    env: Mapping[str, str] = field(default_factory=dict)
    habits: tuple[Habit, ...] = ()
    faults: tuple[Fault, ...] = ()
    native: str = ""


def fill(text: str, blanks: Mapping[str, Sequence[str]]) -> list[str]:
    """The tokens of ``text``. A blank that is a whole token becomes any number of them, one inside a token exactly one.

    >>> fill("--lr {lr} {bf16} --port={port}", {"lr": ["1"], "bf16": [], "port": ["3000"]})
    ['--lr', '1', '--port=3000']
    """
    argv: list[str] = []
    for token in text.split():
        whole = _BLANK.fullmatch(token)
        argv += blanks[whole[1]] if whole else [_BLANK.sub(lambda blank: blanks[blank[1]][0], token)]
    return argv


def group(argv: Sequence[str]) -> list[Flag]:
    """``argv`` cut before every flag."""
    flags: list[list[str]] = []
    for token in argv:
        if token.startswith("--"):
            flags.append([token])
        else:
            flags[-1].append(token)
    return [tuple(flag) for flag in flags]


def mended(argv: Sequence[str], fault: Fault, site: Site) -> list[str]:
    """``argv`` without the fault: its flag once, with the right values, or not at all."""
    flags = group(argv)
    values = fault.values(site)
    places = [at for at, flag in enumerate(flags) if flag[0] == fault.flag]
    right = [] if values is None else [(fault.flag, *values)]
    if places and right:
        flags[places[0]] = right[0]
        flags = [flag for at, flag in enumerate(flags) if at not in places[1:]]
    else:
        flags = [flag for flag in flags if flag[0] != fault.flag] + right
    return [token for flag in flags for token in flag]
