"""Rules: each looks at a run and yields what is wrong with it.

A rule names the fields it reads; it is left out when one of them has no valid value. Its
parameters say what else it needs: ``model``, which may be unreadable, and ``stages``, the pipeline.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.model import ModelSpec
from qwen3_ops.pipelines import StageRequest

Check = Callable[..., Iterator[Finding]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule: its theme is the module it stands in."""

    name: str
    theme: str
    fields: tuple[str, ...]
    wants: tuple[str, ...]
    check: Check


RULES: list[Rule] = []


def rule(*fields: str) -> Callable[[Check], Check]:
    """Register a rule that reads ``fields`` of the run."""

    def register(check: Check) -> Check:
        RULES.append(
            Rule(
                name=check.__name__,
                theme=check.__module__.rpartition(".")[2],
                fields=fields,
                wants=tuple(inspect.signature(check).parameters),
                check=check,
            )
        )
        return check

    return register


def apply(
    run: RunConfig,
    model: ModelSpec | None,
    *,
    stages: Sequence[StageRequest] = (),
    skip: Collection[str] = (),
    themes: Collection[str] | None = None,
) -> list[Finding]:
    """What the rules find, all of it.

    Args:
        model: None where it can not be read; rules about it are left out.
        skip: fields without a valid value.
        themes: only of these modules.
    """
    known: dict[str, Any] = {"run": run, "model": model, "stages": stages}
    findings: list[Finding] = []
    for each in RULES:
        if (themes is None or each.theme in themes) and not set(each.fields) & set(skip):
            if "model" in each.wants and model is None:
                continue
            findings += each.check(*(known[name] for name in each.wants))
    return findings
