"""Rules: each looks at a run and yields what is wrong with it.

A rule names the fields it reads; it is left out when one of them has no valid value. Its
parameters say what else it needs: ``model``, which may be unreadable, and ``stages``, the pipeline.
It is also left out of a pipeline without the stages that it is about.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.model import ModelSpec
from qwen3_ops.pipelines import StageRequest
from qwen3_ops.stages import STAGES

Check = Callable[..., Iterator[Finding]]
About = Literal["data", "weights", "devices", "training", "mmlu"]

_VERBS: Mapping[About, frozenset[str]] = {
    "data": frozenset({"preprocess-data"}),
    "weights": frozenset({"convert-ckpt", "train", "generate", "evaluate"}),
    "devices": frozenset({"train", "generate", "evaluate"}),
    "training": frozenset({"train"}),
    "mmlu": frozenset({"evaluate"}),
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule: its theme is the module it stands in."""

    name: str
    theme: str
    fields: tuple[str, ...]
    about: About | None
    wants: tuple[str, ...]
    check: Check


RULES: list[Rule] = []


def rule(*fields: str, about: About | None = None) -> Callable[[Check], Check]:
    """Register a rule that reads ``fields`` of the run.

    Args:
        about: stages that the rule is about; None: any.
    """

    def register(check: Check) -> Check:
        RULES.append(
            Rule(
                name=check.__name__,
                theme=check.__module__.rpartition(".")[2],
                fields=fields,
                about=about,
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
        stages: the pipeline; rules about stages that it lacks are left out. Empty: all rules.
        themes: only of these modules.
    """
    verbs = {STAGES[stage.stage].verb for stage in stages if stage.stage in STAGES}
    known: dict[str, Any] = {"run": run, "model": model, "stages": stages}
    findings: list[Finding] = []
    for each in RULES:
        if (themes is None or each.theme in themes) and not set(each.fields) & set(skip):
            if ("model" in each.wants and model is None) or (stages and each.about and not verbs & _VERBS[each.about]):
                continue
            findings += each.check(*(known[name] for name in each.wants))
    return findings
